"""Who works on a run, wherever it is kept: one driver at a time, and anyone can ask whether one does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cluster.storage import Remote
from search import lease
from search.folder_lock import is_driven, only_driver
from search.job import Job


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
