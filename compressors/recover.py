"""Recovery training: a damaged model learns the base model's distributions, whatever did the damage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext, StepFault

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressors.batches import Stream
    from compressors.training import Trainer

SAY_EVERY = 10.0  # seconds between two lines of progress


class Distill(Step):
    """Train against the base model: forward KL(teacher || student) at temperature 1 (Hinton et al., 2015).

    The learning rate warms up over the first `warmup_tokens`, then falls as 1/sqrt(position). Neither depends
    on `tokens`, so that going on from an earlier artifact gives, on one machine, what training straight
    through gives. Weights are fp32 while training and written in bf16. The result is a running average
    of the weights (`average`), which stands in for the cool-down that an open end forbids.

    On a held-out tenth of the data (64 rows at most) the KL is measured before and after; when training made
    it worse the input's weights are handed on and the notes say so. Raises `StepFault` when the loss is not
    finite or no row has anything to learn from.
    """

    step: Literal["distill"] = "distill"
    tokens: PositiveInt = Field(description="tokens through the student in total, prompts included")
    lr: PositiveFloat = Field(3e-4, description="highest learning rate")
    batch_tokens: PositiveInt = Field(2048, description="tokens of one optimizer step")
    warmup_tokens: PositiveInt = Field(20_000, description="tokens until the highest learning rate")
    average: float = Field(
        0.1, ge=0, lt=1, description="share of the past that the weight average spans; 0: no average"
    )
    loss_on: Literal["answers", "all"] = Field("answers", description="tokens whose prediction is learned")
    max_length: PositiveInt = Field(2048, description="tokens of one conversation; longer ones are cut")

    uses_data: ClassVar[bool] = True
    continues: ClassVar[str | None] = "tokens"
    code: ClassVar[tuple[str, ...]] = ("compressors.data", "compressors.batches", "compressors.training")

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        if not shape.damaged:
            raise Infeasible("distill has nothing to win back: no step before it has changed the base, its own teacher")

    def at(self, fraction: float) -> Self:
        return self.model_copy(update={"tokens": max(1, round(self.tokens * fraction))})

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        from compressors import checkpoint
        from compressors.batches import Stream
        from compressors.training import Trainer, mean_kl

        student, tokenizer = checkpoint.load(source, context.device)
        teacher, _ = checkpoint.load(context.base, context.device)
        if context.device == "cpu":
            teacher.float()  # bf16 would save a tenth of the time with AMX, and cost far more without
        student.requires_grad_(True).float()
        stream = Stream(
            context.data,
            tokenizer,
            batch_tokens=self.batch_tokens,
            max_length=self.max_length,
            answers_only=self.loss_on == "answers",
            seed=context.seed,
        )
        held = stream.held_out()
        if not held:
            raise StepFault("distill found no row with an answer to learn from")
        trainer = Trainer(student, lr=self.lr, warmup_tokens=self.warmup_tokens, average=self.average)
        if context.continue_from is not None:
            trainer.load(context.continue_from)
        else:
            trainer.kl_before = mean_kl(student, teacher, held)
        self._train(trainer, teacher, stream, context)
        trainer.save(target)
        trainer.show_average()
        kl_after = mean_kl(student, teacher, held)
        kept = "trained" if kl_after < trainer.kl_before else "input"
        if kept == "input":
            student, tokenizer = checkpoint.load(source, context.device)
        checkpoint.save(student, tokenizer, target, files_from=source)
        context.notes.update(
            kl_before=trainer.kl_before,
            kl_after=kl_after,
            kept=kept,
            trained_tokens=trainer.position,
            optimizer_steps=trainer.steps,
        )

    def _train(self, trainer: Trainer, teacher: PreTrainedModel, stream: Stream, context: StepContext) -> None:
        began, said, first = time.monotonic(), time.monotonic(), trainer.position
        for batch in stream.batches(trainer.place):
            if trainer.position >= self.tokens:
                return
            loss = trainer.step(teacher, batch)
            now = time.monotonic()
            if now - said > SAY_EVERY:
                said, pace = now, (trainer.position - first) / (now - began)
                done = f"{trainer.position:,} of {self.tokens:,} tokens"
                context.progress(f"distill: {done}, KL {loss:.4f}, {pace:,.0f} tokens/s")
        raise StepFault("distill found no row with an answer to learn from")
