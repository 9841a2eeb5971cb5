"""A run kept at a URI: this machine works on a copy, and what is finished is there before the search goes on.

The ledger lies there in parts, since an object cannot be appended to: `ledger/000000.jsonl`, then each sitting's own,
`ledger/000001-SITTING.jsonl`. A line is written with the part it belongs to, which is full at 256 KiB. Knows nothing of
what lines say.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.storage import Remote
from search.errors import BadInput, RunFailed
from search.folder_lock import is_driven
from search.lease import at_work
from search.ledger import Ledger

RUN, LEDGER, PARTS = "run.json", "ledger.jsonl", "ledger"
SETTLES = 2.0  # seconds in which whoever saw nothing there has written its own
PART = 256 << 10  # bytes after which a line begins another part
SUBMISSION, VERDICT = "submit.zip", "verification.json"
REPORTS = ("summary.csv", "summary.md", "report.html")
TELLS = (*REPORTS, SUBMISSION, VERDICT)  # what people read


class KeptLedger(Ledger):
    """A ledger whose lines are at `files`, too, before `append` returns. One writer, as ever."""

    def __init__(self, path: Path, files: Remote) -> None:
        super().__init__(path)
        self.files = files
        self._end_cut_line()
        self._sitting = uuid.uuid4().hex[:8]  # of two that write at once, neither overwrites what the other wrote
        self._number = len(files.names(PARTS))  # each sitting begins a part of its own
        self._begin = path.stat().st_size if path.exists() else 0

    def append(self, event: dict[str, Any]) -> None:
        super().append(event)
        size = self.path.stat().st_size
        with self.path.open("rb") as mine:
            mine.seek(self._begin)
            self.files.write(part_name(self._number, self._sitting), mine.read())
        if size - self._begin >= PART:
            self._number, self._begin = self._number + 1, size


class Home:
    """`folder` is this machine's copy of the run at `uri`."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.folder = folder
        self.files = Remote(uri)

    def begin(self) -> None:
        """Send run.json and a ledger without lines: from now on a missing ledger is a loss, not a beginning.

        Raises `BadInput` where another search began there since this one looked: of two at the same time the last one
        has it.
        """
        taken = BadInput(f"another search began at {self.uri} at the same time: give another --out")
        if self.files.read(RUN) is not None:
            raise taken
        self.files.write(part_name(0), b"")
        self.files.send(self.folder / RUN, RUN)
        time.sleep(SETTLES)
        if self.files.read(RUN) != (self.folder / RUN).read_bytes():
            raise taken

    def taken(self) -> bool:
        """Whether something lies there already."""
        return bool(self.files.names())

    def bring(self) -> None:
        """Fetch run.json, the ledger and the verdict on what was handed over. Raises `BadInput` where no run is."""
        if not self.files.fetch(RUN, self.folder / RUN):
            raise BadInput(f"{self.uri} is not a run: it has no {RUN}")
        if not is_driven(self.folder):  # a driver in this copy is ahead of what it sent
            self.bring_ledger(push=at_work(self.files) is None)
        self.fetch(VERDICT)

    def bring_ledger(self, push: bool = True) -> None:
        """Have here what lies there, and, with `push`, there what this machine could not send. Raises `BadInput`."""
        parts = self.files.names(PARTS)
        if not parts:
            raise BadInput(f"{self.uri} has lost its ledger: bring it back, or search anew with another --out")
        there = b"".join(self.files.read(name) or b"" for name in parts)
        self._ledger_is(there, len(parts) if push else None)

    def fetch(self, name: str) -> None:
        """One file, where it is there."""
        self.files.fetch(name, self.folder / name)

    def keep(self, names: Sequence[str] = TELLS) -> None:
        """Send what there is of these files."""
        for name in names:
            if (self.folder / name).is_file():
                self.files.send(self.folder / name, name)

    def keep_more(self, below: str, paths: Sequence[Path]) -> None:
        """Send those of these files that are not there yet, in the folder `below`; with little patience."""
        files = Remote(self.uri, tries=2)
        there = set(files.names(below))
        for path in paths:
            name = path.relative_to(self.folder).as_posix()
            if name not in there:
                files.send(path, name)

    def _ledger_is(self, there: bytes, parts: int | None) -> None:
        """Lines that this machine wrote and could not send any more are not lost: they become part number `parts`.

        Where it is None another machine is at work on the run, and may have sent them on.
        """
        path = self.folder / LEDGER
        here = path.read_bytes() if path.exists() else b""
        here = here[: here.rfind(b"\n") + 1]
        if here == there and path.exists():
            return
        if here.startswith(there) and here and parts is not None:
            self.files.write(part_name(parts), here[len(there) :])
        elif there.startswith(here):
            aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            aside.write_bytes(there)
            aside.replace(path)
        else:
            raise RunFailed(f"{path} is not what {self.uri} holds: two drivers wrote it. Move the former away to go on")


def part_name(number: int, sitting: str = "") -> str:
    return f"{PARTS}/{number:06d}{'-' * bool(sitting)}{sitting}.jsonl"
