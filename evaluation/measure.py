"""One measurement: what a model answers, how right that is, and how many seconds its tokens took.

Asks an engine only what the answer store does not hold. Knows nothing of recipes, searches or scores.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import Decoding
from evaluation.benchmarks.heldout import TextFigures, compare, likelihood_kept, perplexity
from evaluation.engine import Engine, EngineFault, ScoredText
from evaluation.suite import Slice, Suite

TOP = 32  # likeliest tokens kept per position of held-out text


class Timing(BaseModel):
    """One pass over one slice: seconds inside the engine's generate, and tokens generated."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    tokens: int


class BenchmarkFigures(BaseModel):
    """What one benchmark showed."""

    model_config = ConfigDict(frozen=True)

    grades: dict[str, float] = Field(description="by item, 0 to 1")
    passes: list[list[Timing]] = Field(description="by slice, then by pass; empty where nothing is generated")
    details: dict[str, float] = Field(default_factory=dict, description="figures beside the value, by name")

    @property
    def value(self) -> float:
        return statistics.fmean(self.grades.values())

    @property
    def seconds(self) -> float:
        return sum(statistics.median(timing.seconds for timing in one) for one in self.passes)

    @property
    def tokens(self) -> int:
        return sum(one[0].tokens for one in self.passes)


class Measurement(BaseModel):
    """Everything seen of one model at one rung, on one engine and device."""

    model_config = ConfigDict(frozen=True)

    benchmarks: dict[str, BenchmarkFigures]
    engine: str
    device: str
    clock: str
    kernels: list[str]

    @property
    def perf(self) -> float:
        """Unweighted mean of the benchmarks."""
        return statistics.fmean(one.value for one in self.benchmarks.values())

    @property
    def passes(self) -> list[list[Timing]]:
        """Timings of all slices of all benchmarks."""
        return [one for figures in self.benchmarks.values() for one in figures.passes]

    @property
    def tokens(self) -> int:
        return sum(figures.tokens for figures in self.benchmarks.values())

    @property
    def sec_per_token(self) -> float:
        """Pure generation seconds over generated tokens, all benchmarks; the median pass of each slice."""
        if self.tokens == 0:
            raise EngineFault("the model generated no token: there is no time per token")
        return sum(figures.seconds for figures in self.benchmarks.values()) / self.tokens


class Subject(BaseModel):
    """The model that is asked: its folder, and the key that names its content."""

    model_config = ConfigDict(frozen=True)

    key: str
    folder: Path


