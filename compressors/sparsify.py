"""Sparsity: weights that matter least become zero. Comes before quantization, which keeps them so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext, StepFault

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_LENGTH = 2048  # tokens of a calibration row; longer ones are cut


class Sparsify(Step):
    """Set a share of every linear layer's weights to zero; embeddings and head stay whole.

    `magnitude` takes the smallest of each matrix and needs no data; `wanda` (Sun et al., 2023, eq. 1) the smallest
    |w|·‖x‖ of each output; `sparsegpt` (Frantar and Alistarh, 2023) those whose loss later columns can best make
    up for, and lets them. `pattern` 2:4 zeroes two of every four neighbouring inputs, whatever their size.
    Raises `Infeasible` for 2:4 where the engine has no kernel that makes use of it, where `sparsity` is not 0.5
    with it, or where 4 does not divide a width; `StepFault` where sparsegpt cannot use what the data show.
    """

    step: Literal["sparsify"] = "sparsify"
    method: Literal["sparsegpt", "wanda", "magnitude"] = Field(description="how the weights to go are chosen")
    sparsity: float = Field(0.5, ge=0, lt=1, description="share of the weights that become zero")
    pattern: Literal["unstructured", "2:4"] = Field("unstructured", description="where zeros may stand")
    calibration_rows: PositiveInt = Field(128, description="conversations read; magnitude reads none")

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("compressors.data", "compressors.quantizers", "compressors.schemes")

    def takes_data(self) -> bool:
        return self.method != "magnitude"

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        if self.pattern != "2:4":
            return
        if self.sparsity != 0.5:
            raise Infeasible(f"sparsify pattern 2:4 is sparsity 0.5, not {self.sparsity}")
        engine.require("sparse_24", self.step)
        for name, width in {
            "hidden": shape.hidden,
            "ffn": shape.ffn,
            "attention": shape.heads * shape.head_dim,
        }.items():
            if width % 4:
                raise Infeasible(f"sparsify pattern 2:4 needs widths that 4 divides; {name} of this model is {width}")

    def reshape(self, shape: ModelShape) -> ModelShape:
        if self.sparsity == 0:
            return shape
        return shape.model_copy(update={"sparse": self.pattern, "damaged": True})

    def apply(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext
    ) -> PreTrainedModel:
        if self.sparsity == 0:
            return model
        if self.method == "magnitude":
            prune_by_magnitude(model, self.sparsity, self.pattern)
        else:
            self._calibrated(model, tokenizer, context)
        from compressors.quantizers import zeros

        context.notes["zeros"] = round(zeros(model), 4)
        return model

    def _calibrated(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext) -> None:
        from compressors.data import tokenize
        from compressors.quantizers import calibration, once
        from compressors.quiet import errors_only

        errors_only()
        from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
        from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier

        samples = [tokenize(tokenizer, row, MAX_LENGTH) for row in context.data.rows[: self.calibration_rows]]
        tokens = [sample.ids for sample in samples if sample.ids]
        if not tokens:
            raise StepFault(f"sparsify by {self.method} has no calibration rows")
        settings: dict[str, Any] = {
            "sparsity": self.sparsity,
            "mask_structure": "2:4" if self.pattern == "2:4" else "0:0",
            # layers, not matrices: the name of a matrix that is a target itself is mangled, and `ignore` misses it
            "targets": [r"re:model\.layers\.\d+$"],
        }
        kind = SparseGPTModifier if self.method == "sparsegpt" else WandaPruningModifier
        once(model, tokenizer, kind(**settings), calibration(tokens))


def prune_by_magnitude(model: PreTrainedModel, sparsity: float, pattern: str) -> None:
    """Zero the smallest weights of every linear layer of the decoder: exactly that share, ties by position."""
    import torch

    with torch.no_grad():
        for module in model.model.layers.modules():
            if isinstance(module, torch.nn.Linear):
                rows = module.weight.view(-1, 4) if pattern == "2:4" else module.weight.view(1, -1)
                rows.scatter_(1, _smallest(rows, round(rows.shape[1] * sparsity)), 0)


def _smallest(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Places of the `count` values smallest in magnitude in each row."""
    return rows.abs().argsort(dim=1, stable=True)[:, :count]
