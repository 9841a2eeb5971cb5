"""A store's second home, which other machines see: what one built, another one fetches and does not build again.

An artifact is there once its provenance is, which is sent last. Sending goes on beside the work that follows, in the
order in which things came about; `flush` waits for it. Two machines may build the same at once: the same files then
replace each other whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from compressors.artifact import PROVENANCE, TRAINING, Artifact, Provenance, file_sha256

AGREES = 2.0  # seconds in which those who saw nothing there have written their own: the last one stands
SHARED_TABLES = ("sensitivity-", "self/")  # of the cache; predictions of a stored teacher are as large as models


class Files(Protocol):
    """Files of a folder elsewhere, by their names below it; cluster.storage.Remote is one."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, content: bytes) -> None: ...
    def send(self, path: Path, name: str) -> None: ...
    def fetch(self, name: str, path: Path) -> bool: ...
    def names(self, folder: str = "") -> list[str]: ...
    def remove(self, name: str) -> None: ...


class Elsewhere:
    """`files` hold what `Store` holds, in its layout."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="squeeze-store")
        self._under_way: list[Future[None]] = []
        self._damaged: set[str] = set()  # artifacts that were found so there, and are sent anew once they are built
        self._failed = False  # whether something could not be sent

    def flush(self) -> None:
        """Wait until all is there, or came to another end. Raises what sending raised first."""
        waiting, self._under_way = self._under_way, []
        wait(waiting)
        for one in waiting:
            one.result()

    def send(self, artifact: Artifact, sent: Path) -> None:
        """`sent` is the mark that it is there."""
        self._later(lambda: self._send(artifact, sent))

    def enter_family(self, family: str, value: int, key: str) -> None:
        self._later(lambda: self.files.write(f"families/{family}/{value:018d}", key.encode()))

    def remember_refusal(self, key: str, reason: str) -> None:
        text = json.dumps({"reason": reason}, ensure_ascii=False)
        self._later(lambda: self.files.write(f"infeasible/{key}.json", text.encode()))

    def forget_training(self, key: str) -> None:
        """Unless something could not be sent: that may be what the next one to train has to go on from."""

        def forget() -> None:
            if self._failed:
                return
            for name in self.files.names(f"artifacts/{key}/{TRAINING}"):
                self.files.remove(name)

        self._later(forget)

    def provenance(self, key: str) -> Provenance | None:
        """Of an artifact that is there whole."""
        text = self.files.read(f"artifacts/{key}/{PROVENANCE}")
        if text is None:
            return None
        try:
            found = Provenance.model_validate_json(text)
        except ValidationError:
            return None  # of another version of squeeze, or damaged: it is built again
        return found if found.key == key else None

    def fetch(self, provenance: Provenance, folder: Path, training: bool = False) -> bool:
        """Its model, or what a training goes on from, into `folder`; False where a file is lacking or is damaged."""
        for name, record in provenance.files.items():
            if name.startswith(f"{TRAINING}/") is not training:
                continue
            whole = self.files.fetch(f"artifacts/{provenance.key}/{name}", folder / name)
            if not whole or file_sha256(folder / name) != record.sha256:
                if not training:  # that may have been given up, and is no damage
                    self._damaged.add(provenance.key)
                return False
        return True

    def refusal(self, key: str) -> str | None:
        text = self.files.read(f"infeasible/{key}.json")
        return None if text is None else str(json.loads(text)["reason"])

    def family(self, family: str) -> dict[int, str]:
        """Keys by what they have paid of the continued field."""
        found = {}
        for name in self.files.names(f"families/{family}"):
            key = self.files.read(name)
            if key is not None:
                found[int(name.rpartition("/")[2])] = key.decode()
        return found

    def tables_in(self, cache: Path) -> None:
        """Fetch the tables that others made."""
        for name in self.files.names("cache"):
            inner = name.removeprefix("cache/")
            if inner.startswith(SHARED_TABLES) and not (cache / inner).exists():
                self.files.fetch(name, cache / inner)

    def tables_out(self, cache: Path) -> None:
        """Send the tables that were made here."""
        there = set(self.files.names("cache"))
        for path in sorted(cache.rglob("*.json*")):
            inner = path.relative_to(cache).as_posix()
            if inner.startswith(SHARED_TABLES) and not path.name.startswith(".") and f"cache/{inner}" not in there:
                self.files.send(path, f"cache/{inner}")

    def agreed(self, name: str, path: Path) -> None:
        """Of a file of the cache that several machines may be making now, each its own, all take the same."""
        if not self.files.fetch(name, path):
            self.files.send(path, name)
            time.sleep(AGREES)
            self.files.fetch(name, path)

    def _send(self, artifact: Artifact, sent: Path) -> None:
        assert artifact.provenance is not None  # a base is no artifact of the store
        if artifact.key in self._damaged or self.provenance(artifact.key) is None:
            for name in artifact.provenance.files:
                path = artifact.folder / name
                if path.exists() or not name.startswith(f"{TRAINING}/"):  # training may have been given up since
                    self.files.send(path, f"artifacts/{artifact.key}/{name}")
            self.files.send(artifact.folder / PROVENANCE, f"artifacts/{artifact.key}/{PROVENANCE}")
            self._damaged.discard(artifact.key)
        sent.touch()

    def _later(self, work: Callable[[], None]) -> None:
        def noted() -> None:
            try:
                work()
            except Exception:
                self._failed = True
                raise

        self._under_way.append(self._sender.submit(noted))
