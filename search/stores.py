"""A job's folders, opened: its store, and the base where this machine does not have it.

Where the store is kept at a URI the base is, too, so that every node has it: `bases/<key>/`, its listing sent last.
"""

from __future__ import annotations

import json
from pathlib import Path

from cluster.storage import Remote
from compressors.artifact import base_artifact
from compressors.files import model_files
from compressors.store import Store
from compressors.tokens import KEPT
from search.bases import find_base
from search.errors import BadInput
from search.job import Job

CONFIG, LISTING = "config.json", "files.json"


def open_store(job: Job) -> Store:
    """With its second home, where it has one."""
    return Store(job.store, files=Remote(job.store_home) if job.store_home else None)


def keep_base(job: Job) -> None:
    """Have the base in the store's second home."""
    there = Remote(job.store_home).under(f"bases/{job.base_key}")
    if there.read(LISTING) is not None:
        return
    names = _names(job.base)
    for name in names:
        there.send(job.base / name, name)
    there.write(LISTING, json.dumps(names).encode())


def with_base(job: Job, checked: bool = True) -> Job:
    """The job with a base that is here: its own folder, what its name says on this machine, or what the store keeps.

    `checked` sees that the content is what it was when the run began. Raises `BadInput` where there is none, or
    another one.
    """
    if not (job.base / CONFIG).is_file():
        found = _fetched(job) or _found_again(job)
        if found is None:
            raise BadInput(f"the base of this run, {job.base}, is gone: bring it back")
        job = job.model_copy(update={"base": found})
    if checked and base_artifact(job.base).key != job.base_key:
        raise BadInput(f"the base {job.base} is not what this run began with: its content has changed")
    return job


def with_shape(job: Job) -> Job:
    """The job with a base whose config is here, for who only tells of the run; the weights stay where they are."""
    if (job.base / CONFIG).is_file() or not job.store_home:
        return job
    folder = job.store / "shapes" / job.base_key
    if not (folder / CONFIG).is_file():
        Remote(job.store_home).under(f"bases/{job.base_key}").fetch(CONFIG, folder / CONFIG)
    return job.model_copy(update={"base": folder}) if (folder / CONFIG).is_file() else job


def _found_again(job: Job) -> Path | None:
    """By its name: a job that was submitted anew has its folder, and `tiny`, elsewhere."""
    try:
        found = find_base(job.base_name) if job.base_name else None
    except BadInput:
        return None
    return found if found is not None and base_artifact(found).key == job.base_key else None


def _fetched(job: Job) -> Path | None:
    if not job.store_home:
        return None
    folder = job.store / "bases" / job.base_key
    if (folder / LISTING).is_file():
        return folder
    there = Remote(job.store_home).under(f"bases/{job.base_key}")
    listing = there.read(LISTING)
    if listing is None:
        return None
    for name in json.loads(listing):
        there.fetch(name, folder / name)
    (folder / LISTING).write_bytes(listing)
    return folder


def _names(base: Path) -> list[str]:
    """Of all files at the top of a model folder that a loader may read: no other formats of the weights."""
    return sorted({path.name for path in model_files(base)} | {KEPT} & {path.name for path in base.iterdir()})
