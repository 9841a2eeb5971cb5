"""Rules that grade an answer without a judge: `{"rule": name, "value": ...}`. Knows nothing of benchmarks.

Texts are compared after NFC and with white space collapsed; a final full stop or exclamation mark does not
count in `equals` and `ends_with`. Each rule is worth 1 or 0.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _bare(text: str) -> str:
    return _plain(text).rstrip(".!。 ")


def _counts(answer: str, value: Any) -> bool:
    return answer.count(_plain(str(value["text"]))) == int(value["times"])


RULES: dict[str, Callable[[str, Any], bool]] = {
    "equals": lambda answer, value: _bare(answer) == _bare(str(value)),
    "contains": lambda answer, value: _plain(str(value)) in answer,
    "lacks": lambda answer, value: bool(answer) and _plain(str(value)) not in answer,
    "starts_with": lambda answer, value: answer.startswith(_plain(str(value))),
    "ends_with": lambda answer, value: _bare(answer).endswith(_bare(str(value))),
    "count": _counts,  # value: {"text": ..., "times": ...}
    "words": lambda answer, value: len(answer.split()) == int(value),
}


def is_rule(value: Any) -> bool:
    """Whether `value` is a rule that `passes` can apply."""
    if not isinstance(value, dict) or set(value) != {"rule", "value"} or value["rule"] not in RULES:
        return False
    given = value["value"]
    if value["rule"] == "count":
        return isinstance(given, dict) and set(given) == {"text", "times"} and _is_count(given["times"])
    return value["rule"] != "words" or _is_count(given)


def _is_count(value: Any) -> bool:
    return str(value).isdecimal()


def passes(rule: dict[str, Any], answer: str) -> float:
    """1 when `answer` obeys `rule`, else 0."""
    return float(RULES[rule["rule"]](_plain(answer), rule["value"]))
