"""The recorded table: what a recording holds becomes rows, and a file, and rows again."""

import json

import pytest
import typer

from search.errors import BadInput
from search.forms import recipes_of
from search.ledger import Ledger
from search.space_file import load_space
from tests.benchmarks.record_worker import left
from tests.benchmarks.recorded import SPACE, Recording
from tests.benchmarks.table import Table, main, table_of

SMALL = """
steps:
  - {step: drop_layers, count: [1, 2]}
  - {step: distill, optional: true, tokens: [4000, 8000], lr: [1.0e-3, 1.0e-4]}
  - {step: quantize, optional: true, scheme: W8A8}
evaluation:
  benchmarks: {kmmlu_pro: "reference:items/kmmlu_pro.jsonl"}
rungs: [{items: 0.5, tokens: 0.5}, {items: 1.0, tokens: 1.0}]
"""


@pytest.fixture
def recording(tmp_path):
    space = tmp_path / "small.yaml"
    space.write_text(SMALL)
    return Recording.begin(tmp_path / "recording", space)


def measured(recipe, rung, **more):
    stages = [
        {"step": step.step, "key": f"{recipe.hash}{number}", "cached": True, "seconds": 0.0, "made_seconds": 7.0,
         "reached": 4000 if step.continues else None, "paid": 2000 if step.continues else None}
        for number, step in enumerate(recipe.steps)
    ]  # fmt: skip
    return {"event": "rung", "recipe": recipe.to_list(), "recipe_hash": recipe.hash, "rung": rung, "score": 0.5 + rung,
            "score_low": 0.4, "score_high": 0.6, "perf_norm": 1.0, "speed_norm": 0.0, "size_bytes": 9, "stages": stages,
            "measuring_seconds": 3.0, "wall": 4.0, "cores": 2, "device": "a processor", "engine": "vllm 1",
            "versions": {"vllm": "1"}} | more  # fmt: skip


def ended(recipe, rung, status="failed"):
    return {"event": "end", "recipe": recipe.to_list(), "recipe_hash": recipe.hash, "rung": rung, "status": status,
            "reason": "why", "wall": 4.0}  # fmt: skip


def test_the_space_has_as_many_recipes_as_a_table_needs():
    assert len(list(recipes_of(load_space(str(SPACE))))) >= 300


def test_a_kept_table_is_whole_and_of_the_space_beside_it():
    table = Table.read()
    assert table.lacking() == []
    assert table.about["space"] == SPACE.read_text(encoding="utf-8")


def test_groups_share_what_takes_longest_and_hold_each_recipe_once(recording):
    groups = recording.groups()
    assert sorted(recipe.hash for group in groups.values() for recipe in group) == sorted(
        recipe.hash for recipe in recording.recipes
    )
    for group in groups.values():
        trained = [step.tokens for recipe in group for step in recipe.steps if step.continues]
        assert trained == sorted(trained)
        assert len({step.lr for recipe in group for step in recipe.steps if step.continues}) <= 1


def test_a_recording_goes_on_where_it_stopped_whoever_did_the_rest(recording):
    first, second, third, *others = recording.recipes
    Ledger(recording.folder / "worker-0.jsonl").append(measured(first, 0))
    Ledger(recording.folder / "worker-7.jsonl").append(measured(second, 0))
    Ledger(recording.folder / "worker-7.jsonl").append(measured(second, 1))
    Ledger(recording.folder / "worker-1.jsonl").append(ended(third, 0))
    known = recording.known()
    assert recording.next_rung(known[first.hash]) == 1
    assert recording.next_rung(known[second.hash]) is None
    assert recording.next_rung(known[third.hash]) is None
    taken = []
    for recipe in left(recording):  # as a worker does
        taken.append(recipe.hash)
        for rung in range(recording.rungs):
            Ledger(recording.folder / "worker-2.jsonl").append(measured(recipe, rung))
    assert sorted(taken) == sorted(recipe.hash for recipe in (first, *others))


def test_what_failed_is_tried_again_where_asked(recording):
    first, second, *_ = recording.recipes
    ledger = Ledger(recording.folder / "worker-0.jsonl")
    for line in (measured(first, 0), ended(first, 1), ended(second, 0, "infeasible")):
        ledger.append(line)
    recording.forget_failed()
    known = recording.known()
    assert recording.next_rung(known[first.hash]) == 1
    assert recording.next_rung(known[second.hash]) is None


def test_nobody_takes_what_another_holds(recording):
    mine = left(recording)
    theirs = left(Recording(recording.folder))
    held = [next(mine), next(theirs), next(mine), next(theirs)]
    assert held[0] != held[1]
    assert held[2] != held[3]
    assert len(set(held[1::2])) == 2


def test_another_space_is_refused_where_one_is_recorded(recording, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(SMALL.replace("count: [1, 2]", "count: [1, 3]"))
    with pytest.raises(BadInput, match="another space"):
        Recording.begin(recording.folder, other)


def test_rows_come_back_from_the_file_as_they_went(recording, tmp_path):
    ledger = Ledger(recording.folder / "worker-0.jsonl")
    broken, *others = recording.recipes
    ledger.append(ended(broken, 0, "infeasible"))
    with pytest.raises(typer.BadParameter, match="lack rungs"):
        main(recording.folder, tmp_path / "table.parquet", partial=False)
    for recipe in others:
        for rung in range(recording.rungs):
            ledger.append(measured(recipe, rung))
    main(recording.folder, tmp_path / "table.parquet", partial=False)
    table, made = Table.read(tmp_path / "table.parquet"), table_of(recording)
    assert table.rows == made.rows
    assert table.about["space"] == SMALL
    assert table.about["machine"] == "a processor, 2 cores a worker"
    assert json.loads(table.about["versions"]) == {"vllm": "1"}
    assert [row.status for row in table.rows[broken.hash]] == ["infeasible"]
    assert table.rows[broken.hash][0].measuring_seconds == 4.0
    assert {stage.seconds for rows in table.rows.values() for row in rows for stage in row.stages} == {7.0}
    assert table.final(broken.hash) is None
    assert table.best == 1.5
