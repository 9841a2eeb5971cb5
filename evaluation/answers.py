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
from typing import Any


class AnswerStore:
    """One JSON file a record in `root`, written aside and renamed, so that a reader never sees half of one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        path = self._path(identity)
        if not path.exists():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record["content"]

    def put(self, identity: dict[str, Any], content: dict[str, Any]) -> None:
        path = self._path(identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as out:
            json.dump({"identity": identity, "content": content}, out, ensure_ascii=False)
            out.flush()
            os.fsync(out.fileno())
        Path(out.name).replace(path)

    def _path(self, identity: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        return self.root / digest[:2] / f"{digest}.json"
