"""Errors that end a command: what was wrong, the value, and the next step, in one line."""

from __future__ import annotations


class BadInput(Exception):
    """What the user gave cannot be used; the command ends with exit code 2 before any work is done."""


class RunFailed(Exception):
    """The work itself did not come to its end; the command ends with exit code 1."""
