"""docs/space.md, written from the code: `python -m search.space_page > docs/space.md`, or `make docs`.

Every field that a space may hold, with its default and what it means. Knows nothing of steps: docs/steps.md has them.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from evaluation.judge import JudgeSpec
from evaluation.suite import SuiteSpec
from search.budget import Patience
from search.rungs import Rung
from search.space import Range, Space, StepSpace

WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
# In the order of the page: the heading, what is said before the table, and the model behind it.
PARTS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("A space", "What stands at the top of the file.", Space),
    (
        "Ranges",
        "What a field of a step may hold in place of a value, beside a list of choices; `{fixed: [...]}` is a list "
        "that is itself the value.",
        Range,
    ),
    ("evaluation", "What may be named under `benchmarks`, and which columns are needed: benchmarks.md.", SuiteSpec),
    ("evaluation.judge", "Who rates the answers to KoMT-Bench.", JudgeSpec),
    ("rungs", "A list; shares never fall, and the last rung is everything.", Rung),
    ("patience", "When a search has gone on long enough without getting better.", Patience),
)
START = """# Spaces

Written by `make docs` from the code; a test sees that it is current.

A space is a YAML file: what recipes are made of, what models are asked, and how long to search. Presets are such files,
in `search/presets/`. Paths are relative to the file. A field that is not listed here is refused by name.

```yaml
steps:                       # applied in this order; every step and its fields: steps.md
  - step: drop_layers
    optional: true           # with and without it
    count: [1, 2, 3]         # a list is a choice
  - step: distill
    optional: true
    lr: {low: 1.0e-4, high: 1.0e-3, log: true}    # a range
    tokens: 200000           # a plain value is fixed
  - step: quantize
    scheme: W8A8
seeds:                       # tried first
  - [{step: quantize, scheme: W8A8}]
evaluation:
  benchmarks: {kmmlu_redux: data/kmmlu_redux.parquet}
```"""


MODELS = tuple(model for _, _, model in PARTS)


def page() -> str:
    """The whole of docs/space.md."""
    return "\n\n".join([START, *(_part(*part) for part in PARTS)]) + "\n"


def _part(heading: str, said: str, model: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_kind(info)} | {_default(info)} | {info.description} |"
        for name, info in model.model_fields.items()
    ]
    return f"## {heading}\n\n{said}\n\n| field | holds | default | |\n| --- | --- | --- | --- |\n" + "\n".join(rows)


def _kind(info: FieldInfo) -> str:
    """What it holds, with its limits."""
    limits = [f"{LIMITS[key]} {getattr(one, key):g}" for one in info.metadata for key in LIMITS if hasattr(one, key)]
    return ", ".join([_words(info.annotation), *limits])


def _words(kind: Any) -> str:
    if kind in WORDS:
        return WORDS[kind]
    inside = typing.get_args(kind)
    outside = typing.get_origin(kind)
    if outside is Literal:
        return ", ".join(f"`{one}`" for one in inside)
    if outside in (types.UnionType, typing.Union):
        return " or ".join(
            _words(one) for one in inside if one is not type(None) and not (one is int and float in inside)
        )
    if outside is tuple:
        return {tuple[dict[str, Any], ...]: "list of recipes", StepSpace: "list of steps"}.get(
            inside[0], f"list, {_words(inside[0])}"
        )
    if outside is dict:
        return f"{_words(inside[0])} to {_words(inside[1])}"
    return next((f"see {heading}" for heading, _, model in PARTS if model is kind), "a step")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, tuple) and value:
        return "`[" + ", ".join(str(one.model_dump()) for one in value).replace("'", "") + "]`"
    if value is None or value in ({}, (), ""):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    print(page(), end="")
