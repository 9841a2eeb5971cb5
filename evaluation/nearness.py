"""How near a model is to its base before it answers anything: would it have said what the base says?

The base's own answers, a few thousand tokens of them, are put to the model after their questions, long ones left out,
and its predictions are compared with the base's, token by token. Nothing is generated for that; the base's answers and
predictions are paid for once a run. Whether the model would end where the base does, it does not show. Knows nothing of
timings or scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, zip_longest
from statistics import fmean
from typing import NamedTuple

from evaluation.asking import TOP, Asker
from evaluation.benchmarks.base import Item
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.benchmarks.heldout import TextFigures, compare
from evaluation.health import ModelFault
from evaluation.measurement import BenchmarkFigures
from evaluation.protocol import ScoredText
from evaluation.record import Record, Subject
from evaluation.suite import Slice, Suite
from evaluation.trimmed import in_original_ids, kept_tokens, recut

LONG = 4000  # characters of a question that is left out: its tokens' predictions would be made and thrown away
TOKENS = 4096  # of the base's answers, compared at one rung
LONGEST = 256  # tokens of one answer: many answers tell more than long ones


class Said(NamedTuple):
    """A question and what the base said to it."""

    benchmark: str
    item: Item
    answer: str


def comparable(suite: Suite, rung: int) -> list[Slice]:
    """The slices up to `rung` whose answers are texts of the base's: none that only weighs, or that lm-eval asks."""
    return [part for part in suite.timed_up_to(rung) if not isinstance(suite.graders[part.benchmark], HarnessTask)]


def answers_of(parts: Sequence[Slice], records: Sequence[Record]) -> list[Said]:
    """First turns and the base's answers to them, benchmarks in turn, until about `TOKENS` tokens are together.

    Long questions are left out, unless there are no others.
    """
    short = [item for part in parts for item in part.items if len(item.turns[0]) <= LONG]
    by_part = [
        [
            (Said(part.benchmark, item, texts[0]), min(LONGEST, tokens[0]))
            for item, texts, tokens in zip(part.items, record.texts, record.tokens, strict=True)
            if texts[0].removeprefix("<think>").strip() and (not short or len(item.turns[0]) <= LONG)
        ]
        for part, record in zip(parts, records, strict=True)
    ]
    chosen: list[Said] = []
    left = TOKENS
    for one in chain.from_iterable(zip_longest(*by_part)):
        if one is None:
            continue
        if left <= 0:
            break
        chosen.append(one[0])
        left -= one[1]
    return chosen


def nearness(asker: Asker, said: Sequence[Said], subject: Subject) -> dict[str, BenchmarkFigures]:
    """By benchmark exp(-KL(base || subject)) along the base's answers, a grade for each item: 1 for the base itself.

    KL is in nats a token. The share of places where both find the same token likeliest stays high for models that are
    lost, so it is told only. Details: `kl`, and that share as
    `agreement`. Raises `EngineFault`, a `ModelFault` for predictions that are no numbers.
    """
    mine, theirs = (_scored(asker, said, who) for who in (subject, asker.base))
    trimmed = kept_tokens(subject.folder) is not None
    found: dict[str, dict[str, TextFigures]] = {}
    for one, model, base in zip(said, mine, theirs, strict=True):
        figures = compare(recut(model, base), base) if trimmed else compare(*_as_long(model, base))
        found.setdefault(one.benchmark, {})[one.item.id] = figures
    return {
        name: BenchmarkFigures(
            grades={item: math.exp(-one.kl) if one.compared else 0.0 for item, one in items.items()},
            passes=[],
            details={
                "kl": fmean(figures.kl for figures in items.values()),
                "agreement": fmean(figures.agreement for figures in items.values()),
            },
        )
        for name, items in found.items()
    }


def _as_long(model: ScoredText, base: ScoredText) -> tuple[ScoredText, ScoredText]:
    """Both as long as the shorter: a model with less context was shown less of the answer."""
    count = min(len(model.tokens), len(base.tokens))
    return _first(model, count), _first(base, count)


def _first(text: ScoredText, count: int) -> ScoredText:
    rows = {name: getattr(text, name)[: count - 1] for name in ("actual", "top_ids", "top_logprobs")}
    return text.model_copy(update={"tokens": text.tokens[:count], "ends": text.ends[:count]} | rows)


def _scored(asker: Asker, said: Sequence[Said], subject: Subject) -> list[ScoredText]:
    """Predictions of `subject` along the base's answers, in the base's token ids; asked once."""
    conversations = [[{"role": "user", "content": one.item.turns[0]}] for one in said]
    texts = [one.answer.removeprefix("<think>") for one in said]  # the prompt's own, where it opened a thought
    identity = asker.identity(subject) | {"after": conversations, "texts": texts, "top": TOP, "limit": LONGEST}
    identity |= {"thinking": asker.thinking}
    record = asker.store.get(identity)
    if record is None:

        def ask() -> list[ScoredText]:
            scored = asker.at_work(subject, eager=True).score(
                texts, TOP, LONGEST, conversations=conversations, thinking=asker.thinking
            )
            if not all(math.isfinite(value) for one in scored for value in one.actual):
                raise ModelFault("the model gives log-probabilities that are not numbers to the base's answers")
            return scored

        record = {"texts": [one.model_dump() for one in asker.tried(subject, ask)]}
        asker.store.put(identity, record)
    found = [ScoredText.model_validate(one) for one in record["texts"]]
    kept = kept_tokens(subject.folder)
    return found if kept is None else [in_original_ids(one, kept) for one in found]


def check_comparable(suite: Suite, rung: int) -> None:
    """Raise `ValueError` where a rung by likelihood would have nothing to compare."""
    if not comparable(suite, rung):
        raise ValueError(
            f"rungs: rung {rung + 1} goes by likelihood, and there is no answer of the base's to compare: every "
            "benchmark is lm-eval's or weighs options; give rungs without it, or add prompts"
        )
