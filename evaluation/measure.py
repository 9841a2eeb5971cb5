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
from evaluation.benchmarks.base import Decoding
from evaluation.benchmarks.komt_judged import KoMtJudged
from evaluation.engine import Engine, ScoredText
from evaluation.health import Health, ModelFault, describe, ends, health_of, look, signs
from evaluation.measurement import BenchmarkFigures, Measurement, Timing
from evaluation.predictions import predictions
from evaluation.suite import Slice, Suite
from evaluation.trimmed import in_original_ids, kept_tokens

TOP = 32  # likeliest tokens kept per position of held-out text
AGAIN = 4  # questions asked again of a model that seems never to stop


class Subject(BaseModel):
    """The model that is asked: its folder, and the key that names its content."""

    model_config = ConfigDict(frozen=True)

    key: str
    folder: Path


class Pass(NamedTuple):
    """One time through a slice: the answers by item and turn, what they took, and whether they are answers at all."""

    answers: list[list[str]]
    timing: Timing
    health: Health


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
        """`subject` and the base on everything up to `rung`, the base timed beside it.

        Raises `ModelFault` for a model that is broken where the base is not.
        """
        beside = f"beside {subject.key}"
        if subject == self.base:
            alone = self.measure(subject, rung)
            return alone, alone
        if self.base_engine is not self.engine:
            for part in self.suite.up_to(rung):
                self._take_turns(part, subject, beside)
        mine, theirs = self.measure(subject, rung), self.measure(self.base, rung, beside)
        self._check_health(subject, rung, mine, theirs)
        return mine, theirs

    def _check_health(self, subject: Subject, rung: int, mine: Measurement, theirs: Measurement) -> None:
        found = signs(mine.health, theirs.health)
        if "cut" in found:  # a limit of 32 tokens cuts who talks much, too: that one ends when it may
            items = [item for part in self.suite.up_to(rung) if part.benchmark in found["cut"] for item in part.items]
            self._load(subject)
            chats = [[{"role": "user", "content": item.turns[0]}] for item in items[:AGAIN]]
            if ends(self._engine_of(subject), chats, self.thinking):
                del found["cut"]
        if found:
            raise ModelFault(describe(found, mine.health, theirs.health))

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
            health={name: self._health(name, subject, rung, beside) for name in self.suite.graders},
        )

    def _benchmark(self, name: str, subject: Subject, rung: int, beside: str) -> BenchmarkFigures:
        grader = self.suite.graders[name]
        compares = getattr(grader, "needs_base", False)
        grades: dict[str, float] = {}
        passes: list[list[Timing]] = []
        same = 0
        for part in (one for one in self.suite.up_to(rung) if one.benchmark == name):
            record = self._answers(part, subject, beside)
            theirs = self._answers(part, self.base, "")["texts"] if compares else None
            passes.append([Timing(**timing) for timing in record["passes"]])
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
        return BenchmarkFigures(grades=grades, passes=passes, details=details)

    def _health(self, name: str, subject: Subject, rung: int, beside: str) -> Health:
        records = [self._answers(part, subject, beside) for part in self.suite.up_to(rung) if part.benchmark == name]
        # Answers that an older squeeze stored were not looked at: they count as none.
        return sum((Health(**record.get("health", {})) for record in records), Health())

    def _answers(self, part: Slice, subject: Subject, beside: str) -> dict[str, Any]:
        identity = self._asked(part, subject, beside)
        record = self.store.get(identity)
        if record is None:
            self._load(subject)
            record = _record([self._one_pass(part, self._engine_of(subject)) for _ in range(self.passes)])
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
        return [self.suite.graders[part.benchmark].decoding(item) for item in part.items]

    def _one_pass(self, part: Slice, engine: Engine) -> Pass:
        """Ask every turn of every item; turn k + 1 goes out together, after all answers to turn k."""
        decodings = self._decodings(part)
        chats: list[list[dict[str, str]]] = [[] for _ in part.items]
        answers: list[list[str]] = [[] for _ in part.items]
        seconds, tokens, health = 0.0, 0, Health()
        for turn in range(max(len(item.turns) for item in part.items)):
            asked = [number for number, item in enumerate(part.items) if turn < len(item.turns)]
            for number in asked:
                chats[number].append({"role": "user", "content": part.items[number].turns[turn]})
            done = engine.generate(
                [chats[number] for number in asked], [decodings[number] for number in asked], self.thinking
            )
            health += health_of(done.answers)
            seconds += done.cpu_seconds if engine.settings.clock == "cpu" else done.seconds
            for number, answer in zip(asked, done.answers, strict=True):
                chats[number].append({"role": "assistant", "content": answer.text})
                answers[number].append(answer.text)
                tokens += answer.tokens
        return Pass(answers, Timing(seconds=seconds, tokens=tokens), health)

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
                raise ModelFault("the model gives log-probabilities that are not numbers on held-out text")
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
        look(engine)
        # The first batch pays for buffers and threads that later ones find ready: keep it out of the timings.
        warm = [{"role": "user", "content": "1 2 3 4 5 6 7 8"}]
        engine.generate([warm] * 4, [Decoding(max_tokens=8)] * 4)


def _record(passes: Sequence[Pass]) -> dict[str, Any]:
    """What the store keeps of a slice: texts and health of the first pass, the timings of all."""
    timings = [one.timing.model_dump() for one in passes]
    return {"texts": passes[0].answers, "passes": timings, "health": passes[0].health.model_dump()}
