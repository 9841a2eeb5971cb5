"""The rating in a judge's reply: asked for as [[8]], given in many ways. Knows neither judge nor answer."""

from __future__ import annotations

import re
import unicodedata

from evaluation.benchmarks.choice_reader import after_thinking

LOWEST, HIGHEST = 1.0, 10.0
_NUMBER = r"(\d+(?:\.\d+)?)"
_NAMED = r"(?:평점|점수|평가|rating|score)"
_OF = r"\s*(?:점|/\s*10)?\s*"
# The form that was asked for; else single brackets or none, but only where the number is named.
_FORMS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\[\[\s*(?:{_NAMED}\s*:\s*)?[\"']?{_NUMBER}{_OF}[\"']?\s*\]\](?:\s*/\s*\[?\[?10(?:\]\])?)?",
        rf"{_NAMED}\s*:\s*\[?\s*{_NUMBER}(?:\s*/\s*10(?!\d))?\s*(?:점|\])?(?![\d.]*/)(?=[\s\].,!]|$)",
    )
)
_UNDECIDED = re.compile(r"\]\]\s*(?:~|-|또는|혹은|이나|or|to)\s*\[\[", re.IGNORECASE)


def rating_of(reply: str) -> float | None:
    """The last rating from 1 to 10 in `reply`; None where there is none, or where it names two at once."""
    text = " ".join(unicodedata.normalize("NFKC", after_thinking(reply)).replace("\\", "").replace("*", "").split())
    for form in _FORMS:
        found = list(form.finditer(text))
        if found:
            if len(found) > 1 and _UNDECIDED.match(text, found[-2].end() - 2):
                return None
            rating = float(found[-1][1])
            return rating if LOWEST <= rating <= HIGHEST else None
    return None
