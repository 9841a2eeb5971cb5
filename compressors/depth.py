"""Depth pruning: whole decoder layers leave. Knows nothing of training, quantization or scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FEWEST_LAYERS = 2

Ranking = Literal["block_influence", "angular", "greedy_kl", "evolutionary_kl", "last", "explicit"]
MEASURED = ("block_influence", "angular", "greedy_kl", "evolutionary_kl")
# Fields that only some rankings read: given with another, they are refused
BELONGS: dict[str, tuple[str, ...]] = {
    "layers": ("explicit",),
    "calibration_rows": MEASURED,
    "calibration_tokens": ("greedy_kl", "evolutionary_kl"),
    "generations": ("evolutionary_kl",),
    "offspring": ("evolutionary_kl",),
    "survivors": ("evolutionary_kl",),
    "few_tokens": ("evolutionary_kl",),
}


class DropLayers(Step):
    """Remove the `count` decoder layers that `by` ranks least important, measured on the model as it comes in.

    block_influence: 1 - cos(h_in, h_out), mean over tokens (Men et al., 2024). angular: the block of `count`
    neighbours whose input and output are nearest in angle at the last token (Gromov et al., 2024). greedy_kl: the
    layer whose absence moves the predictions least, KL(whole || pruned), one after another. evolutionary_kl:
    sets of layers mutated and selected by that KL (EvoPress, Sieberling et al., 2024). last: the last ones.
    explicit: those that `layers` names. Raises `Infeasible` when fewer than two layers would remain, when `layers`
    names one that is not there, and when no sliding-window layer of a model that mixes both kinds would remain.
    """

    step: Literal["drop_layers"] = "drop_layers"
    count: PositiveInt | None = Field(None, description="layers to remove; may be left out where `layers` names them")
    by: Ranking = Field("block_influence", description="how layers are ranked; the least important go first")
    layers: tuple[NonNegativeInt, ...] = Field((), description="layers to remove by explicit, counted from 0")
    calibration_rows: PositiveInt = Field(128, description="conversations the ranking is measured on")
    calibration_tokens: PositiveInt = Field(
        32_768, description="tokens of those rows, at most, that greedy_kl and evolutionary_kl measure a KL on"
    )
    generations: PositiveInt = Field(40, description="rounds of evolutionary_kl")
    offspring: PositiveInt = Field(16, description="mutations a round of evolutionary_kl")
    survivors: PositiveInt = Field(2, description="of them, those that evolutionary_kl measures on all tokens")
    few_tokens: PositiveInt = Field(2048, description="tokens that evolutionary_kl measures all offspring on")

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = (
        "compressors.data",
        "compressors.calibration",
        "compressors.depth_rankings",
        "compressors.logits",
        "compressors.divergence",
    )

    @field_validator("layers")
    @classmethod
    def _each_once(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(layers)) < len(layers):
            raise ValueError("a layer is named twice")
        return tuple(sorted(layers))

    @model_validator(mode="after")
    def _belonging(self) -> Self:
        for name, rankings in BELONGS.items():
            if self.by not in rankings and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"field {name} = {getattr(self, name)!r} is not for by {self.by}")
        if self.by == "explicit" and not self.layers:
            raise ValueError("field layers is missing: by explicit removes the layers it names")
        if self.by != "explicit" and self.count is None:
            raise ValueError(f"field count is missing: by {self.by} needs it")
        if self.by == "explicit" and self.count not in (None, len(self.layers)):
            raise ValueError(f"field count = {self.count} does not agree with the {len(self.layers)} layers named")
        if self.by == "evolutionary_kl" and self.survivors > self.offspring:
            raise ValueError(f"field survivors = {self.survivors} is more than offspring {self.offspring}")
        return self

    @property
    def leaving(self) -> int:
        """How many layers leave."""
        return self.count or len(self.layers)

    def takes_data(self) -> bool:
        return self.by in MEASURED

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        self._refuse(shape.layers)

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"layers": shape.layers - self.leaving, "damaged": True})

    def apply(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext
    ) -> PreTrainedModel:
        self._refuse(len(model.model.layers))
        dropped = self._choose(model, tokenizer, context)
        context.notes["dropped"] = dropped
        context.progress(f"drop_layers: layers {', '.join(map(str, dropped))} leave")
        return remove_layers(model, dropped)

    def _choose(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext) -> list[int]:
        from compressors import depth_rankings
        from compressors.calibration import calibration_rows

        layers, count = len(model.model.layers), self.leaving
        if self.by == "explicit":
            return list(self.layers)
        if self.by == "last":
            return list(range(layers - count, layers))
        rows = calibration_rows(tokenizer, context, self.calibration_rows, self.step)
        if self.by == "block_influence":
            influence = depth_rankings.block_influence(model, rows)
            context.notes["block_influence"] = influence
            return sorted(sorted(range(layers), key=lambda layer: (influence[layer], layer))[:count])
        if self.by == "angular":
            distances = depth_rankings.angular_distance(model, rows, count)
            context.notes["angular_distance"] = distances
            first = min(range(len(distances)), key=lambda layer: (distances[layer], layer))
            return list(range(first, first + count))
        measure = depth_rankings.Divergence(model, rows, self.calibration_tokens)
        if self.by == "greedy_kl":
            dropped, path = depth_rankings.greedy(measure, count, context.progress)
        else:
            dropped, path = depth_rankings.evolve(
                measure,
                count,
                generations=self.generations,
                offspring=self.offspring,
                survivors=self.survivors,
                few_tokens=self.few_tokens,
                seed=context.seed,
                say=context.progress,
            )
        context.notes["kl"] = path
        return list(dropped)

    def _refuse(self, layers: int) -> None:
        beyond = [layer for layer in self.layers if layer >= layers]
        if beyond:
            raise Infeasible(
                f"drop_layers layers names {beyond[0]}, but the model's {layers} layers end at {layers - 1}"
            )
        if layers - self.leaving < FEWEST_LAYERS:
            left = max(layers - self.leaving, 0)
            raise Infeasible(f"drop_layers count {self.leaving} leaves {left} of {layers} layers; at least 2 must stay")


def remove_layers(model: PreTrainedModel, dropped: list[int]) -> PreTrainedModel:
    """Take the decoder layers `dropped` out of `model` in place and number the rest anew, in config too.

    Raises `Infeasible` when the last "sliding_attention" layer of a model that has some would go: engines turn RoPE
    off in Exaone4's full-attention layers by that very entry, and would turn it on again.
    """
    import torch

    kept = [index for index in range(len(model.model.layers)) if index not in set(dropped)]
    kinds = getattr(model.config, "layer_types", None)
    if kinds is not None and "sliding_attention" in kinds and all(kinds[i] != "sliding_attention" for i in kept):
        raise Infeasible("drop_layers leaves no sliding_attention layer, by which engines know where RoPE is off")
    model.model.layers = torch.nn.ModuleList(model.model.layers[index] for index in kept)
    for index, layer in enumerate(model.model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    model.config.num_hidden_layers = len(kept)
    if kinds is not None:
        model.config.layer_types = [kinds[index] for index in kept]
    return model
