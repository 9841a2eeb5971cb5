"""What a ledger holds, told to a searcher as if it had been there: every rung that was reached, and every end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from search.ledger import RUNNING, STOPPED, TrialRecord
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers.proposer import Proposer

Value = Callable[[Mapping[str, Any]], float]  # what a ledger line is judged by


def scored(line: Mapping[str, Any]) -> float:
    """The score as it was measured."""
    return float(line["score"])


def retell(proposer: Proposer, records: Iterable[TrialRecord], value: Value = scored) -> None:
    """Trials in the order in which they ended; those that stand open are under way.

    Of a finalist its first measurement: the second is no news to a searcher, as it was none while it ran.
    """
    ended = sorted(records, key=lambda record: (record.end is None, record.ended))
    for record in ended:
        proposer.note(Recipe.of(record.recipe))
    for record in ended:
        recipe, lines = Recipe.of(record.recipe), [line for _, line in sorted(record.rungs.items())]
        for line in lines:
            proposer.see(recipe, outcome_of(RUNNING, line, value))
        if record.end is not None:
            proposer.tell(recipe, outcome_of(record.status, lines[-1] if lines else None, value))


def outcome_of(status: str, line: Mapping[str, Any] | None, value: Value = scored) -> Outcome:
    """How a trial stands, by its status and last ledger line; one that runs may go on, and counts as stopped there."""
    told = None if line is None else dict(line) | {"score": value(line)}
    return Outcome.of(STOPPED if status == RUNNING else status, told)
