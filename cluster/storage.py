"""Folders that several machines see: s3://, gs:// and whatever else pyarrow opens. Whole files in, whole files out.

A file appears in one piece: an object store shows it when its upload ends, on a file system it is renamed into place.
Credentials come from the environment, as each cloud's own tools read them; AWS_ENDPOINT_URL names another S3 server.
Knows nothing of what the files hold.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

CACHE = "SQUEEZE_CACHE"  # names the folder where this machine keeps its copies
CHUNK = 8 << 20  # bytes that are in memory at a time
TRIES = 9  # of one file, a minute and a half in all: a store that is busy, a line that breaks
WITH_KEYS = re.compile(r"^\w+://[^/?]*@|[?&]\w*(access_key|secret|password|token|sas)\w*=")

# What S3 says of a wrong key or bucket, or of rights that lack: at a place that never worked, no time mends it.
REFUSED = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|ExpiredToken"
    r"|Bucket '[^']*' not found"
)

T = TypeVar("T")


class StorageFault(RuntimeError):
    """The folder could not be reached, read or written: nothing is known of what it holds."""


class BadPlace(StorageFault):
    """The URI itself is wrong, whatever is there."""


def is_uri(place: str) -> bool:
    """Whether `place` names a folder elsewhere, rather than a path of this machine."""
    return "://" in place


def joined(uri: str, name: str) -> str:
    """The folder `name` below `uri`; what stands behind a `?` (such as endpoint_override) stays at the end."""
    path, mark, query = uri.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def mirror_of(uri: str) -> Path:
    """Where this machine keeps its copies of what lies at `uri`: in $SQUEEZE_CACHE, or ~/.cache/squeeze."""
    root = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "squeeze")
    name = uri.partition("?")[0].rstrip("/").rpartition("/")[2] or "root"
    return root / f"{name}-{hashlib.sha256(uri.rstrip('/').encode()).hexdigest()[:12]}"


class Remote:
    """The files below `uri`, named by their path from there. Pickles as that: each process has a connection of its own.

    Every method raises `StorageFault` when the folder cannot be reached, `BadPlace` when there can be none.
    """

    def __init__(self, uri: str, tries: int = TRIES) -> None:
        if WITH_KEYS.search(uri):
            raise BadPlace("the URI holds a key, and would be written down: give credentials in the environment")
        self.uri = uri
        self.tries = tries
        self.worked = False  # so far, in this process

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.uri,)

    def under(self, name: str) -> Remote:
        """The folder `name` below this one."""
        return Remote(joined(self.uri, name))

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        return self._tried(lambda: self._content(name))

    def write(self, name: str, content: bytes) -> None:
        self._tried(lambda: self._put(name, [content]))

    def send(self, path: Path, name: str) -> None:
        """Copy a file of this machine there."""

        def put() -> None:
            with path.open("rb") as source:  # before anything is begun there
                self._put(name, iter(lambda: source.read(CHUNK), b""))

        self._tried(put)

    def fetch(self, name: str, path: Path) -> bool:
        """Copy a file from there, aside and renamed; whether there was one."""
        return self._tried(lambda: self._get(name, path))

    def names(self, folder: str = "") -> list[str]:
        """Of all files below `folder`, as seen from here, sorted."""
        return self._tried(lambda: self._listed(folder))

    def remove(self, name: str) -> None:
        """A file that is not there is none to remove."""
        self._tried(lambda: self._gone(name))

    def check(self) -> None:
        """Write a file, read it and remove it."""
        name, word, hasty = f".squeeze-{uuid.uuid4().hex}", b"may be removed", Remote(self.uri, tries=2)
        hasty.write(name, word)
        found = hasty.read(name)
        hasty.remove(name)
        if found != word:
            raise StorageFault(f"{self.uri} does not give back what was written there")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from pyarrow.fs import FileSystem

        try:
            files, root = FileSystem.from_uri(self.uri)
        except (ValueError, ImportError) as fault:  # an unknown scheme, a part of the URI that its kind has not
            told = f"{self.uri} is no place squeeze knows ({_line(fault)}): give s3://, gs:// or file://"
            raise BadPlace(told) from fault
        if not root:
            raise BadPlace(f"{self.uri} names no bucket: give one, as in s3://BUCKET/runs/first")
        return files, root

    def _at(self, name: str) -> tuple[Any, str]:
        files, root = self._opened
        return files, f"{root.rstrip('/')}/{name}" if name else root

    def _content(self, name: str) -> bytes | None:
        files, path = self._at(name)
        try:
            with files.open_input_stream(path) as source:
                return bytes(source.readall())
        except FileNotFoundError:
            return None

    def _put(self, name: str, chunks: Iterable[bytes]) -> None:
        files, path = self._at(name)
        local = files.type_name == "local"
        if local:
            files.create_dir(path.rpartition("/")[0], recursive=True)
        aside = f"{path}.{uuid.uuid4().hex}.part" if local else path
        with files.open_output_stream(aside) as out:
            for chunk in chunks:
                out.write(chunk)
        if local:
            files.move(aside, path)

    def _get(self, name: str, path: Path) -> bool:
        files, there = self._at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with files.open_input_stream(there) as source, aside.open("wb") as out:
                shutil.copyfileobj(source, out, CHUNK)
                out.flush()
                os.fsync(out.fileno())
        except FileNotFoundError:
            return False
        else:
            aside.replace(path)
            return True
        finally:
            aside.unlink(missing_ok=True)

    def _listed(self, folder: str) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        files, path = self._at(folder)
        root = self._opened[1].rstrip("/")
        found = files.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
        mine = [one.path for one in found if one.type == FileType.File and not one.path.endswith(".part")]
        return sorted(one.removeprefix(root).removeprefix("/") for one in mine)

    def _gone(self, name: str) -> None:
        from pyarrow.fs import FileType

        files, path = self._at(name)
        if files.get_file_info(path).type != FileType.NotFound:
            files.delete_file(path)

    def _tried(self, work: Callable[[], T]) -> T:
        from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

        def enough(state: RetryCallState) -> bool:
            fault = state.outcome.exception() if state.outcome is not None else None
            hopeless = not self.worked and REFUSED.search(str(fault)) is not None
            return state.attempt_number >= (min(2, self.tries) if hopeless else self.tries)

        patient = Retrying(
            retry=retry_if_exception_type(OSError),
            stop=enough,
            wait=wait_exponential(multiplier=0.5, max=30),
            reraise=True,
        )
        try:
            found = patient(work)
            self.worked = True
            return found
        except (OSError, ValueError) as fault:  # pyarrow's faults are one or the other
            raise StorageFault(
                f"{self.uri} cannot be used ({_line(fault)}): see that the folder is there, and that the environment "
                "holds credentials which may read and write it"
            ) from fault


def _line(fault: BaseException) -> str:
    return " ".join(str(fault).split())[:300]
