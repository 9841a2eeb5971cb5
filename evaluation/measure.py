"""One measurement: what a model answers, how right that is, and how many seconds its tokens took, beside a base.

Candidate and base are timed in turns, B A A B B A, so that drift and a machine's moods meet both alike; on the last
rung until SpeedNorm is precise enough or the time for that is spent. Before anything is answered a model can be
compared with its base by likelihood. Knows nothing of recipes or searches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from evaluation.answers import AnswerStore
from evaluation.asking import Asker
from evaluation.benchmarks.base import Details
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.benchmarks.komt_judged import KoMtJudged
from evaluation.benchmarks.likelihood import ByLikelihood
from evaluation.engine import Engine
from evaluation.health import Health, ModelFault, describe, ends, signs
from evaluation.measurement import BenchmarkFigures, Measurement
from evaluation.nearness import answers_of, comparable, nearness
from evaluation.predictions import predictions
from evaluation.record import Record, Subject
from evaluation.speed import speed
from evaluation.suite import Slice, Suite, weighs

AGAIN = 4  # questions asked again of a model that seems never to stop


class Measurer:
    """Measures models with one suite, each against one base.

    `passes` are timed over each slice at every rung. On the last, more follow until the 95 % interval of SpeedNorm is
    within ± `within`, or `seconds` of wall time are spent on it. With one engine for both, the base follows the
    candidate and nothing alternates.
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
        within: float = math.inf,
        seconds: float = 0.0,
    ) -> None:
        self.asker = Asker(engine, base_engine, base, store, suite.graders, thinking)
        self.base = base
        self.suite = suite
        self.passes = passes
        self.within = within
        self.seconds = seconds

    def measure_pair(self, subject: Subject, rung: int) -> tuple[Measurement, Measurement]:
        """`subject` and the base on everything up to `rung`, the base timed beside it.

        Raises `ModelFault` for a model that is broken where the base is not.
        """
        if subject == self.base:
            alone = self.measure(subject, rung)
            return alone, alone
        beside = f"beside {subject.key}"
        parts, last = self.suite.timed_up_to(rung), rung == self.suite.last_rung
        if not self._in_turns:
            mine, theirs = self.measure(subject, rung), self.measure(self.base, rung, beside)
            self._check_health(parts, subject, beside)
            return mine, theirs
        self._take_turns(parts, subject, beside, 1, last)
        self._check_health(parts, subject, beside)  # before more is paid for it: who never stops takes longest of all
        self._take_turns(parts, subject, beside, self.passes, last)
        if last:
            self._until_precise(parts, subject, beside)
        return self.measure(subject, rung), self.measure(self.base, rung, beside)

    def compare(self, subject: Subject, rung: int, timed: bool) -> tuple[Measurement, Measurement]:
        """How near `subject` is to the base by likelihood, and, if `timed`, one pass of each beside the other.

        The passes are the first of those that later rungs ask for. Raises `ModelFault` for a model that is broken.
        """
        parts = comparable(self.suite, rung)
        said = answers_of(parts, [self._asked(part, self.base, "", untimed=True) for part in parts])
        beside = f"beside {subject.key}"
        timed_parts = parts if timed else []
        if timed:
            self._take_turns(parts, subject, beside, 1, False)
            self._check_health(parts, subject, beside)
        mine, theirs = (nearness(self.asker, said, who) for who in (subject, self.base))
        return self._near(mine, timed_parts, subject, ""), self._near(theirs, timed_parts, self.base, beside)

    def _near(
        self, figures: dict[str, BenchmarkFigures], parts: Sequence[Slice], subject: Subject, beside: str
    ) -> Measurement:
        records: dict[str, list[Record]] = {name: [] for name in figures}
        for part in parts:
            records.setdefault(part.benchmark, []).append(self.asker.record(part, subject, beside).first(1))
        told = {
            name: one.model_copy(update={"passes": [record.passes for record in records[name]]})
            for name, one in figures.items()
        }
        return self._told(told, subject, self._health(parts, subject, beside))

    def measure_alone(self, rung: int) -> Measurement:
        """The base, with nothing beside it: what it shows is told, whatever it is."""
        self.asker.alone = True
        return self.measure(self.base, rung)

    def _check_health(self, parts: Sequence[Slice], subject: Subject, beside: str) -> None:
        mine, theirs = self._health(parts, subject, ""), self._health(parts, self.base, beside)
        found = signs(mine, theirs)
        if "cut" in found:  # a limit of 32 tokens cuts who talks much, too: that one ends when it may
            cut = [part for part in parts if part.benchmark in found["cut"]]
            asked = [one for part in cut for one in zip(part.items, self.asker.decodings(part), strict=True)][:AGAIN]
            chats = [[{"role": "user", "content": item.turns[0]}] for item, _ in asked]
            if ends(self.asker.at_work(subject), chats, [one for _, one in asked], self.asker.thinking):
                del found["cut"]
        if found:
            raise ModelFault(describe(found, mine, theirs))

    def measure(self, subject: Subject, rung: int, beside: str = "") -> Measurement:
        """Everything up to `rung`; `beside` names the timings wanted, where a model was timed more than once."""
        figures = {name: self._benchmark(name, subject, rung, beside) for name in self.suite.graders}
        if self.suite.texts:
            parts, limit = self.suite.texts_up_to(rung), self.suite.spec.heldout_tokens
            mine, theirs = (
                [text for number, texts in parts for text in self.asker.scored(number, texts, limit, who)]
                for who in (subject, self.base)
            )
            figures |= predictions(mine, theirs, subject.folder)
        return self._told(figures, subject, self._health(self.suite.up_to(rung), subject, beside))

    def _told(self, figures: dict[str, BenchmarkFigures], subject: Subject, health: dict[str, Health]) -> Measurement:
        engine = self.asker.engine_of(subject)
        about = self.asker.about(subject)
        return Measurement(
            benchmarks=figures,
            engine=about["engine"],
            device=about["device_name"],
            clock=engine.settings.clock,
            kernels=self.asker.kernels(subject),
            versions=about["versions"],
            left_out=self.suite.left_out,
            turns=self._in_turns,
            health=health,
        )

    @property
    def _in_turns(self) -> bool:
        return self.asker.engine is not self.asker.base_engine

    def _benchmark(self, name: str, subject: Subject, rung: int, beside: str) -> BenchmarkFigures:
        grader = self.suite.graders[name]
        parts = [one for one in self.suite.up_to(rung) if one.benchmark == name]
        if isinstance(grader, ByLikelihood):
            return self._weighed(grader, parts, subject)
        compares = getattr(grader, "needs_base", False)
        beside = "" if weighs(grader) else beside  # nothing is timed, so the same answers do beside whomever
        grades: dict[str, float] = {}
        records: list[Record] = []
        same = 0
        for part in parts:
            record = self._asked(part, subject, beside)
            theirs = self._asked(part, self.base, "", untimed=True).texts if compares else None
            records.append(record)
            if isinstance(grader, KoMtJudged):
                rated = grader.grade_all(part.items, [tuple(texts) for texts in record.texts])
                grades |= {item.id: grade for item, grade in zip(part.items, rated, strict=True)}
                continue
            for number, item in enumerate(part.items):
                if theirs is not None:
                    item = item.model_copy(update={"reference": theirs[number]})
                    same += record.texts[number] == theirs[number]
                grades[item.id] = grader.grade(item, tuple(record.texts[number]))
        details = {"exact_match": same / len(grades)} if compares else {}
        if isinstance(grader, Details):
            items = [item for part in parts for item in part.items]
            details = grader.details(items, [tuple(texts) for record in records for texts in record.texts])
        timed = [] if weighs(grader) else records
        return BenchmarkFigures(
            grades=grades,
            passes=[record.passes for record in timed],
            fixed=[record.fixed for record in timed],
            details=details,
        )

    def _health(self, parts: Sequence[Slice], subject: Subject, beside: str) -> dict[str, Health]:
        """By benchmark, of what was asked so far."""
        found = dict.fromkeys(self.suite.graders, Health())
        for part in parts:
            found[part.benchmark] += self.asker.record(part, subject, beside).health
        return found

    def _weighed(self, grader: ByLikelihood, parts: Sequence[Slice], subject: Subject) -> BenchmarkFigures:
        """Options weighed by their likelihood: there is nothing to time."""
        grades = {
            item.id: grader.grade_likelihoods(item, logprobs)
            for part in parts
            for item, logprobs in zip(part.items, self.asker.weighed(part, grader, subject), strict=True)
        }
        return BenchmarkFigures(grades=grades, passes=[])

    def _asked(self, part: Slice, subject: Subject, beside: str, untimed: bool = False) -> Record:
        """The slice with as many passes as every rung has, or one where only the words count, asked now if need be."""
        record = self.asker.record(part, subject, beside)
        wanted = 1 if untimed or weighs(self.suite.graders[part.benchmark]) else self.passes
        while len(record.passes) < wanted:
            record = self.asker.ask(part, subject, beside)
        return record

    def _take_turns(self, parts: Sequence[Slice], subject: Subject, beside: str, wanted: int, last: bool) -> None:
        """Bring candidate and base to `wanted` passes over each slice, in the order B A A B B A, slice by slice.

        On the `last` rung the candidate also answers in the base's lengths, the slices that this rung adds: the speed
        that does not depend on how much a model says.
        """
        for part in parts:
            as_long = last and self._can_be_as_long(part)
            done = self.asker.paired(part, subject, beside, as_long)
            for number in range(done, wanted):
                turns = [(self.base, beside), (subject, "")]
                for who, tag in turns if number % 2 == 0 else reversed(turns):
                    self.asker.ask(part, who, tag)
                    if who == subject and as_long:
                        self.asker.ask_as_long(part, who, self.asker.record(part, self.base, beside))

    def _can_be_as_long(self, part: Slice) -> bool:
        """Whether a slice is of the last rung, and its answers' lengths are ours to say: lm-eval says its own."""
        harnessed = isinstance(self.suite.graders[part.benchmark], HarnessTask)
        return part.rung == self.suite.last_rung and not harnessed

    def _until_precise(self, parts: Sequence[Slice], subject: Subject, beside: str) -> None:
        """More passes, two at a time, until SpeedNorm's interval is narrow enough or the time is over."""
        import numpy as np

        begin = time.monotonic()
        while time.monotonic() - begin < self.seconds:
            mine = [self.asker.record(part, subject).passes for part in parts]
            theirs = [self.asker.record(part, self.base, beside).passes for part in parts]
            told = speed(mine, theirs, True, np.random.default_rng(0))
            if min(len(one) for one in mine) > 1 and told.half_width <= self.within:
                return
            self._take_turns(parts, subject, beside, min(len(one) for one in mine) + 2, False)
