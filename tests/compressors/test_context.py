"""A shorter window: one number changes, everything else stays, after quantization too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from compressors.build import build
from compressors.context import Context
from compressors.shape import check_recipe
from compressors.step import Conversations, EngineTraits, Infeasible
from compressors.steps import parse_step
from compressors.store import Store
from tests.shapes import EXAONE


def test_only_the_window_changes_also_after_quantization(base: Path, tmp_path: Path, data: Conversations) -> None:
    quantize = parse_step({"step": "quantize", "scheme": "W8A8"})
    store = Store(tmp_path)
    before = build([quantize], base, store, data).artifact.folder
    after = build([quantize, Context(max_position_embeddings=256)], base, store, data).artifact.folder
    was, now = (json.loads((folder / "config.json").read_text()) for folder in (before, after))
    assert now.pop("max_position_embeddings") == 256
    assert was.pop("max_position_embeddings") == 1024
    assert was == now
    for path in before.iterdir():
        if path.name not in ("config.json", "provenance.json"):
            assert (after / path.name).read_bytes() == path.read_bytes()


def test_a_missing_original_length_is_written_before_it_shrinks(tmp_path: Path, base: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    config = json.loads((base / "config.json").read_text())
    del config["rope_parameters"]["original_max_position_embeddings"]
    (source / "config.json").write_text(json.dumps(config))
    Context(max_position_embeddings=128).run(source, target, None)  # type: ignore[arg-type] - it needs no context
    written = json.loads((target / "config.json").read_text())
    assert written["rope_parameters"]["original_max_position_embeddings"] == 1024
    assert written["rope_scaling"]["original_max_position_embeddings"] == 1024


@pytest.mark.parametrize("named", ["type", "rope_type"])
def test_yarn_by_either_name_keeps_its_original_length(tmp_path: Path, base: Path, named: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    config = json.loads((base / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 1e6, "rope_scaling": {named: "yarn", "factor": 4.0}}
    (source / "config.json").write_text(json.dumps(config))
    Context(max_position_embeddings=128).run(source, target, None)  # type: ignore[arg-type] - it needs no context
    written = json.loads((target / "config.json").read_text())
    for rope in (written["rope_parameters"], written["rope_scaling"]):
        assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("yarn", 4.0, 1024)


def test_a_users_own_files_are_copied_and_the_stores_are_shared(
    base: Path, tmp_path: Path, data: Conversations
) -> None:
    mine, store = tmp_path / "mine", Store(tmp_path / "store")
    shutil.copytree(base, mine)
    steps = [Context(max_position_embeddings=512), Context(max_position_embeddings=256)]
    first, second = (build(steps[:count], mine, store, data).artifact for count in (1, 2))
    weights = mine / "model.safetensors"
    kept = weights.read_bytes()
    with weights.open("r+b") as file:  # what cp, rsync --inplace and some savers do
        file.write(b"another model")
    assert (first.folder / weights.name).read_bytes() == kept
    assert store.verify(first.key) and store.verify(second.key)
    assert (first.folder / weights.name).samefile(second.folder / weights.name)


@pytest.mark.parametrize(("positions", "reason"), [(4096, "more than the model's 1024"), (100, "less than 128")])
def test_refusals_are_remembered(base: Path, tmp_path: Path, data: Conversations, positions: int, reason: str) -> None:
    store = Store(tmp_path)
    for _ in range(2):
        with pytest.raises(Infeasible, match=reason):
            build([Context(max_position_embeddings=positions)], base, store, data)
    assert len(list((tmp_path / "infeasible").iterdir())) == 1
    assert not list((tmp_path / "artifacts").iterdir())


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        (16384, None),
        (32768, None),
        (65536, None),
        (20000, "with max_gen_toks 16384 prompts are cut to 3616 tokens; 16384 and 32768 or more are safe"),
        (32767, "prompts are cut to 16383 tokens"),
        (8192, "no prompt is left whole"),
    ],
)
def test_a_window_that_makes_the_harness_cut_prompts_is_refused(
    positions: int, reason: str | None, engine: EngineTraits
) -> None:
    check_recipe([Context(max_position_embeddings=positions)], EXAONE, engine)  # nobody has said what is asked for
    step = Context(max_position_embeddings=positions, max_gen_toks=16384)
    if reason is None:
        check_recipe([step], EXAONE, engine)
    else:
        with pytest.raises(Infeasible, match=reason):
            check_recipe([step], EXAONE, engine)
