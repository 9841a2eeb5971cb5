"""Distillation: the model learns the base model's predictions, whatever did the damage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from compressors.divergence import Kind
from compressors.recover import Recovery
from compressors.step import EngineTraits, Infeasible, ModelShape, StepContext, StepFault

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressors.harm import Reading
    from compressors.objective import Objective


class Distill(Recovery):
    """Train against the base model's next-token distributions at temperature 1 (Hinton et al., 2015).

    With `top`, its likeliest tokens alone are learned, and the rest as one: they are asked once and kept in the store
    for every trial that trains on the same conversations. Ranked by the held-out KL to the base.
    """

    step: Literal["distill"] = "distill"
    loss: Kind = Field("kl", description="kl, reverse_kl or jsd (compressors/divergence.py)")
    top: PositiveInt | None = Field(None, description="tokens a stored teacher keeps of a prediction; without: all")
    hidden: NonNegativeFloat = Field(0.0, description="weight of the distance between last hidden states")

    @model_validator(mode="after")
    def _live(self) -> Self:
        if self.hidden and self.top is not None:
            raise ValueError("hidden compares with the base itself, and top trains from stored predictions: choose one")
        return self

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        super().check(shape, engine)
        if not (shape.damaged or shape.quantized or self.fake_quant):
            raise Infeasible("distill has nothing to win back: no step before it has changed the base, its own teacher")
        if self.top is not None and self.top > shape.vocab:
            raise Infeasible(f"distill top {self.top} is more than the model's {shape.vocab} tokens")
        if self.hidden and shape.narrowed:
            raise Infeasible(
                f"distill hidden {self.hidden} compares hidden states of one width, and prune_hidden has left "
                f"{shape.hidden} channels of the base's: leave hidden out"
            )

    def objective(self, base: PreTrainedModel, source: Path, context: StepContext) -> Objective:
        from compressors.artifact import base_artifact, code_hash, libraries
        from compressors.objective import Match
        from compressors.teacher import LiveTeacher, StoredTeacher, cache_name
        from compressors.tokens import rows_in

        if self.top is None:
            return Match(LiveTeacher(base), self.loss, self.hidden)
        if context.cache is None:
            raise StepFault("distill top needs a store to keep the teacher's predictions in")
        # the vocabulary's size and ids, where one was trimmed, change what samples and predictions mean
        rows = rows_in(context.base, source)
        made_by = [code_hash(self), *libraries().values(), context.device.partition(":")[0]]
        name = cache_name([base_artifact(context.base).key, rows, self.top, *made_by])
        return Match(StoredTeacher(base, context.cache / "teacher" / name, self.top), self.loss)

    def rank_of(self, reading: Reading, before: Reading) -> float:
        return reading.kl
