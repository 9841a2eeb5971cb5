"""Asks models through engines, and pays for no answer twice: what was asked before is read from the answer store.

A record holds what a model said to one slice of items: the texts and lengths of the first pass, the timing of every
pass. `beside` names whose passes alternated with it: the base has a record for each candidate it was timed beside.
Knows nothing of grades.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import Benchmark, Decoding
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.benchmarks.likelihood import ByLikelihood
from evaluation.engine import Engine
from evaluation.harnessed import differs, harnessed
from evaluation.health import Health, ModelFault, health_of, look
from evaluation.measurement import Timing
from evaluation.protocol import EngineFault, ScoredText
from evaluation.record import Pass, Record, Subject
from evaluation.suite import Slice
from evaluation.trimmed import in_original_ids, kept_tokens

THOUGHT = 16384  # tokens of an answer that may think first: the contest's max_gen_toks
TOP = 32  # likeliest tokens kept per position of held-out text

T = TypeVar("T")


class BaseFault(EngineFault):
    """The base could not be asked, so nothing is known of the candidate: the message says what was at fault."""


class Asker:
    """Keeps a base and one candidate at hand.

    `engine` serves candidates. `base_engine` may be another, which keeps the base: beside it on a CPU, asleep on a GPU
    while the other works, which one model fills.
    """

    def __init__(
        self,
        engine: Engine,
        base_engine: Engine,
        base: Subject,
        store: AnswerStore,
        graders: Mapping[str, Benchmark],
        thinking: bool = False,
    ) -> None:
        self.engine = engine
        self.base_engine = base_engine
        self.base = base
        self.store = store
        self.graders = graders
        self.thinking = thinking
        self.alone = False  # the base is what is measured: there is no candidate that a fault could be taken for

    def engine_of(self, subject: Subject) -> Engine:
        return self.base_engine if subject == self.base else self.engine

    def record(self, part: Slice, subject: Subject, beside: str = "") -> Record:
        """What is known of the slice; an empty record when it was never asked."""
        found = self.store.get(self._name(part, subject, beside))
        return Record.model_validate(found) if found is not None else Record()

    def ask(self, part: Slice, subject: Subject, beside: str = "") -> Record:
        """One more pass: ask every turn of every item, and keep what was said and how long it took."""
        texts, tokens, timing, health = self.tried(subject, lambda: self._pass(part, subject, None))
        known = self.record(part, subject, beside)
        if not known.passes:
            known = Record(texts=texts, tokens=tokens, health=health)
        known = known.model_copy(update={"passes": [*known.passes, timing]})
        self._keep(part, subject, beside, known)
        return known

    def ask_as_long(self, part: Slice, subject: Subject, base: Record) -> Record:
        """One more pass in which each answer is as long as the base's was, each turn after the base's words.

        A model that answers in the base's lengths and needs no second turn has done that already.
        """
        known = self.record(part, subject)
        if known.tokens == base.tokens and all(len(item.turns) == 1 for item in part.items):
            known = known.model_copy(update={"fixed": known.passes})
        else:
            timing = self.tried(subject, lambda: self._pass(part, subject, base)).timing
            known = known.model_copy(update={"fixed": [*known.fixed, timing]})
        self._keep(part, subject, "", known)
        return known

    def paired(self, part: Slice, subject: Subject, beside: str, as_long: bool) -> int:
        """How many passes candidate and base took turns in; one that an end in its turn left alone is dropped."""
        mine, theirs = self.record(part, subject), self.record(part, self.base, beside)
        count = min(len(mine.passes), len(theirs.passes), *([len(mine.fixed)] if as_long else []))
        for who, tag, known in ((subject, "", mine), (self.base, beside, theirs)):
            if len(known.passes) > count or len(known.fixed) > count:
                self._keep(part, who, tag, known.first(count))
        return count

    def scored(self, number: int, texts: Sequence[str], limit: int, subject: Subject) -> list[ScoredText]:
        """Log-probabilities of held-out `texts`, those that rung `number` adds, in the base's token ids."""
        identity = self.identity(subject) | {"heldout": number, "texts": list(texts), "top": TOP, "limit": limit}
        record = self.store.get(identity)
        if record is None:
            scored = self.tried(subject, lambda: self._scored(texts, limit, subject))
            record = {"texts": [one.model_dump() for one in scored]}
            self.store.put(identity, record)
        found = [ScoredText.model_validate(one) for one in record["texts"]]
        kept = kept_tokens(subject.folder)
        return found if kept is None else [in_original_ids(one, kept) for one in found]

    def weighed(self, part: Slice, grader: ByLikelihood, subject: Subject) -> list[list[float]]:
        """Of each item the log-probabilities of its options; asked once.

        Nothing is thought before an option is weighed, so no thinking block is opened either.
        """
        options = [grader.options(item) for item in part.items]
        identity = self.identity(subject) | {"weighed": part.fingerprint, "options": options}
        record = self.store.get(identity)
        if record is None:
            chats = [[{"role": "user", "content": item.turns[0]}] for item in part.items]
            record = {"logprobs": self.tried(subject, lambda: self._chosen(chats, options, subject))}
            self.store.put(identity, record)
        logprobs: list[list[float]] = record["logprobs"]
        return logprobs

    def _scored(self, texts: Sequence[str], limit: int, subject: Subject) -> list[ScoredText]:
        scored = self.at_work(subject).score(texts, TOP, limit)
        if not all(math.isfinite(value) for one in scored for value in one.actual):
            raise ModelFault("the model gives log-probabilities that are not numbers on held-out text")
        return scored

    def _chosen(
        self, chats: Sequence[list[dict[str, str]]], options: Sequence[Sequence[str]], subject: Subject
    ) -> list[list[float]]:
        found = self.at_work(subject).choose(chats, options)
        if not all(math.isfinite(value) for one in found for value in one):
            raise ModelFault("the model gives log-probabilities that are not numbers to options")
        return found

    def identity(self, subject: Subject) -> dict[str, Any]:
        """Who is asked, by which engine, where: the part of a record's name that does not depend on the question."""
        about = self.about(subject)
        return {
            "artifact": subject.key,
            "engine": about["engine"],
            "device": about["device_name"],
            "versions": about["versions"],
            "settings": self.engine_of(subject).settings.model_dump(
                exclude={"python", "versions", "load_timeout", "answer_timeout"}
            ),
        }

    def about(self, subject: Subject) -> dict[str, Any]:
        """What its engine tells of itself, started if need be."""
        return self.tried(subject, lambda: self.engine_of(subject).start().about)

    def kernels(self, subject: Subject) -> list[str]:
        """As timed, if it was."""
        for eager in (False, True):
            if (record := self.store.get(self._kernels_of(subject, eager))) is not None:
                return list(record["kernels"])
        return []

    def _kernels_of(self, subject: Subject, eager: bool) -> dict[str, Any]:
        return self.identity(subject) | {"kernels": True} | ({"eager": True} if eager else {})

    def at_work(self, subject: Subject, eager: bool = False) -> Engine:
        """The engine that serves `subject`, with it loaded and awake, and nothing else on its GPU.

        `eager` will do where nothing is timed; a model that stands serves both, one that was loaded so not.
        """
        engine = self.engine_of(subject)
        other = self.engine if engine is self.base_engine else self.base_engine
        if other is not engine:
            try:
                other.sleep()
            except EngineFault:  # none of `subject`'s doing: gone, it holds no memory either, and is loaded afresh
                other.close()
        there = engine.loaded == subject.folder and (eager or not engine.eager)
        if not there:
            engine.load(subject.folder, eager)
        named = self._kernels_of(subject, engine.eager)
        if self.store.get(named) is None:  # it may be another store than when the model was loaded
            self.store.put(named, {"kernels": engine.kernels})
        if not there:
            look(engine)
        elif not engine.asleep:
            return engine
        else:
            engine.wake()
        # The first batch pays for buffers and threads that later ones find ready: keep it out of the timings.
        warm = [{"role": "user", "content": "1 2 3 4 5 6 7 8"}]
        engine.generate([warm] * 4, [Decoding(max_tokens=8)] * 4)
        return engine

    def tried(self, subject: Subject, do: Callable[[], T]) -> T:
        """What `do` gives. A fault of the base's engine is no candidate's: a fresh one gets a second try.

        Raises `EngineFault`; of the base a `BaseFault`, a broken base included.
        """
        if subject != self.base or self.alone:
            return do()
        try:
            return do()
        except BaseFault:  # told by a call within this one
            raise
        except ModelFault as fault:
            raise BaseFault(f"the base model, not the candidate: {fault}") from fault
        except EngineFault as fault:
            if self.base_engine.loaded is not None:  # it stands: it refused, and would again
                raise BaseFault(f"the base, not the candidate: {fault}") from fault
            self.base_engine.close()
        try:
            return do()
        except EngineFault as fault:
            told = "the base's engine, not the candidate's, failed twice, the second time started afresh"
            raise fault if isinstance(fault, BaseFault) else BaseFault(f"{told}: {fault}") from fault

    def _name(self, part: Slice, subject: Subject, beside: str) -> dict[str, Any]:
        by_harness = isinstance(self.graders[part.benchmark], HarnessTask)
        return (
            self.identity(subject)
            | (self._harness(subject) if by_harness else {})
            | {
                "slice": part.fingerprint,
                "decoding": [decoding.model_dump() for decoding in self.decodings(part)],
                "thinking": self.thinking,
                "beside": beside,
            }
        )

    def _keep(self, part: Slice, subject: Subject, beside: str, record: Record) -> None:
        self.store.put(self._name(part, subject, beside), record.model_dump())

    def decodings(self, part: Slice) -> list[Decoding]:
        """How each item is asked."""
        wanted = [self.graders[part.benchmark].decoding(item) for item in part.items]
        # a thought takes what it takes: the engine cuts this to what the prompt leaves of its context
        return [one.model_copy(update={"max_tokens": THOUGHT}) for one in wanted] if self.thinking else wanted

    def _pass(self, part: Slice, subject: Subject, base: Record | None) -> Pass:
        """Ask every turn of every item; turn k + 1 goes out together, after all answers to turn k.

        With `base`, each answer is made as long as the base's, and the base's answers stand before a later turn.
        """
        engine = self.at_work(subject)
        grader = self.graders[part.benchmark]
        if isinstance(grader, HarnessTask):
            return self._harnessed(part, subject, grader)
        decodings = self.decodings(part)
        chats: list[list[dict[str, str]]] = [[] for _ in part.items]
        texts: list[list[str]] = [[] for _ in part.items]
        tokens: list[list[int]] = [[] for _ in part.items]
        seconds, clocks, health = 0.0, [], Health()
        for turn in range(max(len(item.turns) for item in part.items)):
            asked = [number for number, item in enumerate(part.items) if turn < len(item.turns)]
            for number in asked:
                chats[number].append({"role": "user", "content": part.items[number].turns[turn]})
            chosen = [
                decodings[number] if base is None else decodings[number].as_long(base.tokens[number][turn])
                for number in asked
            ]
            done = engine.generate([chats[number] for number in asked], chosen, self.thinking)
            seconds += done.cpu_seconds if engine.settings.clock == "cpu" else done.seconds
            health += health_of(done.answers)
            clocks += [done.mhz] if done.mhz is not None else []
            for number, answer in zip(asked, done.answers, strict=True):
                said = answer.text if base is None else base.texts[number][turn]
                chats[number].append({"role": "assistant", "content": said})
                texts[number].append(answer.text)
                tokens[number].append(answer.tokens)
        mhz = sum(clocks) / len(clocks) if clocks else None
        return Pass(texts, tokens, Timing(seconds=seconds, tokens=sum(sum(one) for one in tokens), mhz=mhz), health)

    def _harnessed(self, part: Slice, subject: Subject, task: HarnessTask) -> Pass:
        """lm-eval asks by itself. What it only weighs is asked once, and no pass is timed by it."""
        said = [item for item in part.items if task.generates(item)]
        weighed = [item for item in part.items if not task.generates(item)]
        grades: dict[str, float] = {}
        if weighed:
            alone = Slice(benchmark=part.benchmark, rung=part.rung, items=tuple(weighed))
            identity = self.identity(subject) | self._harness(subject) | {"weighed": alone.fingerprint}
            record = self.store.get(identity)
            if record is None:
                record = {"grades": harnessed(self.at_work(subject), task, weighed, False).grades}
                self.store.put(identity, record)
            grades |= record["grades"]
        tokens, timing, health = dict.fromkeys(grades, 0), Timing(seconds=0.0, tokens=0), Health()
        if said:
            found = harnessed(self.at_work(subject), task, said, self.thinking)
            timing, health = found.timing, found.health
            grades, tokens = grades | found.grades, tokens | found.tokens
        texts = [[repr(grades[item.id])] for item in part.items]
        return Pass(texts, [[tokens[item.id]] for item in part.items], timing, health)

    def _harness(self, subject: Subject) -> dict[str, Any]:
        """lm-eval's version in the engine's environment. Raises `EngineFault` where another read the documents."""
        theirs = str(self.about(subject)["harness"])
        if why := differs(theirs, self.engine_of(subject).settings.python):
            raise EngineFault(why)
        return {"harness": theirs}
