"""Who works in a run folder of this machine: one driver at a time, and anyone can ask whether one does."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from search.errors import BadInput

NAME = "run.lock"
PATIENCE = 0.5  # seconds: whoever asks `is_driven` holds the lock for a moment


@contextlib.contextmanager
def only_driver(run: Path) -> Iterator[None]:
    """Two drivers in one run folder would write one ledger: the second is refused."""
    with (run / NAME).open("w") as lock:
        deadline = time.monotonic() + PATIENCE
        while not _taken(lock):
            if time.monotonic() > deadline:
                raise BadInput(f"another squeeze works in {run}: wait for it, or end it first")
            time.sleep(PATIENCE / 10)
        yield


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_driven(run: Path) -> bool:
    """Whether a driver works in it now, as far as this machine can see."""
    try:
        with (run / NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none was ever there, or nobody may look
        return False
    return False
