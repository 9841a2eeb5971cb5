"""KMMLU-Redux: Korean national technical qualification examinations, four options. Knows only its columns."""

from __future__ import annotations

from typing import Any

from evaluation.benchmarks.base import Item
from evaluation.benchmarks.hub import Published
from evaluation.benchmarks.multiple_choice import MultipleChoice, item_of


class KmmluRedux(MultipleChoice):
    """LGAI-EXAONE/KMMLU-Redux; the value is the share of right answers."""

    name = "kmmlu_redux"
    columns = ("question", "options", "solution")
    published = Published(name="LGAI-EXAONE/KMMLU-Redux", split="test", gated=True)

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        return [item_of(self.name, number, row, str(row.get("category", ""))) for number, row in enumerate(rows)]
