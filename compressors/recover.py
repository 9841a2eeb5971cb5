"""Recovery training, whatever its aim: train, watch, stop at the best point, and never hand on what is worse.

Subclasses say what is made smaller and how two readings compare. Knows nothing of what damaged the model.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from compressors.data import HUB, load_conversations
from compressors.fake_quant import GROUP, FakeScheme
from compressors.fake_quant import fake_quantized as as_if_quantized
from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext, StepFault
from compressors.trainable import Trains

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressors.batches import Stream
    from compressors.harm import Reading, Watch
    from compressors.objective import Objective
    from compressors.training import Trainer

SAY_EVERY = 10.0  # seconds between two lines of progress
CODE = tuple(f"compressors.{name}" for name in
             ("data", "batches", "training", "recover", "objective", "precision", "logits", "divergence", "teacher",
              "trainable", "fake_quant", "harm", "adam", "vocabulary", "tokens", "corpus", "quantizers",
              "schemes"))  # fmt: skip


class Recovery(Step):
    """Fields and conduct of every training step.

    The learning rate warms up over the first `warmup_tokens`, then falls as 1/sqrt(position). Neither depends
    on `tokens`, so that going on from an earlier artifact gives, on one machine, what training straight
    through gives. Weights are fp32 while training and written in bf16. The result is a running average
    of the weights (`average`), which stands in for the cool-down that an open end forbids.

    A tenth of the data (64 rows at most), and as much of the run's own where `data` names a file, is held out. On it
    agreement with and KL to the base are read before, after, and on the way; of the two kinds of text the worse counts.
    Training stops after `patience` readings without gain; the best point is handed on, and where that is worse than
    the input, the input is, and the notes say so. Raises `StepFault` when the loss is not finite or no row has
    anything to learn from.
    """

    tokens: PositiveInt = Field(description="tokens through the student in total, prompts included")
    lr: PositiveFloat = Field(3e-4, description="highest learning rate")
    batch_tokens: PositiveInt = Field(2048, description="tokens of one optimizer step")
    warmup_tokens: PositiveInt = Field(20_000, description="tokens until the highest learning rate")
    average: float = Field(
        0.1, ge=0, lt=1, description="share of the past that the weight average spans; 0: no average"
    )
    loss_on: Literal["answers", "all"] = Field("answers", description="tokens whose prediction is learned")
    max_length: PositiveInt = Field(2048, description="tokens of one conversation; longer ones are cut")
    trains: Trains = Field("all", description="weights that change: all, norms, head, or lora adapters, merged after")
    rank: PositiveInt = Field(16, description="of the adapters, for trains: lora")
    fake_quant: FakeScheme | None = Field(None, description="train as if quantized by this scheme (QAD, QAT)")
    data: str | None = Field(None, description="a file of conversations to train on; without it, the run's")
    check_every: PositiveInt = Field(50_000, description="tokens between two readings of held-out rows; at first fewer")
    patience: PositiveInt = Field(4, description="readings without gain after which training stops")

    uses_data: ClassVar[bool] = True
    continues: ClassVar[str | None] = "tokens"
    code: ClassVar[tuple[str, ...]] = CODE

    @model_validator(mode="after")
    def _compose(self) -> Self:
        if self.trains == "lora" and self.fake_quant is not None:
            raise ValueError("fake_quant rounds whole weights, and lora adapters are added after: choose one")
        if self.trains != "lora" and "rank" in self.model_fields_set and self.rank != 16:
            raise ValueError(f"rank {self.rank} is of lora adapters, and trains is {self.trains}")
        return self

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        if self.fake_quant is not None:
            if shape.quantized is not None:
                raise Infeasible(f"{self.step} cannot train as if quantized what is quantized ({shape.quantized})")
            engine.require_scheme(self.fake_quant, self.step)
            narrow = [width for width in (shape.hidden, shape.ffn, shape.heads * shape.head_dim) if width % GROUP]
            if self.fake_quant == "W4A16" and narrow:
                raise Infeasible(f"{self.step} fake_quant W4A16 needs widths that {GROUP} divides, not {narrow[0]}")
        if self.data is not None and not self.data.startswith(HUB) and not Path(self.data).is_file():
            raise Infeasible(f"{self.step} data {self.data}: no such file")
        if shape.sparse is not None and self.trains == "lora":
            raise Infeasible(
                f"{self.step} with lora adapters would fill the zeros of a sparsified model when they merge"
            )
        if shape.calibrated:
            raise Infeasible(
                f"{self.step} moves norms, and scales of the {shape.quantized} model were measured with the old ones: "
                "train before quantize, or choose a dynamic scheme"
            )
        if shape.quantized is not None and shape.quantized.upper() == "NF4":
            raise Infeasible(f"{self.step} trains norms beside compressed-tensors weights, not beside NF4")

    def preflight(self, base: Path) -> None:
        if self.data is not None:
            try:
                load_conversations(self.data)
            except (OSError, ValueError) as fault:
                raise Infeasible(f"{self.step} data {self.data}: {fault}") from fault

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"trained_for": self.fake_quant})

    def keeps_quantized(self) -> bool:
        return self.trains == "norms"

    def at(self, fraction: float) -> Self:
        return self.model_copy(update={"tokens": max(1, round(self.tokens * fraction))})

    def own_data(self) -> str | None:
        return self.data

    @abstractmethod
    def objective(self, base: PreTrainedModel, source: Path, context: StepContext) -> Objective:
        """What is made smaller."""

    @abstractmethod
    def rank_of(self, reading: Reading, before: Reading) -> float:
        """Less is better; compared with the rank of `before` itself."""

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        from compressors import checkpoint
        from compressors.harm import Watch
        from compressors.trainable import make_trainable
        from compressors.training import Trainer

        student, tokenizer = checkpoint.load_dense(source, context.device)
        base = load_base(source, context)
        student.float()
        merge = make_trainable(student, self.trains, self.rank, context.seed)
        stream = self._stream(context.data, tokenizer, context.seed)
        held = stream.held_out()
        if not held:
            raise StepFault(f"no row of {self.data or 'the calibration data'} has an answer to learn from")
        general = self._stream(context.general, tokenizer, context.seed).held_out() if context.general else []
        trainer = Trainer(student, lr=self.lr, warmup_tokens=self.warmup_tokens, average=self.average)
        with as_if_quantized(student, self.fake_quant):
            watch = Watch(base, student, held, general)
            if context.continue_from is not None:
                trainer.load(context.continue_from)
            else:
                trainer.before = watch.read(student)
            objective = self.objective(base, source, context)
            del base  # the objective holds it if it still asks it; what the watch needs is kept there
            try:
                self._train(trainer, objective, stream, watch, context)
            finally:
                objective.flush()
            if context.goes_on:
                trainer.save(target)
            after, kept = self._end(trainer, watch, merge)
        if kept == "input":
            context.progress(f"{self.step}: training did no good, its input is handed on")
            checkpoint.hand_on(source, target, context.device)
        else:
            checkpoint.save_changed(student, tokenizer, source, target, list(trainer.weights))
        context.notes.update(self._notes(trainer, after, kept))

    def _end(self, trainer: Trainer, watch: Watch, merge: Any) -> tuple[Reading, str]:
        """The better of the last average and the best point seen, as it is written; is it better than the input?"""
        student, before = trainer.student, trainer.before
        assert before is not None  # read at the start, and carried by the training state
        trainer.show_average()
        if trainer.best_reading is not None:
            last = watch.read(student)
            if self._rank(trainer.best_reading, before) < self._rank(last, before):
                trainer.show_best()
        merge()
        round_to_bf16(student)
        after = watch.read(student)
        return after, "trained" if self._rank(after, before) < self._rank(before, before) else "input"

    def _rank(self, reading: Reading, before: Reading) -> float:
        """`rank_of`, where what is no number is the worst there is."""
        rank = self.rank_of(reading, before)
        return rank if math.isfinite(rank) else math.inf

    def _train(
        self, trainer: Trainer, objective: Objective, stream: Stream, watch: Watch, context: StepContext
    ) -> None:
        began, said, first = time.monotonic(), time.monotonic(), trainer.position
        before = trainer.before
        assert before is not None
        for batch in stream.batches(trainer.place):
            if trainer.position >= self.tokens or trainer.fruitless >= self.patience:
                return
            loss = trainer.step(objective, batch)
            if (due := self.due(trainer.position)) > trainer.checks:
                trainer.checks = due
                trainer.check(watch.read, lambda reading: self._rank(reading, before))
            now = time.monotonic()
            if now - said > SAY_EVERY:
                said, pace = now, (trainer.position - first) / (now - began)
                done = f"{trainer.position:,} of {self.tokens:,} tokens"
                context.progress(f"{self.step}: {done}, loss {loss:.4f}, {pace:,.0f} tokens/s")
        raise StepFault(f"{self.step} found no row with an answer to learn from")

    def due(self, position: int) -> int:
        """How many readings there are up to a position: at 1/16, 1/8, 1/4 and 1/2 of `check_every`, then at each.

        The first tokens do most good, and most harm; a short training would otherwise never be looked at.
        """
        return sum(position * 2**k >= self.check_every for k in range(1, 5)) + position // self.check_every

    def _stream(self, data: Any, tokenizer: PreTrainedTokenizerBase, seed: int) -> Stream:
        from compressors.batches import Stream

        return Stream(
            data,
            tokenizer,
            batch_tokens=self.batch_tokens,
            max_length=self.max_length,
            answers_only=self.loss_on == "answers",
            seed=seed,
        )

    def _notes(self, trainer: Trainer, after: Reading, kept: str) -> dict[str, Any]:
        assert trainer.before is not None
        return {
            "before": trainer.before.model_dump(),
            "after": after.model_dump(),
            "best_seen": trainer.best_reading.model_dump() if trainer.best_reading else None,
            "kept": kept,
            "stopped_early": trainer.fruitless >= self.patience,
            "trained_tokens": trainer.position,
            "optimizer_steps": trainer.steps,
        }


def load_base(source: Path, context: StepContext) -> PreTrainedModel:
    """The base model, in the vocabulary of the model in `source`, without gradients."""
    from compressors import checkpoint
    from compressors.tokens import rows_in
    from compressors.vocabulary import trim_rows

    base, _ = checkpoint.load(context.base, context.device)
    rows = rows_in(context.base, source)
    if rows is not None:
        base = trim_rows(base, rows)
    base.requires_grad_(False)
    if context.device == "cpu":
        base.float()  # bf16 would save a tenth of the time with AMX, and cost far more without
    return base


def round_to_bf16(model: PreTrainedModel) -> None:
    """What is read afterwards is what will be written."""
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16))
