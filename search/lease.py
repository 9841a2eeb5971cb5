"""One driver at a time where a run is kept at a URI: its word that it is at work is written anew as long as it is.

Clocks of two machines may differ by less than half of `EXPIRES`. A file system's own lock does this for run folders:
search/folder_lock.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.storage import Remote, StorageFault
from search.errors import BadInput

NAME = "driver.json"
RENEWED = 20.0  # seconds
EXPIRES = 90.0  # seconds after which who has said nothing is gone
SETTLES = 5.0  # seconds that two who begin at the same time need to see each other


@contextlib.contextmanager
def only_driver(files: Remote) -> Iterator[None]:
    """Raises `BadInput` while another one is at work."""
    _refuse(at_work(files), files)
    mine = {"host": platform.node(), "machine": machine(), "pid": os.getpid(), "id": uuid.uuid4().hex}
    _say(files, mine)
    time.sleep(SETTLES)
    last = at_work(files)
    if last is None or last["id"] != mine["id"]:
        _refuse(last, files)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEWED):
            with contextlib.suppress(StorageFault):  # the ledger's next line tells of it, where it lasts
                if _is_mine(files, mine):
                    _say(files, mine)

    thread = threading.Thread(target=renew, name="squeeze-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if _is_mine(files, mine):
            files.remove(NAME)


def at_work(files: Remote) -> dict[str, Any] | None:
    """Who works on the run now, as far as its word goes; who died on this machine is known to."""
    text = files.read(NAME)
    if text is None:
        return None
    word: dict[str, Any] = json.loads(text)
    if time.time() - word["time"] > EXPIRES:
        return None
    return None if word.get("machine") == machine() and not _lives(word["pid"]) else word


def machine() -> str:
    """This start of this machine, and who sees each other's processes on it: a container sees its own alone.

    Names of hosts are no help, as many machines may have the same.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except FileNotFoundError:  # a laptop without Linux, which has no containers of its own either
        return f"{platform.node()} {uuid.getnode()}"


def _is_mine(files: Remote, mine: dict[str, Any]) -> bool:
    """Whether nobody took over while this driver slept, or could not reach the place."""
    text = files.read(NAME)
    return text is None or json.loads(text)["id"] == mine["id"]


def _say(files: Remote, mine: dict[str, Any]) -> None:
    files.write(NAME, json.dumps(mine | {"time": time.time()}).encode())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _refuse(word: dict[str, Any] | None, files: Remote) -> None:
    if word is not None:
        left = max(1, round(EXPIRES - (time.time() - word["time"])))
        raise BadInput(
            f"another squeeze works on {files.uri}, process {word['pid']} on {word['host']}: wait for it, or end it; "
            f"if it was killed, this is over in {left} s"
        )
