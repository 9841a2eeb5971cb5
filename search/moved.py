"""Files that a run reads may lie elsewhere when it goes on: a job submitted anew has its folder under another name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def roots() -> dict[str, str]:
    """Folders below which a run's files are looked for again: squeeze's own, and where its command was given."""
    return {"code": str(Path(__file__).parents[1]), "here": str(Path.cwd())}


def moved(value: Any, before: Mapping[str, str]) -> Any:
    """`value` with each path below one of the roots of `before` that is gone, and is there below today's, put right."""
    if isinstance(value, str):
        return _moved(value, before)
    if isinstance(value, Mapping):
        return {name: moved(one, before) for name, one in value.items()}
    if isinstance(value, list):
        return [moved(one, before) for one in value]
    return value


def _moved(text: str, before: Mapping[str, str]) -> str:
    if not text.startswith("/") or Path(text).exists():
        return text
    now = roots()
    for name, root in before.items():
        path = Path(text)
        if name in now and path.is_relative_to(root):
            found = Path(now[name]) / path.relative_to(root)
            if found.exists():
                return str(found)
    return text
