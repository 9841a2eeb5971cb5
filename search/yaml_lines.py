"""YAML whose places are known by line, so that what is wrong in a file can be pointed at. Knows nothing of spaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from search.errors import BadInput, Place

TRANSPARENT = "values"  # a list may stand under this key or in its place: its members have one place


class Lines:
    """The line, counted from 1, on which each part of a file begins."""

    def __init__(self, found: dict[Place, int]) -> None:
        self.found = found

    def of(self, place: Place) -> int:
        """The line of `place`, or of the nearest part around it that the file holds."""
        here: Place = ()
        for part in place:
            if (*here, part) in self.found:
                here = (*here, part)
            elif (*here, TRANSPARENT, part) in self.found:
                here = (*here, TRANSPARENT, part)
            else:
                break
        return self.found.get(here, 1)


def read(path: Path) -> tuple[Any, Lines]:
    """The content of a YAML file and where its parts stand.

    Raises `BadInput` for what is no YAML, for a mapping that has a key twice (the first would be lost without a word)
    and for a file that contains itself.
    """
    text = path.read_text(encoding="utf-8")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        found = {} if node is None else dict(_places(node, (), (), path))
        return (None if node is None else loader.construct_document(node)), Lines(found)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        told = ", ".join(part for part in (fault.context, fault.problem) if part)
        raise BadInput(f"{path}{line}: not YAML: {told}") from fault
    except ValueError as fault:  # a date that there is not: PyYAML makes it without a look at where it stands
        raise BadInput(f"{path}: {fault}: put what is no date into quotes") from fault
    finally:
        loader.dispose()


def _places(node: yaml.Node, place: Place, within: tuple[int, ...], path: Path) -> Iterator[tuple[Place, int]]:
    """Every part below `node`, itself included, with its line; `within`: the nodes around it."""
    line = node.start_mark.line + 1
    if id(node) in within:
        raise BadInput(f"{path}, line {line}: the part that begins here contains itself: write it out")
    within = (*within, id(node))
    if not place:
        yield place, line
    if isinstance(node, yaml.SequenceNode):
        for number, one in enumerate(node.value):
            yield (*place, number), one.start_mark.line + 1
            yield from _places(one, (*place, number), within, path)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name, at = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise BadInput(f"{path}, line {at}: {name} stands there twice: leave one out")
            seen.add(name)
            yield (*place, name), at
            yield from _places(value, (*place, name), within, path)