class Measurer:
    """Measures models with one engine and one suite."""

    def __init__(self, engine: Engine, suite: Suite, store: AnswerStore, passes: int, thinking: bool = False) -> None:
        self.engine = engine
        self.suite = suite
        self.store = store
        self.passes = passes
        self.thinking = thinking

    def measure(self, subject: Subject, rung: int, base: Subject, retime: str = "") -> Measurement:
        """Everything up to `rung`. `base` gives the reference of benchmarks that compare with the base model.

        A new word in `retime` asks for new timings even where answers are known.
        """
        figures = {name: self._benchmark(name, subject, rung, base, retime) for name in self.suite.graders}
        if self.suite.texts:
            figures |= self._heldout(subject, rung, base)
        about = self.engine.start().about
        return Measurement(
            benchmarks=figures,
            engine=about["engine"],
            device=about["device_name"],
            clock=self.engine.settings.clock,
            kernels=self._kernels(subject),
        )

    def _benchmark(self, name: str, subject: Subject, rung: int, base: Subject, retime: str) -> BenchmarkFigures:
        grader = self.suite.graders[name]
        compares = getattr(grader, "needs_base", False)
        grades: dict[str, float] = {}
        passes: list[list[Timing]] = []
        same = 0
        for part in (one for one in self.suite.up_to(rung) if one.benchmark == name):
            record = self._answers(part, subject, retime)
            theirs = self._answers(part, base, "")["texts"] if compares else None
            passes.append([Timing(**timing) for timing in record["passes"]])
            for number, item in enumerate(part.items):
                if theirs is not None:
                    item = item.model_copy(update={"reference": theirs[number]})
                    same += record["texts"][number] == theirs[number]
                grades[item.id] = grader.grade(item, tuple(record["texts"][number]))
        details = {"exact_match": same / len(grades)} if compares else {}
        return BenchmarkFigures(grades=grades, passes=passes, details=details)

    def _answers(self, part: Slice, subject: Subject, retime: str) -> dict[str, Any]:
        decodings = [self.suite.graders[part.benchmark].decoding(item) for item in part.items]
        identity = self._identity(subject) | {
            "slice": part.fingerprint,
            "decoding": [decoding.model_dump() for decoding in decodings],
            "thinking": self.thinking,
            "passes": self.passes,
            "retime": retime,
        }
        record = self.store.get(identity)
        if record is None:
            self._load(subject)
            record = self._ask(part, decodings)
            self.store.put(identity, record)
        return record

    def _ask(self, part: Slice, decodings: Sequence[Decoding]) -> dict[str, Any]:
        texts: list[list[str]] = []
        passes = []
        for number in range(self.passes):
            answers, seconds, tokens = self._one_pass(part, decodings)
            if number == 0:
                texts = answers
            passes.append({"seconds": seconds, "tokens": tokens})
        return {"texts": texts, "passes": passes, "kernels": self.engine.kernels}

    def _one_pass(self, part: Slice, decodings: Sequence[Decoding]) -> tuple[list[list[str]], float, int]:
        """Ask every turn of every item; turn k + 1 goes out together, after all answers to turn k."""
        chats: list[list[dict[str, str]]] = [[] for _ in part.items]
        answers: list[list[str]] = [[] for _ in part.items]
        seconds, tokens = 0.0, 0
        for turn in range(max(len(item.turns) for item in part.items)):
            asked = [number for number, item in enumerate(part.items) if turn < len(item.turns)]
            for number in asked:
                chats[number].append({"role": "user", "content": part.items[number].turns[turn]})
            done = self.engine.generate(
                [chats[number] for number in asked], [decodings[number] for number in asked], self.thinking
            )
            seconds += done.cpu_seconds if self.engine.settings.clock == "cpu" else done.seconds
            for number, answer in zip(asked, done.answers, strict=True):
                chats[number].append({"role": "assistant", "content": answer.text})
                answers[number].append(answer.text)
                tokens += answer.tokens
        return answers, seconds, tokens

    def _heldout(self, subject: Subject, rung: int, base: Subject) -> dict[str, BenchmarkFigures]:
        figures: list[TextFigures] = []
        kept: list[float] = []
        for number, texts in self.suite.texts_up_to(rung):
            mine = self._scored(number, texts, subject)
            theirs = self._scored(number, texts, base)
            for one, other in zip(mine, theirs, strict=True):
                figures.append(compare(one, other))
                kept.append(likelihood_kept(figures[-1], compare(other, other)))
        positions = sum(figure.positions for figure in figures)
        divergence = sum(figure.kl * figure.positions for figure in figures) / positions
        return {
            "agreement": BenchmarkFigures(
                grades={f"text-{number}": figure.agreement for number, figure in enumerate(figures)},
                passes=[],
                details={"kl": divergence, "positions": float(positions)},
            ),
            "perplexity": BenchmarkFigures(
                grades={f"text-{number}": value for number, value in enumerate(kept)},
                passes=[],
                details={"perplexity": perplexity(figures)},
            ),
        }

    def _scored(self, number: int, texts: Sequence[str], subject: Subject) -> list[ScoredText]:
        limit = self.suite.spec.heldout_tokens
        identity = self._identity(subject) | {
            "heldout": number,
            "texts": list(texts),
            "top": TOP,
            "limit": limit,
        }
        record = self.store.get(identity)
        if record is None:
            self._load(subject)
            scored = self.engine.score(texts, TOP, limit)
            broken = [one for one in scored if not all(math.isfinite(value) for value in one.actual)]
            if broken:
                raise EngineFault("the model gives log-probabilities that are not numbers on held-out text")
            record = {"texts": [one.model_dump() for one in scored], "kernels": self.engine.kernels}
            self.store.put(identity, record)
        return [ScoredText.model_validate(one) for one in record["texts"]]

    def _identity(self, subject: Subject) -> dict[str, Any]:
        about = self.engine.start().about
        return {
            "artifact": subject.key,
            "engine": about["engine"],
            "device": about["device_name"],
            "settings": self.engine.settings.model_dump(exclude={"python", "load_timeout", "answer_timeout"}),
        }

    def _kernels(self, subject: Subject) -> list[str]:
        record = self.store.get(self._identity(subject) | {"kernels": True})
        return list(record["kernels"]) if record is not None else []

    def _load(self, subject: Subject) -> None:
        if self.engine.loaded == subject.folder:
            return
        self.engine.load(subject.folder)
        self.store.put(self._identity(subject) | {"kernels": True}, {"kernels": self.engine.kernels})
        # The first batch pays for buffers and threads that later ones find ready: keep it out of the timings.
        warm = [{"role": "user", "content": "1 2 3 4 5 6 7 8"}]
        self.engine.generate([warm] * 4, [Decoding(max_tokens=8)] * 4)
