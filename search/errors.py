"""Errors that end a command: what was wrong, the value, and the next step, in one line."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

UNKNOWN = "extra_forbidden"  # pydantic's name for a field that a model has not
Place = tuple[str | int, ...]  # keys and positions from the top of a file to what is meant


class BadInput(Exception):
    """What the user gave cannot be used; the command ends with exit code 2 before any work is done."""


class RunFailed(Exception):
    """The work itself did not come to its end; the command ends with exit code 1."""


class Misfit(ValueError):
    """Something in a file does not fit; `place` says where in it. Who knows the file names it and the line."""

    def __init__(self, text: str, *place: str | int) -> None:
        super().__init__(text)
        self.place: Place = place

    def below(self, *place: str | int) -> Misfit:
        """The same, told by who knows where the part lies that this was said of."""
        return Misfit(str(self), *place, *self.place)


def first_error(fault: ValidationError, known: Collection[str] = ()) -> str:
    """The first complaint of a validation in one line: place, reason, value; `known`: the fields that the top has."""
    error = _first(fault)
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == UNKNOWN:
        near = get_close_matches(place, known, 1) if len(error["loc"]) == 1 else []
        return f"{place}: there is no such field" + (f"; did you mean {near[0]}?" if near else "")
    reason = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    shown = "" if isinstance(value, dict | list | tuple) else f" (got {value!r})"
    return f"{place}: {reason}{shown}" if place and not reason.startswith(place) else f"{reason}{shown}"


def place_of(fault: ValidationError) -> Place:
    """Where the first complaint of a validation points."""
    error = _first(fault)
    cause = error.get("ctx", {}).get("error")
    return (*error["loc"], *(cause.place if isinstance(cause, Misfit) else ()))


def _first(fault: ValidationError) -> ErrorDetails:
    """A field of an unknown name before all else: a slip in a name makes the field that was meant look missing."""
    errors = fault.errors()
    return next((one for one in errors if one["type"] == UNKNOWN), errors[0])
