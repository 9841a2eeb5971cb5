"""Depth pruning: whole decoder layers leave. Knows nothing of training, quantization or scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FEWEST_LAYERS = 2
MAX_LENGTH = 2048  # tokens of a calibration row; longer ones are cut


class DropLayers(Step):
    """Remove the `count` decoder layers that `by` ranks least important.

    Ranking by block influence: 1 - cos(h_in, h_out), mean over calibration tokens (Men et al., 2024, eq. 2),
    measured once on the model as it comes in. Raises `Infeasible` when fewer than two layers would remain.
    """

    step: Literal["drop_layers"] = "drop_layers"
    count: PositiveInt = Field(description="layers to remove")
    by: Literal["block_influence"] = Field(
        "block_influence", description="how layers are ranked; the least important go first"
    )
    calibration_rows: PositiveInt = Field(128, description="conversations the ranking is measured on")

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("compressors.data",)

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        self._refuse(shape.layers)

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"layers": shape.layers - self.count, "damaged": True})

    def apply(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext
    ) -> PreTrainedModel:
        from compressors.data import tokenize

        self._refuse(len(model.model.layers))
        samples = [tokenize(tokenizer, row, MAX_LENGTH) for row in context.data.rows[: self.calibration_rows]]
        influence = block_influence(model, [sample.ids for sample in samples if sample.ids])
        ranked = sorted(range(len(influence)), key=lambda layer: (influence[layer], layer))
        dropped = sorted(ranked[: self.count])
        context.notes["block_influence"] = influence
        context.notes["dropped"] = dropped
        context.progress(f"drop_layers: layers {', '.join(map(str, dropped))} leave")
        return remove_layers(model, dropped)

    def _refuse(self, layers: int) -> None:
        if layers - self.count < FEWEST_LAYERS:
            left = max(layers - self.count, 0)
            raise Infeasible(f"drop_layers count {self.count} leaves {left} of {layers} layers; at least 2 must stay")


def block_influence(model: PreTrainedModel, rows: list[tuple[int, ...]]) -> list[float]:
    """1 - cos(h_in, h_out) of every decoder layer, mean over all tokens of `rows` (token ids)."""
    import torch

    layers = model.model.layers
    total = torch.zeros(len(layers), dtype=torch.float64)

    def measure(index: int) -> torch.utils.hooks.RemovableHandle:
        def hook(_: object, args: tuple, kwargs: dict, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            entering = args[0] if args else kwargs["hidden_states"]
            leaving = output[0] if isinstance(output, tuple) else output
            cosine = torch.cosine_similarity(entering.float(), leaving.float(), dim=-1)
            total[index] += (1 - cosine).double().sum().cpu()

        return layers[index].register_forward_hook(hook, with_kwargs=True)

    handles = [measure(index) for index in range(len(layers))]
    try:
        with torch.no_grad():
            for row in rows:
                model.model(input_ids=torch.tensor([row], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [float(value) for value in total / sum(len(row) for row in rows)]


def remove_layers(model: PreTrainedModel, dropped: list[int]) -> PreTrainedModel:
    """Take the decoder layers `dropped` out of `model` in place and number the rest anew, in config too."""
    import torch

    kept = [index for index in range(len(model.model.layers)) if index not in set(dropped)]
    model.model.layers = torch.nn.ModuleList(model.model.layers[index] for index in kept)
    for index, layer in enumerate(model.model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    kinds = getattr(model.config, "layer_types", None)
    model.config.num_hidden_layers = len(kept)
    if kinds is not None:
        model.config.layer_types = [kinds[index] for index in kept]
    return model
