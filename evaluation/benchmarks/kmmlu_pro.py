"""KMMLU-Pro: Korean professional licence examinations, five options. Knows only its columns."""

from __future__ import annotations

from typing import Any

from evaluation.benchmarks.base import Item
from evaluation.benchmarks.hub import Published
from evaluation.benchmarks.multiple_choice import MultipleChoice, item_of


class KmmluPro(MultipleChoice):
    """LGAI-EXAONE/KMMLU-Pro; the value is the share of right answers."""

    name = "kmmlu_pro"
    columns = ("question", "options", "solution", "license_name", "subject")
    published = Published(name="LGAI-EXAONE/KMMLU-Pro", split="test", gated=True)

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        return [item_of(self.name, number, row, str(row["license_name"])) for number, row in enumerate(rows)]
