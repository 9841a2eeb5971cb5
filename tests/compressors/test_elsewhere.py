"""Two machines, each with a store of its own, and one place that both see."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.storage import Remote, StorageFault
from compressors.artifact import PROVENANCE
from compressors.build import build
from compressors.depth import DropLayers
from compressors.distill import Distill
from compressors.step import Conversations, Infeasible, StepContext
from compressors.steps import parse_step
from compressors.store import Store

DROP = DropLayers(count=1, calibration_rows=8)


@pytest.fixture
def shared(tmp_path: Path) -> Remote:
    return Remote(f"file://{tmp_path}/shared")


@pytest.fixture
def first(tmp_path: Path, shared: Remote) -> Store:
    return Store(tmp_path / "first", files=shared)


@pytest.fixture
def second(tmp_path: Path, shared: Remote) -> Store:
    return Store(tmp_path / "second", files=shared)


def test_what_one_built_the_other_fetches(
    base: Path, first: Store, second: Store, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build([DROP], base, first, data)
    first.flush()
    monkeypatch.setattr(DropLayers, "run", lambda *_: pytest.fail("built again"))
    found = build([DROP], base, second, data)
    assert found.stages[0].cached
    assert found.artifact.key == built.artifact.key and found.artifact.folder != built.artifact.folder
    names = {path.name for path in built.artifact.folder.iterdir()}
    assert names == {path.name for path in found.artifact.folder.iterdir()}
    for name in names - {PROVENANCE}:
        assert (built.artifact.folder / name).read_bytes() == (found.artifact.folder / name).read_bytes()
    assert second.verify(found.artifact.key)


def test_training_goes_on_where_another_machine_stopped(
    base: Path, first: Store, second: Store, data: Conversations, tmp_path: Path
) -> None:
    short, long = (Distill(tokens=tokens, batch_tokens=256) for tokens in (512, 1024))
    build([DROP, short], base, first, data, furthest=1024)
    first.flush()
    apart = build([DROP, long], base, second, data, furthest=1024).artifact
    straight = build([DROP, long], base, Store(tmp_path / "alone"), data, furthest=1024).artifact
    assert apart.provenance is not None and apart.provenance.continued_from is not None
    assert (apart.folder / "model.safetensors").read_bytes() == (straight.folder / "model.safetensors").read_bytes()


def test_a_training_state_that_was_gone_on_from_is_given_up_there_too(
    base: Path, first: Store, shared: Remote, data: Conversations
) -> None:
    for tokens in (512, 1024):
        build([DROP, Distill(tokens=tokens, batch_tokens=256)], base, first, data, furthest=2048)
    first.flush()
    states = {name.split("/")[1] for name in shared.names("artifacts") if "/training/" in name}
    assert len(states) == 1


def test_what_was_cut_short_on_its_way_is_not_there(
    base: Path, first: Store, second: Store, shared: Remote, data: Conversations
) -> None:
    key = build([DROP], base, first, data).artifact.key
    first.flush()
    shared.remove(f"artifacts/{key}/{PROVENANCE}")  # it is sent last
    assert second.get(key) is None


def test_what_was_damaged_there_is_not_taken(
    base: Path, first: Store, second: Store, shared: Remote, data: Conversations
) -> None:
    key = build([DROP], base, first, data).artifact.key
    first.flush()
    content = shared.read(f"artifacts/{key}/model.safetensors")
    assert content is not None
    shared.write(f"artifacts/{key}/model.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    assert second.get(key) is None
    assert not list((second.root / "artifacts").iterdir())
    assert build([DROP], base, second, data).artifact.key == key  # built here then, and sent
    second.flush()
    third = Store(second.root.with_name("third"), files=shared)
    assert third.get(key) is not None


def test_what_training_goes_on_from_is_kept_where_what_came_of_it_could_not_be_sent(
    base: Path, tmp_path: Path, shared: Remote, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [[DROP, Distill(tokens=tokens, batch_tokens=256)] for tokens in (512, 1024)]
    hasty = Remote(shared.uri, tries=1)
    first = Store(tmp_path / "first", files=hasty)
    build(steps[0], base, first, data, furthest=2048)
    first.flush()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Remote, "send", full)
    build(steps[1], base, first, data, furthest=2048)
    with pytest.raises(OSError, match="No space left"):
        first.flush()
    assert [name for name in shared.names("artifacts") if "/training/" in name]


def test_what_a_dead_machine_had_not_sent_is_sent_by_the_next_who_finds_it_here(
    base: Path, tmp_path: Path, second: Store, shared: Remote, data: Conversations
) -> None:
    key = build([DROP], base, Store(tmp_path / "first"), data).artifact.key  # no second home yet
    again = Store(tmp_path / "first", files=shared)
    assert again.get(key) is not None
    again.flush()
    assert second.get(key) is not None


def test_a_refusal_is_known_to_all(
    base: Path, first: Store, second: Store, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: DropLayers, source: Path, target: Path, context: StepContext) -> None:
        raise Infeasible("of no use")

    with monkeypatch.context() as patched:
        patched.setattr(DropLayers, "run", refuse)
        with pytest.raises(Infeasible, match="of no use"):
            build([DROP], base, first, data)
    first.flush()
    with pytest.raises(Infeasible, match="of no use"):
        build([DROP], base, second, data)


def test_a_sensitivity_table_is_made_once(
    base: Path, first: Store, second: Store, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = parse_step({"step": "quantize", "scheme": "W4A16", "sensitive": 1, "calibration_rows": 8})
    build([step], base, first, data)
    first.flush()
    monkeypatch.setattr("compressors.sensitivity.sensitivity", lambda *_: pytest.fail("made again"))
    other = parse_step({"step": "quantize", "scheme": "W4A16", "sensitive": 2, "calibration_rows": 8})
    build([other], base, second, data)


def test_what_keeps_a_file_from_getting_there_is_told_by_flush(
    base: Path, tmp_path: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "first", files=Remote(f"file://{tmp_path}/shared", tries=1))
    store.tables_in()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Remote, "_put", full)
    with pytest.raises(StorageFault, match="No space left on device"):
        build([parse_step({"step": "context", "max_position_embeddings": 128})], base, store, data)
        store.flush()


def test_what_two_machines_make_in_their_own_ways_is_one_for_both(
    first: Store, second: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressors.elsewhere.AGREES", 0.0)
    for store, text in ((first, "one"), (second, "two")):
        path = store.cache / "self" / "rows.jsonl"
        path.parent.mkdir()
        path.write_text(text)
        store.agree(path)
    assert [(store.cache / "self" / "rows.jsonl").read_text() for store in (first, second)] == ["one", "one"]
