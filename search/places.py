"""Where a new run and its store are to lie: folders of this machine, or URIs that every node of a cluster reaches."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cluster.storage import Remote, StorageFault, is_uri, joined, mirror_of
from search.errors import BadInput
from search.home import Home
from search.job import STORE


class Places(NamedTuple):
    """Folders on this machine, and the URIs that they are copies of; none where there is no `://`."""

    run: Path
    store: Path
    home: str
    store_home: str


def places(out: str, store: str | None) -> Places:
    """Raises `BadInput` where a run lies at `out` already, or where no run can. Writes nothing that stays."""
    home, run = (out, mirror_of(out)) if is_uri(out) else ("", Path(out).resolve())
    if home:
        _check_home(home)
    else:
        _check_folder(run, out)
    if store is None:
        return Places(run, run / STORE, home, joined(home, STORE) if home else "")
    if is_uri(store):
        _reached(store, "--store")
        return Places(run, run / STORE if home and store == joined(home, STORE) else mirror_of(store), home, store)
    return Places(run, Path(store).resolve(), home, "")


def make(found: Places) -> None:
    """The folders, or this machine's copies. Raises `BadInput`, having left nothing behind."""
    made = make_folder(found.run, "--out")
    try:
        make_folder(found.store, "--store")
    except BadInput:
        remove(made)
        raise


def _check_folder(run: Path, out: str) -> None:
    if _exists(run) and not run.is_dir():
        raise BadInput(f"{out} is a file: give another --out")
    if _exists(run / "run.json"):
        raise BadInput(f"{out} holds a run already: go on with `squeeze resume {out}`, or give another --out")
    if _exists(run) and any(run.iterdir()):
        raise BadInput(f"{out} is not empty: give another --out")


def _check_home(uri: str) -> None:
    _reached(uri, "--out")
    home = Home(uri, mirror_of(uri))
    if home.files.read("run.json") is not None:
        raise BadInput(f"{uri} holds a run already: go on with `squeeze resume {uri}`, or give another --out")
    if home.taken():
        raise BadInput(f"{uri} is not empty: give another --out")
    if (home.folder / "ledger.jsonl").exists():
        raise BadInput(f"{home.folder} is left of an earlier run at {uri}, which is gone there: remove it")


def _reached(uri: str, option: str) -> None:
    try:
        Remote(uri).check()
    except StorageFault as fault:
        raise BadInput(f"{option}: {fault}") from fault


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as fault:  # a name too long, a parent nobody may read
        raise BadInput(f"cannot use {str(path.parent)[:100]}: {fault.strerror}; give another --out") from fault


def make_folder(folder: Path, option: str) -> list[Path]:
    """Make it and see that it can be written; returns what was made, innermost first."""
    made: list[Path] = []
    try:
        made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as fault:
        remove(made)
        raise BadInput(f"cannot write into {folder}: {fault.strerror or fault}; give another {option}") from fault
    return made


def remove(made: list[Path]) -> None:
    for folder in made:
        if folder.is_dir():
            folder.rmdir()
