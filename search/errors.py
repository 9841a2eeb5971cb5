"""Errors that end a command: what was wrong, the value, and the next step, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class BadInput(Exception):
    """What the user gave cannot be used; the command ends with exit code 2 before any work is done."""


class RunFailed(Exception):
    """The work itself did not come to its end; the command ends with exit code 1."""


def first_error(fault: ValidationError) -> str:
    """The first complaint of a validation in one line: place, reason, value."""
    error = fault.errors()[0]
    place = ".".join(str(part) for part in error["loc"])
    reason = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    shown = "" if isinstance(value, dict | list | tuple) else f" (got {value!r})"
    return f"{place}: {reason}{shown}" if place and not reason.startswith(place) else f"{reason}{shown}"
