"""Why recipes are refused, told by kind. Knows nothing of what refuses them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any


def reasons(refused: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Refusals that differ in numbers only as one, with an example; the most frequent first."""
    kinds = [re.sub(r"(?<![\w.])\d[\d,.]*\b", "#", why) for _, why in refused]
    first = dict(zip(reversed(kinds), reversed(refused), strict=True))
    return [
        {"recipes": number, "reason": first[kind][1], "example": first[kind][0]}
        for kind, number in Counter(kinds).most_common()
    ]
