"""The store: whole or absent, whoever is killed, tampers or races."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compressors.artifact import Provenance
from compressors.store import Store

WRITER = """
import sys, time, pathlib
from compressors import store as module
from compressors.artifact import Provenance
root = pathlib.Path(sys.argv[1])
module._fsync = lambda path: (print("in put", flush=True), time.sleep(60))
store = module.Store(root)
with store.draft() as draft:
    (draft / "model.safetensors").write_bytes(b"x" * 1000)
    store.put(draft, Provenance.model_validate_json(sys.argv[2]))
"""


def provenance(key: str = "k1") -> Provenance:
    return Provenance(
        key=key,
        step={"step": "context"},
        source="base",
        data=None,
        seed=0,
        code="c",
        libraries={},
        device="cpu",
        seconds=1.0,
        peak_gpu_bytes=0,
        notes={},
        files={},
    )


def put(store: Store, key: str = "k1", content: bytes = b"weights") -> Path:
    with store.draft() as draft:
        (draft / "training").mkdir()
        (draft / "training" / "state.json").write_text("{}")
        (draft / "model.safetensors").write_bytes(content)
        return store.put(draft, provenance(key)).folder


def test_what_was_put_is_got_with_its_checksums(tmp_path: Path) -> None:
    import hashlib

    store = Store(tmp_path)
    assert store.get("k1") is None
    folder = put(store)
    artifact = Store(tmp_path).get("k1")
    assert artifact is not None and artifact.folder == folder and artifact.provenance is not None
    record = artifact.provenance.files
    assert record["model.safetensors"].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert record["training/state.json"].size == 2
    assert store.verify("k1")
    assert not list((tmp_path / "drafts").iterdir())


@pytest.mark.parametrize("moment", ["killed", "raised"])
def test_an_unfinished_put_leaves_no_artifact(tmp_path: Path, moment: str) -> None:
    if moment == "raised":
        with pytest.raises(RuntimeError), Store(tmp_path).draft() as draft:
            (draft / "model.safetensors").write_bytes(b"x")
            raise RuntimeError
    else:
        command = [sys.executable, "-c", WRITER, str(tmp_path), provenance().model_dump_json()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "in put\n"
            assert len(list((tmp_path / "drafts").glob("*.lock"))) == 1
            assert Store(tmp_path).clean() == 0  # its writer lives
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        assert list((tmp_path / "drafts").iterdir())
    store = Store(tmp_path)  # opening cleans up after the dead
    assert store.get("k1") is None
    assert not list((tmp_path / "drafts").iterdir())
    assert not list((tmp_path / "artifacts").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"short"),
        lambda folder: (folder / "provenance.json").unlink(),
        lambda folder: (folder / "provenance.json").write_text('{"key": "k1"'),
        lambda folder: (folder / "provenance.json").write_bytes(b"\xff\xfe"),
    ],
)
def test_a_damaged_artifact_is_not_given_out_and_can_be_put_again(tmp_path: Path, damage: object) -> None:
    store = Store(tmp_path)
    damage(put(store))  # type: ignore[operator] - one of the above
    assert store.get("k1") is None
    put(store)
    assert store.get("k1") is not None and store.verify("k1")


def test_a_flipped_byte_is_found_by_verify_and_discarded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (put(store) / "model.safetensors").write_bytes(b"weighty")  # as long as before
    assert store.get("k1") is not None  # sizes agree: the cheap look cannot tell
    assert not store.verify("k1")
    assert store.get("k1") is None
    assert not store.verify("absent")


def test_the_first_of_two_puts_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = put(store, content=b"first"), put(store, content=b"second")
    assert first == second
    assert (first / "model.safetensors").read_bytes() == b"first"


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from compressors.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).lock('k'):\n"
        "    start = time.monotonic(); time.sleep(0.3); print(start, time.monotonic())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    spans = sorted(tuple(map(float, writer.communicate()[0].split())) for writer in both)
    assert spans[0][1] <= spans[1][0]


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from compressors.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).lock('k'):\n    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        holder.kill()
    started = time.monotonic()
    with Store(tmp_path).lock("k"):
        assert time.monotonic() - started < 5


def test_a_family_gives_the_largest_smaller_whole_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.largest_below("f", 100) is None
    for value in (10, 30, 200):
        store.enter_family("f", value, f"k{value}")
        put(store, f"k{value}")
    found = store.largest_below("f", 100)
    assert found is not None and found.key == "k30"
    (found.folder / "model.safetensors").unlink()
    found = store.largest_below("f", 100)
    assert found is not None and found.key == "k10"
    assert store.largest_below("f", 10) is None
    assert store.largest_below("g", 100) is None
