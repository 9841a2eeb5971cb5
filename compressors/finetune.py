"""Supervised fine-tuning: the model learns what conversations say, as far as that takes it not from its base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat

from compressors.recover import Recovery
from compressors.step import ModelShape, StepContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressors.harm import Reading
    from compressors.objective import Objective


class Finetune(Recovery):
    """Train on the answers themselves, by cross-entropy.

    Ranked by the held-out cross-entropy among the readings whose KL to the base is at most `harm` above the
    input's: data that pull the model away from its base stop being learned where that limit is reached.
    """

    step: Literal["finetune"] = "finetune"
    harm: NonNegativeFloat = Field(0.05, description="nats by which held-out KL to the base may rise")

    def reshape(self, shape: ModelShape) -> ModelShape:
        return super().reshape(shape).model_copy(update={"damaged": True})  # its base can win back what the data took

    def objective(self, base: PreTrainedModel, source: Path, context: StepContext) -> Objective:
        from compressors.objective import Say

        return Say()

    def rank_of(self, reading: Reading, before: Reading) -> float:
        return reading.loss if reading.kl <= before.kl + self.harm else math.inf
