"""KoMT-Bench: two-turn instructions in eight categories, graded by rule.

Rows of the reference model carry in `reference` one rule for each turn (`evaluation.benchmarks.rules`), or
a list of rules for a turn, as JSON or already parsed. LG's own rows carry free text or nothing there: `komt_judged`.
"""

from __future__ import annotations

import json
from typing import Any

from evaluation.benchmarks.base import BadData, Decoding, Item
from evaluation.benchmarks.choice_reader import after_thinking
from evaluation.benchmarks.hub import Published
from evaluation.benchmarks.rules import is_rule, passes


def rules_of(reference: Any) -> list[list[dict[str, Any]]] | None:
    """One list of rules a turn, or None when `reference` holds anything else."""
    if isinstance(reference, str):
        try:
            reference = json.loads(reference)
        except ValueError:
            return None
    if not isinstance(reference, (list, tuple)) or len(reference) != 2:
        return None
    turns = [list(turn) if isinstance(turn, (list, tuple)) else [turn] for turn in reference]
    return turns if all(turn and all(map(is_rule, turn)) for turn in turns) else None


class KoMtBench:
    """LGAI-EXAONE/KoMT-Bench; the value is the mean grade of the items."""

    name = "komt_bench"
    columns = ("question_id", "category", "turns")
    published = Published(name="LGAI-EXAONE/KoMT-Bench", split="train")
    max_tokens = 1024

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        found = []
        for number, row in enumerate(rows):
            turns = row["turns"]
            if isinstance(turns, str) or not hasattr(turns, "__len__") or len(turns) != 2:
                raise BadData(f"{self.name}, row {number}: column turns must be a list of two turns")
            rules = rules_of(row.get("reference"))
            if rules is None:
                raise BadData(
                    f"{self.name}, row {number}: column reference holds no rule for each turn, and rows with and "
                    "without rules do not mix"
                )
            found.append(
                Item(
                    id=f"{self.name}-{row['question_id']}",
                    turns=tuple(str(turn) for turn in turns),
                    reference=rules,
                    category=str(row["category"]),
                )
            )
        return found

    def decoding(self, item: Item) -> Decoding:
        return Decoding(max_tokens=self.max_tokens)

    def grade(self, item: Item, answers: tuple[str, ...]) -> float:
        """Mean over the two turns of the share of that turn's rules obeyed; no answer is worth 0."""
        shares = []
        for turn, rules in enumerate(item.reference):
            answer = after_thinking(answers[turn]) if turn < len(answers) else ""
            shares.append(sum(passes(rule, answer) for rule in rules) / len(rules))
        return sum(shares) / len(shares)
