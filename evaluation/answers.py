"""Answers are paid once: what a model said and how long it took, kept by what was asked of whom.

A record is named by the hash of (artifact, engine and device, question set, decoding): whoever asks the same again,
a higher rung or a resumed search, reads it. Knows nothing of grades; changing a parser costs no generation.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol


class Files(Protocol):
    """Files of a folder that other machines see, by their names below it; cluster.storage.Remote is one."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, content: bytes) -> None: ...


class AnswerStore:
    """One JSON file a record in `root`, written aside and renamed, so that a reader never sees half of one.

    With `files` they are kept there, too: a trial that goes on elsewhere asks nothing again. Raises what `files` raise.
    """

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self.root = root
        self.files = files

    def get(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        path = self._path(identity)
        if path.exists():
            text: str | bytes | None = path.read_text(encoding="utf-8")
        else:
            text = self.files.read(self._name(path)) if self.files is not None else None
        if text is None:
            return None
        record: dict[str, Any] = json.loads(text)
        return record["content"]

    def put(self, identity: dict[str, Any], content: dict[str, Any]) -> None:
        path = self._path(identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as out:
            json.dump({"identity": identity, "content": content}, out, ensure_ascii=False)
            out.flush()
            os.fsync(out.fileno())
        Path(out.name).replace(path)
        if self.files is not None:
            self.files.write(self._name(path), path.read_bytes())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _path(self, identity: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        return self.root / digest[:2] / f"{digest}.json"
