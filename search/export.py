"""Pack a trial's artifact as submit.zip: `model/` with weights, configs and tokenizer, nothing else."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from compressors.files import model_files
from compressors.store import Store
from search.errors import BadInput, RunFailed
from search.job import Job
from search.ledger import Ledger, TrialRecord, ranked, trials_of
from search.stores import open_store

ZIP_LIMIT = 10 * 1000**3  # the contest's limits, bytes
UNPACKED_LIMIT = 32 * 1000**3
PICKS = ("score", "quality", "size", "speed")


def pick(trials: list[TrialRecord], how: str, last_rung: int) -> TrialRecord:
    """The trial to hand over: by best score, quality (perf), size or speed, or by its name.

    Only trials measured in full are candidates. Raises `BadInput` for an unknown name, `RunFailed` when none is there.
    """
    full = ranked(trials, last_rung)
    if not full:
        raise RunFailed("no trial was measured in full: nothing can be handed over; resume the search")
    best = {
        "quality": lambda line: -line["perf_norm"],
        "size": lambda line: line["size_bytes"],
        "speed": lambda line: -line["speed_norm"],
    }
    if how == "score":
        return full[0]
    if how in best:
        return min(full, key=lambda trial: best[how](trial.line))
    for trial in full:
        if trial.name == how:
            return trial
    names = ", ".join(trial.name for trial in full)
    raise BadInput(f"no trial {how} measured in full; pick one of {', '.join(PICKS)}, or of the trials {names}")


def export(job: Job, how: str, target: Path) -> TrialRecord:
    """Write the model of a trial as `target`. Raises `BadInput`, or `RunFailed` when the store lost or damaged it."""
    trials = list(trials_of(Ledger(job.run / "ledger.jsonl").read()).values())
    trial = pick(trials, how, job.last_rung)
    line = trial.line
    folder = artifact_folder(job, line["artifact"])
    if line["artifact"] != job.base_key and not store_of(job).verify(line["artifact"]):
        raise RunFailed(f"artifact {line['artifact']} is damaged in the store: resume the run to build it again")
    if target.is_dir() or not target.resolve().parent.is_dir():
        raise BadInput(f"cannot write {target}: give -o a file's name in a folder that is there")
    try:
        pack(folder, target)
    except PermissionError as fault:
        raise BadInput(f"cannot write {target}: {fault.strerror}; give another -o") from fault
    return trial


def artifact_folder(job: Job, key: str) -> Path:
    """The folder of an artifact of this run. Raises `RunFailed` when the store lost it."""
    if key == job.base_key:
        return job.base
    artifact = store_of(job).get(key)
    if artifact is None:
        kept = job.store_home or job.store
        raise RunFailed(f"the store {kept} no longer holds artifact {key}: resume the run to build it again")
    return Path(artifact.folder)


def store_of(job: Job) -> Store:
    """The store of a run that was begun. Raises `RunFailed` where it is gone."""
    if not job.store_home and not job.store.is_dir():
        raise RunFailed(
            f"the store {job.store} of this run is gone: bring it back, or resume the run to build it again"
        )
    return open_store(job)


def pack(folder: Path, target: Path) -> None:
    """Zip the model files of `folder` under `model/`, aside and renamed.

    Raises `RunFailed` over the contest's limits.
    """
    files = model_files(folder)
    if sum(path.stat().st_size for path in files) > UNPACKED_LIMIT:
        raise RunFailed(f"{folder} is larger than the {UNPACKED_LIMIT / 1000**3:.0f} GB a submission may unpack to")
    part = target.with_name(target.name + ".part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in files:
                archive.write(path, f"model/{path.name}")
        if part.stat().st_size > ZIP_LIMIT:
            raise RunFailed(f"the zip would be larger than the {ZIP_LIMIT / 1000**3:.0f} GB a submission may have")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
