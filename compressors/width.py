"""Width pruning: FFN channels, whole KV groups of attention heads, channels of the hidden state.

What leaves is what calibration shows to matter least; nothing is copied or trained. How many leave is one number
for the whole model (engines know one width), which of them is each layer's own affair, except for the hidden state,
whose channels all layers share. Knows nothing of training, quantization or scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MULTIPLE = 128  # what kernels tile by, and one group of W4A16
SMALL_MULTIPLE = 64  # of models whose hidden size is below SMALL
SMALL = 1024
# Their config in transformers 5 refuses heads that do not divide the hidden size, though it knows head_dim
HEADS_DIVIDE_HIDDEN = ("LlamaForCausalLM",)


class PruneFFN(Step):
    """Keep `width` channels of every FFN, each layer those that carry most to its output.

    Importance of channel c: mean over calibration tokens of |act(gate_c) * up_c|, times the norm of column c of
    down_proj: an upper bound of what leaves with it (activation x weight, as in Wanda, Sun et al., 2024, eq. 1,
    and the neuron importance of Minitron, Muralidharan et al., 2024).
    Raises `Infeasible` for a width that is not below the model's or not a multiple of 128 (64 below hidden 1024),
    and after 2:4 sparsity, whose pattern it would break.
    """

    step: Literal["prune_ffn"] = "prune_ffn"
    width: PositiveInt = Field(description="intermediate_size of every layer afterwards")
    calibration_rows: PositiveInt = Field(128, description="conversations that importance is measured on")

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("compressors.data", "compressors.calibration", "compressors.width_surgery")

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        refuse_pattern(self.step, shape)
        refuse_width(f"{self.step} width", self.width, shape.ffn, "intermediate_size", shape.hidden)

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"ffn": self.width, "damaged": True})

    def apply(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext
    ) -> PreTrainedModel:
        from compressors.calibration import calibration_rows
        from compressors.width_surgery import ffn_importance, keep_channels, most_important

        config = model.config
        refuse_width(
            f"{self.step} width", self.width, config.intermediate_size, "intermediate_size", config.hidden_size
        )
        rows = calibration_rows(tokenizer, context, self.calibration_rows, self.step)
        importance = ffn_importance(model, rows)
        kept = [most_important(scores, self.width) for scores in importance]
        context.notes["importance_kept"] = [
            float(scores[channels].sum() / scores.sum()) for scores, channels in zip(importance, kept, strict=True)
        ]
        context.progress(f"prune_ffn: {self.width} of {config.intermediate_size} channels stay in every layer")
        return keep_channels(model, kept)


class PruneHeads(Step):
    """Keep `kv_heads` groups of attention heads (a KV head and all query heads that share it) in every layer.

    Importance of a group: mean over calibration tokens of the length of what it adds to the output of o_proj,
    |W_o[:, group] x_group|. head_dim and the number of query heads a KV head serves stay.
    Raises `Infeasible` when `kv_heads` is not below the model's, and where transformers' config wants the heads to
    divide the hidden size. Architectures whose config cannot state head_dim are refused by `shape.check_recipe`
    unless the recipe's hidden size fits again in the end.
    """

    step: Literal["prune_heads"] = "prune_heads"
    kv_heads: PositiveInt = Field(description="KV heads of every layer afterwards; query heads fall in proportion")
    calibration_rows: PositiveInt = Field(128, description="conversations that importance is measured on")

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("compressors.data", "compressors.calibration", "compressors.width_surgery")

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        self._refuse(shape.kv_heads)
        refuse_pattern(self.step, shape)
        refuse_remainder(f"{self.step} kv_heads {self.kv_heads}", self.reshape(shape))

    def reshape(self, shape: ModelShape) -> ModelShape:
        heads = self.kv_heads * (shape.heads // shape.kv_heads)
        return shape.model_copy(update={"heads": heads, "kv_heads": self.kv_heads, "damaged": True})

    def apply(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext
    ) -> PreTrainedModel:
        from compressors.calibration import calibration_rows
        from compressors.width_surgery import group_importance, keep_groups, most_important

        self._refuse(model.config.num_key_value_heads)
        rows = calibration_rows(tokenizer, context, self.calibration_rows, self.step)
        importance = group_importance(model, rows)
        kept = [most_important(scores, self.kv_heads) for scores in importance]
        context.notes["kept_groups"] = [groups.tolist() for groups in kept]
        context.progress(f"prune_heads: {self.kv_heads} of {model.config.num_key_value_heads} KV heads stay")
        return keep_groups(model, kept)

    def _refuse(self, available: int) -> None:
        if self.kv_heads >= available:
            raise Infeasible(f"prune_heads kv_heads {self.kv_heads} is not below the model's {available}")


class PruneHidden(Step):
    """Keep `hidden` channels of the hidden state, the same throughout the model.

    Importance of channel c: mean over calibration tokens of |x_c| in all that reads the hidden state (the inputs of
    q_proj and gate_proj in every layer, and of the head), each reader's figures divided by their mean so that all
    count alike. In models that normalize before they read these are the norms' outputs, as in Minitron
    (Muralidharan et al., 2024); in Exaone4, which normalizes afterwards, the residual stream itself.

    The result is the model in which the other channels are zero, up to eps: an RMSNorm over n channels of which m
    are kept divides by sqrt(sum x^2 / n + eps), the pruned one by sqrt(sum x^2 / m + eps), which is
    sqrt(n / m) times sqrt(sum x^2 / n + eps m / n). So its weights are multiplied by sqrt(n / m), and only eps,
    now worth m / n of itself, tells the two apart. q_norm and k_norm work within heads and stay.

    Raises `Infeasible` for a size that is not below the model's or not a multiple of 128 (64 below 1024), and
    after 2:4 sparsity. Architectures that cannot state every pair of heads and hidden size: see `PruneHeads`.
    """

    step: Literal["prune_hidden"] = "prune_hidden"
    hidden: PositiveInt = Field(description="hidden_size afterwards")
    calibration_rows: PositiveInt = Field(128, description="conversations that importance is measured on")

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("compressors.data", "compressors.calibration", "compressors.width_surgery")

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        refuse_pattern(self.step, shape)
        refuse_width(f"{self.step} hidden", self.hidden, shape.hidden, "hidden_size", shape.hidden)
        refuse_remainder(f"{self.step} hidden {self.hidden}", self.reshape(shape))

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"hidden": self.hidden, "narrowed": True, "damaged": True})

    def apply(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext
    ) -> PreTrainedModel:
        from compressors.calibration import calibration_rows
        from compressors.width_surgery import hidden_importance, keep_hidden, most_important

        size = model.config.hidden_size
        refuse_width(f"{self.step} hidden", self.hidden, size, "hidden_size", size)
        rows = calibration_rows(tokenizer, context, self.calibration_rows, self.step)
        importance = hidden_importance(model, rows)
        kept = most_important(importance, self.hidden)
        context.notes["importance_kept"] = float(importance[kept].sum() / importance.sum())
        context.progress(f"prune_hidden: {self.hidden} of {size} channels stay")
        return keep_hidden(model, kept)


def refuse_width(what: str, wanted: int, available: int, name: str, hidden: int) -> None:
    """Raise `Infeasible` unless `wanted` is below `available` and a multiple that suits a model of size `hidden`."""
    multiple = MULTIPLE if hidden >= SMALL else SMALL_MULTIPLE
    if wanted >= available:
        raise Infeasible(f"{what} {wanted} is not below the model's {name} {available}")
    if wanted % multiple:
        raise Infeasible(f"{what} {wanted} is no multiple of {multiple}, as a model of hidden size {hidden} needs")


def refuse_pattern(step: str, shape: ModelShape) -> None:
    """Raise `Infeasible` where two of every four weights are zero: taking inputs out would break up the fours."""
    if shape.sparse == "2:4":
        raise Infeasible(f"{step} breaks the 2:4 pattern that an earlier step made; prune before sparsifying")


def refuse_remainder(what: str, result: ModelShape) -> None:
    """Raise `Infeasible` where transformers would not read the config of `result`."""
    if result.architecture in HEADS_DIVIDE_HIDDEN and result.hidden % result.heads:
        raise Infeasible(
            f"{what}: transformers wants the heads of a {result.architecture} to divide its hidden size, "
            f"and {result.heads} heads do not divide {result.hidden}"
        )
