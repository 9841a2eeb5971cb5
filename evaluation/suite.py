"""What a model is asked: benchmarks with their items, cut into nested slices so that a rung only adds to the last.

Knows nothing of engines or answers.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.base import BadData, Benchmark, Item
from evaluation.benchmarks.harness_task import PREFIX, HarnessTask
from evaluation.benchmarks.hub import Published, rows_of
from evaluation.benchmarks.komt_bench import KoMtBench
from evaluation.benchmarks.komt_judged import KoMtJudged, Rates, needs_judge
from evaluation.benchmarks.likeness import Likeness
from evaluation.judge import JudgeSpec

T = TypeVar("T")
ANYWHERE = Published(name="", split="train", first=1000)  # prompts and texts of one's own


class SuiteSpec(BaseModel):
    """Where the questions come from: files of rows (.jsonl, .json or .parquet), or hub:OWNER/NAME."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmarks: dict[str, str] = Field(
        default_factory=dict, description="benchmark name to the file of its rows; hub: is where it was published"
    )
    prompts: str | None = Field(None, description="unlabelled prompts (column prompt), answered as the base does")
    heldout: str | None = Field(None, description="texts (column text) on which predictions are compared with the base")
    judge: JudgeSpec | None = Field(None, description="who rates answers to benchmarks without right ones")
    limit: int | None = Field(None, description="items per benchmark at most", gt=0)
    heldout_tokens: int = Field(512, description="tokens of each held-out text that are looked at", gt=1)


class Slice(BaseModel):
    """The items of one benchmark that a rung adds."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    benchmark: str
    rung: int
    items: tuple[Item, ...]

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256("".join(item.model_dump_json() for item in self.items).encode()).hexdigest()[:32]


class Suite:
    """All benchmarks of a run. `fractions` are the rungs' shares of the items, rising to 1.

    A benchmark whose answers nobody can judge is left out, of perf too: `left_out` says which and why. A run that has
    begun gives its own `left_out`, so that all its trials are measured on the same.
    """

    def __init__(
        self,
        spec: SuiteSpec,
        fractions: Sequence[float],
        judge: Rates | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.spec = spec
        self.judge = judge
        self.fixed = left_out is not None
        self.left_out: dict[str, str] = dict(left_out or {})
        self.fractions = tuple(fractions)
        self.graders: dict[str, Benchmark] = {}
        self.slices: list[Slice] = []
        self.texts: list[tuple[str, ...]] = []  # held-out texts that each rung adds
        if spec.judge is not None and (absent := spec.judge.missing_file) and not self.fixed:
            raise BadData(absent)
        known: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in BENCHMARKS}
        for name, path in spec.benchmarks.items():
            if name.startswith(PREFIX):
                task = HarnessTask(name, path)
                self._place(task, task.items([]), path)
                continue
            if name not in known:
                raise BadData(f"unknown benchmark {name}; known: {', '.join(sorted(known))}, and {PREFIX}TASK")
            if name not in self.left_out:
                self._add(known[name], path, getattr(known[name], "published", ANYWHERE))
        if spec.prompts is not None:
            self._add(Likeness(), spec.prompts, ANYWHERE)
        if spec.heldout is not None:
            rows = rows_of(spec.heldout, ("text",), ANYWHERE)
            texts = [_text(row["text"], number, spec.heldout) for number, row in enumerate(rows)]
            self.texts = [tuple(part) for part in self._nested(texts)]
        if all(weighs(grader) for grader in self.graders.values()):
            also = " beside the held-out text" if self.texts else ""
            out = "".join(f"; left out: {name}, since {why}" for name, why in self.left_out.items())
            raise BadData(
                f"nothing to time{out}: name at least one benchmark that generates, or prompts{also}; they make tokens"
            )

    @property
    def last_rung(self) -> int:
        return len(self.fractions) - 1

    def up_to(self, rung: int) -> list[Slice]:
        """Every slice that a model at `rung` has answered, in a fixed order."""
        return [part for part in self.slices if part.rung <= rung and part.items]

    def texts_up_to(self, rung: int) -> list[tuple[int, tuple[str, ...]]]:
        """(rung, texts) for every part of the held-out text up to `rung`."""
        return [(number, texts) for number, texts in enumerate(self.texts) if number <= rung and texts]

    def timed_up_to(self, rung: int) -> list[Slice]:
        """Those of them whose answers are generated."""
        return [part for part in self.up_to(rung) if not weighs(self.graders[part.benchmark])]

    def _add(self, benchmark: Benchmark, source: str, published: Published) -> None:
        rows = rows_of(source, benchmark.columns, published)
        if isinstance(benchmark, KoMtBench) and needs_judge(rows):
            judged = self._judged()
            if judged is None:
                return
            benchmark = judged
        self._place(benchmark, benchmark.items(rows), source)

    def _place(self, benchmark: Benchmark, items: list[Item], source: str) -> None:
        """Cut its items into nested slices, a fixed draw of them at most."""
        items = list(items)
        # Spread over the file, the same in every run: published files are sorted by subject.
        items.sort(key=lambda item: hashlib.sha256(item.id.encode()).hexdigest())
        if self.spec.limit is not None:
            items = items[: self.spec.limit]
        twice = [name for name, times in Counter(item.id for item in items).items() if times > 1]
        if twice:
            raise BadData(f"{source}: the id {twice[0]} stands there twice; answers are kept by id")
        self.graders[benchmark.name] = benchmark
        for rung, part in enumerate(self._nested(items)):
            self.slices.append(Slice(benchmark=benchmark.name, rung=rung, items=tuple(part)))

    def _judged(self) -> KoMtJudged | None:
        """KoMT-Bench with a judge; None, and the reason in `left_out`, where there is none."""
        spec = self.spec.judge
        reason = "its answers need a judge, and evaluation.judge names none" if spec is None else spec.missing_key
        if spec is None or reason is not None:
            if self.fixed:  # the run's other trials were judged
                raise BadData(f"komt_bench: {reason}")
            self.left_out[KoMtBench.name] = str(reason)
            return None
        references = Path(spec.references) if spec.references is not None else None
        return KoMtJudged(self.judge, Path(spec.templates), references)

    def _nested(self, things: list[T]) -> list[list[T]]:
        ends = [math.ceil(len(things) * fraction) for fraction in self.fractions]
        return [things[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def says_texts(name: str) -> bool:
    """Whether answers to the benchmark of this name are texts: none that lm-eval asks, nor one that only weighs."""
    known = [benchmark for benchmark in BENCHMARKS if benchmark.name == name]
    return not str(name).startswith(PREFIX) and not any(weighs(benchmark) for benchmark in known)


def weighs(benchmark: Benchmark) -> bool:
    """Whether options are weighed by their likelihood: nothing is generated, so nothing is timed."""
    return bool(getattr(benchmark, "weighs", False))


def _text(value: object, number: int, path: str) -> str:
    if not isinstance(value, str) or len(value.split()) < 2:
        raise BadData(f"{path}, row {number}: text must hold at least two words, not {str(value)[:40]!r}")
    return value
