"""Who works in a run folder: one driver at a time, and anyone can ask whether one does."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cluster.storage import Remote
from search import lease
from search.errors import BadInput
from search.job import Job

NAME = "run.lock"
PATIENCE = 0.5  # seconds: whoever asks `is_driven` holds the lock for a moment


@contextlib.contextmanager
def driving(job: Job) -> Iterator[None]:
    """Work on a run alone, wherever it is kept. Raises `BadInput` while another one does."""
    with contextlib.ExitStack() as held:
        held.enter_context(only_driver(job.run))
        if job.home:
            held.enter_context(lease.only_driver(Remote(job.home)))
        yield


def is_worked_on(job: Job) -> bool:
    """Whether a driver is at work on it, on this machine or, where the run is kept at a URI, on any."""
    return is_driven(job.run) or (bool(job.home) and lease.at_work(Remote(job.home)) is not None)


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
