"""Where artifacts live. An artifact is either whole or absent; no key is built by two processes at once.

Layout: `artifacts/<key>/`, `locks/<key>.lock`, `drafts/<name>/` beside `drafts/<name>.lock` (held while its
writer lives), `families/<family>/<value>` (a key), `infeasible/<key>.json`, `cache/` (tables and teacher outputs
that steps share).
All on one file system that knows flock; `elsewhere` may be a second home of all of it, which other machines see, too.
There what is built is sent (`sent/<key>` marks it), and from there what is lacking is fetched.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from compressors.artifact import PROVENANCE, TRAINING, Artifact, FileRecord, Provenance, file_sha256
from compressors.elsewhere import Elsewhere, Files


class Store:
    """Artifacts under `root`, which is created. Leftovers of dead writers are removed on opening.

    Without `make` nothing is written or removed: for who only looks what is there.
    """

    def __init__(self, root: Path, make: bool = True, files: Files | None = None) -> None:
        self.root = root
        self.cache = root / "cache"
        self.elsewhere = Elsewhere(files) if files is not None else None
        self._known_there: set[str] = set()  # what this process sent or fetched
        if not make:
            return
        for part in ("artifacts", "locks", "drafts", "families", "infeasible", "cache", "sent"):
            (root / part).mkdir(parents=True, exist_ok=True)
        self.clean()

    def get(self, key: str) -> Artifact | None:
        """The artifact of that key if all its files are there in their sizes; contents of what is here are not read."""
        here = self._here(key)
        if self.elsewhere is None:
            return here
        if here is None:
            return self._fetched(key)
        self._sent(here)
        return here

    def flush(self) -> None:
        """Wait until all that was built is where other machines see it. Raises what kept it from getting there."""
        if self.elsewhere is not None:
            self.elsewhere.flush()

    def tables_in(self) -> None:
        """Have in `cache` the tables that other machines made."""
        if self.elsewhere is not None:
            self.elsewhere.tables_in(self.cache)

    def tables_out(self) -> None:
        if self.elsewhere is not None:
            self.elsewhere.tables_out(self.cache)

    def agree(self, path: Path) -> None:
        """A file of `cache` that was made here gives way to one that another machine made first."""
        if self.elsewhere is not None:
            self.elsewhere.agreed(path.relative_to(self.root).as_posix(), path)

    def _here(self, key: str) -> Artifact | None:
        folder = self._folder(key)
        try:
            text = (folder / PROVENANCE).read_text(encoding="utf-8")
            provenance = Provenance.model_validate_json(text)
        except (FileNotFoundError, ValidationError, UnicodeDecodeError):
            return None  # absent, or cut short: both mean that it must be built
        for name, record in provenance.files.items():
            path = folder / name
            if name.startswith(f"{TRAINING}/"):
                continue  # needed only to go on, and given up once a later artifact holds it: see `forget_training`
            if not path.is_file() or path.stat().st_size != record.size:
                return None
        return Artifact(key=key, folder=folder, provenance=provenance) if provenance.key == key else None

    def verify(self, key: str) -> bool:
        """Whether every byte of the artifact is as it was written. A damaged one is discarded."""
        artifact = self.get(key)  # fetched first where it is not here
        if artifact is not None and artifact.provenance is not None:
            files = artifact.provenance.files
            there = {name: record for name, record in files.items() if (artifact.folder / name).exists()}
            if all(file_sha256(artifact.folder / name) == record.sha256 for name, record in there.items()):
                return True
        self._discard(key)
        return False

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold `key` alone among all processes; waits. Released by the system when the holder dies."""
        with (self.root / "locks" / f"{key}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """An empty folder to write an artifact in; it vanishes at the end unless `put` took it."""
        while True:
            name = uuid.uuid4().hex
            guard = self.root / "drafts" / f"{name}.lock"
            with guard.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not guard.exists():  # a cleaner came between open and flock
                    continue
                folder = self.root / "drafts" / name
                folder.mkdir()
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                    guard.unlink(missing_ok=True)
                return

    def put(self, draft: Path, provenance: Provenance) -> Artifact:
        """Make the folder `draft` the artifact `provenance.key`; `provenance.files` is filled in here.

        Every file is checksummed and fsynced before one rename makes the artifact visible. A whole artifact
        that is there already is kept; a damaged one is replaced.
        """
        key = provenance.key
        files = {}
        for path in sorted(draft.rglob("*")):
            if path.is_file():
                files[path.relative_to(draft).as_posix()] = FileRecord(
                    size=path.stat().st_size, sha256=file_sha256(path)
                )
                _fsync(path)
        record = provenance.model_copy(update={"files": files})
        (draft / PROVENANCE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _fsync(draft / PROVENANCE)
        for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
            _fsync(folder)
        present = self._here(key)
        if present is None:
            self._place(draft, key)
            present = Artifact(key=key, folder=self._folder(key), provenance=record)
        self._sent(present)
        return present

    def _place(self, draft: Path, key: str) -> None:
        self._discard(key)
        draft.rename(self._folder(key))
        _fsync(self.root / "artifacts")

    def _sent(self, artifact: Artifact) -> None:
        """Once a process: a mark of another one may be of a place that was emptied since."""
        if self.elsewhere is not None and artifact.key not in self._known_there:
            self._known_there.add(artifact.key)
            self.elsewhere.send(artifact, self.root / "sent" / artifact.key)

    def _fetched(self, key: str) -> Artifact | None:
        """The artifact from elsewhere, without what a training goes on from: see `largest_below`."""
        assert self.elsewhere is not None
        provenance = self.elsewhere.provenance(key)
        if provenance is None:
            return None
        with self.draft() as draft:
            if not self.elsewhere.fetch(provenance, draft):
                return None
            (draft / PROVENANCE).write_text(provenance.model_dump_json(indent=1) + "\n", encoding="utf-8")
            if self._here(key) is None:
                self._place(draft, key)
        self._known_there.add(key)
        (self.root / "sent" / key).touch()
        return self._here(key)

    def clean(self) -> int:
        """Remove the drafts of writers that died; returns how many."""
        removed = 0
        for guard in (self.root / "drafts").glob("*.lock"):
            try:
                with guard.open("a") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(guard.with_suffix(""), ignore_errors=True)
                    guard.unlink(missing_ok=True)
                    removed += 1
            except BlockingIOError:
                continue  # its writer lives
        return removed

    def enter_family(self, family: str, value: int, key: str) -> None:
        """Note that the artifact `key` has paid `value` of the continued field."""
        folder = self.root / "families" / family
        folder.mkdir(exist_ok=True)
        _write(folder / f"{value:018d}", key)
        if self.elsewhere is not None:
            self.elsewhere.enter_family(family, value, key)

    def largest_below(self, family: str, value: int) -> Artifact | None:
        """The artifact of `family` that has paid most, but less than `value`; None without one."""
        known = {int(path.name): path.read_text(encoding="utf-8") for path in self._family(family)}
        if self.elsewhere is not None:
            known |= self.elsewhere.family(family)
        for reached in sorted((one for one in known if one < value), reverse=True):
            artifact = self.get(known[reached])
            if artifact is not None and self._has_training(artifact):
                return artifact
        return None

    def _family(self, family: str) -> list[Path]:
        return list((self.root / "families" / family).glob("[0-9]*"))

    def forget_training(self, key: str) -> None:
        """Give up an artifact's training state (several times the model's size); the model itself stays."""
        with self.draft() as aside, suppress(FileNotFoundError):
            (self._folder(key) / TRAINING).rename(aside / TRAINING)
        if self.elsewhere is not None:
            self.elsewhere.forget_training(key)

    def _has_training(self, artifact: Artifact) -> bool:
        assert artifact.provenance is not None  # only a base has none, and a base is in no family
        named = [name for name in artifact.provenance.files if name.startswith(f"{TRAINING}/")]
        if not named:
            return False
        if all((artifact.folder / name).is_file() for name in named):
            return True
        if self.elsewhere is None:
            return False
        with self.draft() as draft:
            if not self.elsewhere.fetch(artifact.provenance, draft, training=True):
                return False
            with suppress(OSError):  # another process of this machine was faster
                (draft / TRAINING).rename(artifact.folder / TRAINING)
        return all((artifact.folder / name).is_file() for name in named)

    def refusal(self, key: str) -> str | None:
        """Why this key is infeasible, if a step said so before."""
        try:
            text = (self.root / "infeasible" / f"{key}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return self.elsewhere.refusal(key) if self.elsewhere is not None else None
        return str(json.loads(text)["reason"])

    def remember_refusal(self, key: str, reason: str) -> None:
        """Remember a deterministic refusal. Faults are never remembered."""
        _write(self.root / "infeasible" / f"{key}.json", json.dumps({"reason": reason}, ensure_ascii=False))
        if self.elsewhere is not None:
            self.elsewhere.remember_refusal(key, reason)

    def _folder(self, key: str) -> Path:
        return self.root / "artifacts" / key

    def _discard(self, key: str) -> None:
        """Take an artifact away in one rename, so that nobody sees half of one, then delete it."""
        with self.draft() as aside:
            try:
                self._folder(key).rename(aside / key)
            except FileNotFoundError:
                return


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    aside.write_text(text, encoding="utf-8")
    _fsync(aside)
    aside.replace(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
