"""One measurement: what a model answers, how right that is, and how many seconds its tokens took.

Asks an engine only what the answer store does not hold. Knows nothing of recipes, searches or scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import Decoding, Details, Item
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.benchmarks.komt_judged import KoMtJudged
from evaluation.benchmarks.likelihood import ByLikelihood
from evaluation.engine import Engine, EngineFault, ScoredText
from evaluation.measurement import BenchmarkFigures, Measurement, Timing
from evaluation.predictions import predictions
from evaluation.suite import Slice, Suite, weighs
from evaluation.trimmed import in_original_ids, kept_tokens

THOUGHT = 16384  # tokens of an answer that may think first: the contest's max_gen_toks
TOP = 32  # likeliest tokens kept per position of held-out text


class Subject(BaseModel):
    """The model that is asked: its folder, and the key that names its content."""

    model_config = ConfigDict(frozen=True)

    key: str
    folder: Path


class Pass(NamedTuple):
    """One time through a slice: the answers by item and turn, and what they took."""

    answers: list[list[str]]
    timing: Timing


class Measurer:
    """Measures models with one suite, each against one base.

    Where memory allows, as on a CPU, `base_engine` is another engine that keeps the base loaded: then candidate and
    base take turns pass by pass, and a machine's changing mood meets both alike. With one engine for both, as on a
    GPU, the base follows the candidate.
    """

    def __init__(
        self,
        engine: Engine,
        base_engine: Engine,
        base: Subject,
        suite: Suite,
        store: AnswerStore,
        passes: int,
        thinking: bool = False,
    ) -> None:
        self.engine = engine
        self.base_engine = base_engine
        self.base = base
        self.suite = suite
        self.store = store
        self.passes = passes
        self.thinking = thinking

    def measure_pair(self, subject: Subject, rung: int) -> tuple[Measurement, Measurement]:
        """`subject` and the base on everything up to `rung`, the base timed beside it."""
        beside = f"beside {subject.key}"
        if subject == self.base:
            alone = self.measure(subject, rung)
            return alone, alone
        if self.base_engine is not self.engine:
            for part in self.suite.timed_up_to(rung):
                self._take_turns(part, subject, beside)
        return self.measure(subject, rung), self.measure(self.base, rung, beside)

    def measure(self, subject: Subject, rung: int, beside: str = "") -> Measurement:
        """Everything up to `rung`; `beside` names the timings wanted, where a model was timed more than once."""
        figures = {name: self._benchmark(name, subject, rung, beside) for name in self.suite.graders}
        if self.suite.texts:
            parts = self.suite.texts_up_to(rung)
            mine, theirs = (
                [text for number, texts in parts for text in self._scored(number, texts, who)]
                for who in (subject, self.base)
            )
            figures |= predictions(mine, theirs, subject.folder)
        engine = self._engine_of(subject)
        about = engine.start().about
        return Measurement(
            benchmarks=figures,
            engine=about["engine"],
            device=about["device_name"],
            clock=engine.settings.clock,
            kernels=self._kernels(subject),
            left_out=self.suite.left_out,
            turns=self.base_engine is not self.engine,
        )

    def _benchmark(self, name: str, subject: Subject, rung: int, beside: str) -> BenchmarkFigures:
        grader = self.suite.graders[name]
        if isinstance(grader, ByLikelihood):
            return self._weighed(grader, subject, [part for part in self.suite.up_to(rung) if part.benchmark == name])
        if weighs(grader):
            beside = ""  # nothing is timed, so the same answers do beside whomever
        compares = getattr(grader, "needs_base", False)
        grades: dict[str, float] = {}
        passes: list[list[Timing]] = []
        same = 0
        asked: list[Item] = []
        answers: list[tuple[str, ...]] = []
        for part in (one for one in self.suite.up_to(rung) if one.benchmark == name):
            record = self._answers(part, subject, beside)
            theirs = self._answers(part, self.base, "")["texts"] if compares else None
            if not weighs(grader):
                passes.append([Timing(**timing) for timing in record["passes"]])
            asked += part.items
            answers += [tuple(texts) for texts in record["texts"]]
            if isinstance(grader, KoMtJudged):
                said = [tuple(texts) for texts in record["texts"]]
                rated = grader.grade_all(part.items, said)
                grades |= {item.id: grade for item, grade in zip(part.items, rated, strict=True)}
                continue
            for number, item in enumerate(part.items):
                if theirs is not None:
                    item = item.model_copy(update={"reference": theirs[number]})
                    same += record["texts"][number] == theirs[number]
                grades[item.id] = grader.grade(item, tuple(record["texts"][number]))
        details = {"exact_match": same / len(grades)} if compares else {}
        if isinstance(grader, Details):
            details = grader.details(asked, answers)
        return BenchmarkFigures(grades=grades, passes=passes, details=details)

    def _weighed(self, grader: ByLikelihood, subject: Subject, parts: Sequence[Slice]) -> BenchmarkFigures:
        """Options weighed by their likelihood; each slice is asked once."""
        grades: dict[str, float] = {}
        for part in parts:
            options = [grader.options(item) for item in part.items]
            # nothing is thought before an option is weighed, so no thinking block is opened either
            identity = self._identity(subject) | {"weighed": part.fingerprint, "options": options}
            record = self.store.get(identity)
            if record is None:
                self._load(subject)
                chats = [[{"role": "user", "content": item.turns[0]}] for item in part.items]
                found = self._engine_of(subject).choose(chats, options)
                if not all(math.isfinite(value) for one in found for value in one):
                    raise EngineFault("the model gives log-probabilities that are not numbers to options")
                record = {"logprobs": found}
                self.store.put(identity, record)
            for item, logprobs in zip(part.items, record["logprobs"], strict=True):
                grades[item.id] = grader.grade_likelihoods(item, logprobs)
        return BenchmarkFigures(grades=grades, passes=[])

    def _answers(self, part: Slice, subject: Subject, beside: str) -> dict[str, Any]:
        identity = self._asked(part, subject, beside)
        record = self.store.get(identity)
        if record is None:
            self._load(subject)
            times = 1 if weighs(self.suite.graders[part.benchmark]) else self.passes
            record = _record([self._one_pass(part, self._engine_of(subject)) for _ in range(times)])
            self.store.put(identity, record)
        return record

    def _take_turns(self, part: Slice, subject: Subject, beside: str) -> None:
        """Ask candidate and base the same slice, in the order A B B A A B: drift then favours neither."""
        mine, theirs = self._asked(part, subject, ""), self._asked(part, self.base, beside)
        if self.store.get(mine) is not None and self.store.get(theirs) is not None:
            return
        self._load(subject)
        self._load(self.base)
        done: dict[str, list[Pass]] = {subject.key: [], self.base.key: []}
        for number in range(self.passes):
            for who in (subject, self.base) if number % 2 == 0 else (self.base, subject):
                done[who.key].append(self._one_pass(part, self._engine_of(who)))
        self.store.put(mine, _record(done[subject.key]))
        self.store.put(theirs, _record(done[self.base.key]))

    def _asked(self, part: Slice, subject: Subject, beside: str) -> dict[str, Any]:
        """What names an answer record."""
        return self._identity(subject) | {
            "slice": part.fingerprint,
            "decoding": [decoding.model_dump() for decoding in self._decodings(part)],
            "thinking": self.thinking,
            "passes": self.passes,
            "beside": beside,
        }

    def _decodings(self, part: Slice) -> list[Decoding]:
        wanted = [self.suite.graders[part.benchmark].decoding(item) for item in part.items]
        # a thought takes what it takes: the engine cuts this to what the prompt leaves of its context
        return [one.model_copy(update={"max_tokens": THOUGHT}) for one in wanted] if self.thinking else wanted

    def _one_pass(self, part: Slice, engine: Engine) -> Pass:
        """Ask every turn of every item; turn k + 1 goes out together, after all answers to turn k."""
        grader = self.suite.graders[part.benchmark]
        if isinstance(grader, HarnessTask):
            found = engine.harness(grader.parts(part.items), self.thinking)
            took = found.cpu_seconds if engine.settings.clock == "cpu" else found.seconds
            return Pass(grader.answers(part.items, found.values), Timing(seconds=took, tokens=found.tokens))
        decodings = self._decodings(part)
        chats: list[list[dict[str, str]]] = [[] for _ in part.items]
        answers: list[list[str]] = [[] for _ in part.items]
        seconds, tokens = 0.0, 0
        for turn in range(max(len(item.turns) for item in part.items)):
            asked = [number for number, item in enumerate(part.items) if turn < len(item.turns)]
            for number in asked:
                chats[number].append({"role": "user", "content": part.items[number].turns[turn]})
            done = engine.generate(
                [chats[number] for number in asked], [decodings[number] for number in asked], self.thinking
            )
            seconds += done.cpu_seconds if engine.settings.clock == "cpu" else done.seconds
            for number, answer in zip(asked, done.answers, strict=True):
                chats[number].append({"role": "assistant", "content": answer.text})
                answers[number].append(answer.text)
                tokens += answer.tokens
        return Pass(answers, Timing(seconds=seconds, tokens=tokens))

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
            scored = self._engine_of(subject).score(texts, TOP, limit)
            broken = [one for one in scored if not all(math.isfinite(value) for value in one.actual)]
            if broken:
                raise EngineFault("the model gives log-probabilities that are not numbers on held-out text")
            record = {"texts": [one.model_dump() for one in scored]}
            self.store.put(identity, record)
        found = [ScoredText.model_validate(one) for one in record["texts"]]
        kept = kept_tokens(subject.folder)
        return found if kept is None else [in_original_ids(one, kept) for one in found]

    def _engine_of(self, subject: Subject) -> Engine:
        return self.base_engine if subject == self.base else self.engine

    def _identity(self, subject: Subject) -> dict[str, Any]:
        engine = self._engine_of(subject)
        about = engine.start().about
        return {
            "artifact": subject.key,
            "engine": about["engine"],
            "device": about["device_name"],
            "settings": engine.settings.model_dump(exclude={"python", "versions", "load_timeout", "answer_timeout"}),
        }

    def _kernels(self, subject: Subject) -> list[str]:
        record = self.store.get(self._identity(subject) | {"kernels": True})
        return list(record["kernels"]) if record is not None else []

    def _load(self, subject: Subject) -> None:
        engine = self._engine_of(subject)
        if engine.loaded == subject.folder:
            return
        engine.load(subject.folder)
        named = self._identity(subject) | {"kernels": True}
        if self.store.get(named) is None:
            self.store.put(named, {"kernels": engine.kernels})
        # The first batch pays for buffers and threads that later ones find ready: keep it out of the timings.
        warm = [{"role": "user", "content": "1 2 3 4 5 6 7 8"}]
        engine.generate([warm] * 4, [Decoding(max_tokens=8)] * 4)


def _record(passes: Sequence[Pass]) -> dict[str, Any]:
    """What the store keeps of a slice: the texts of the first pass, the timings of all."""
    return {"texts": passes[0].answers, "passes": [one.timing.model_dump() for one in passes]}
