"""What a search teaches, on records whose lessons are known."""

import itertools

import pytest

from evaluation.reference import MODEL
from search.costs import costs_of
from search.findings import findings
from search.insight import bests, front, mattered, next_recipes
from search.job import Job
from search.ledger import trials_of
from search.recipe import Recipe
from search.searchers.proposer import always
from tests.search.conftest import end_line, rung_line


def steps(count, scheme):
    drop = [{"step": "drop_layers", "count": count}] if count else []
    return drop + ([{"step": "quantize", "scheme": scheme}] if scheme else [])


def records(rung=2, recipes=8):
    """Scores that the scheme moves by 0.2 and a layer by 0.01."""
    found = []
    grid = itertools.product((0, 1, 2, 3), (None, "W8A8", "W4A16"))
    for number, (count, scheme) in enumerate(list(grid)[1 : recipes + 1]):
        score = 0.4 + 0.01 * count + {None: 0.0, "W8A8": 0.2, "W4A16": 0.1}[scheme]
        told = {"perf_norm": 1 - 0.1 * count, "size_bytes": 1000 - 10 * count}
        recipe = steps(count, scheme)
        found += [rung_line(f"t{number:03d}", one, score - (2 - one), recipe, **told) for one in range(rung + 1)]
        found.append(end_line(f"t{number:03d}", "finished" if rung == 2 else "stopped", recipe))
    return list(trials_of(found).values())


def test_the_front_holds_those_that_nobody_beats_in_all():
    told = [(0.9, 0.1, 100), (0.8, 0.2, 100), (0.8, 0.1, 90), (0.8, 0.1, 100), (0.7, 0.3, 200), (0.7, 0.2, 110)]
    lines = []
    for number, (quality, speed, size) in enumerate(told):
        line = rung_line(f"t{number}", 2, (quality + speed) / 2, perf_norm=quality, size_bytes=size)
        lines += [line | {"speed_norm": speed}, end_line(f"t{number}", "finished")]
    trials = list(trials_of(lines).values())
    assert {trial.name for trial in front(trials, 2)} == {"t0", "t1", "t2", "t4"}
    assert {how: trial.name for how, trial in bests(trials, 2).items()} == {
        "score": "t0", "quality": "t0", "size": "t2", "speed": "t4",
    }  # fmt: skip
    assert front(trials, 3) == []
    assert bests(trials, 3) == {}


def test_what_moves_the_score_most_is_said_to_matter_most(space):
    found = mattered(space, records(recipes=11))
    assert (found.rung, found.trials) == (2, 11)
    assert max(found.shares, key=found.shares.get) in {"quantize.scheme", "quantize.use"}
    together = found.shares["quantize.scheme"] + found.shares["quantize.use"]
    assert together > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)


def test_it_is_read_at_the_highest_rung_with_enough_recipes(space):
    few = records(recipes=3)
    many = [trial for trial in records(rung=0, recipes=11) if trial.name not in {one.name for one in few}]
    assert mattered(space, few + many).rung == 0
    assert mattered(space, few) is None


def test_next_are_recipes_that_were_not_tried(space):
    trials = records(recipes=11)
    found = next_recipes(space, trials, 0, always)
    assert len(set(found)) == 3
    assert not {recipe.hash for recipe in found} & {Recipe.of(trial.recipe).hash for trial in trials}


def test_costs_count_what_held_a_device_waiting_for_the_store_and_the_conversations_included():
    stages = [
        {"step": "drop_layers", "seconds": 2.0, "cached": True},
        {"step": "quantize", "seconds": 3.0, "cached": False},
    ]
    lines = [rung_line("t0", rung, 0.5, stages=stages, measuring_seconds=20.0, data_seconds=5.0 * (1 - rung))
             for rung in (0, 1)]  # fmt: skip
    again = rung_line("t0", 2, 0.5, stages=[], measuring_seconds=32.0) | {"event": "again"}
    found = costs_of(trials_of([*lines, again]).values(), price=36.0)
    assert [(one.stage, one.times, one.seconds, one.money) for one in found] == [
        ("measuring", 3, 72.0, pytest.approx(0.72)),
        ("quantize", 2, 6.0, pytest.approx(0.06)),
        ("conversations", 1, 5.0, pytest.approx(0.05)),
        ("from the store", 2, 4.0, pytest.approx(0.04)),
    ]
    vain = end_line("t009", "failed") | {"in_vain": 100.0}
    dearest = costs_of(trials_of([*lines, again, vain]).values(), price=36.0, devices=2)[0]
    assert (dearest.stage, dearest.times, dearest.seconds) == ("in vain", 1, 200.0)
    assert costs_of(trials_of(lines).values(), None)[0].money is None
    both = costs_of(trials_of(lines).values(), price=36.0, devices=2)[0]
    assert (both.seconds, both.money) == (80.0, pytest.approx(0.8))


def test_findings_are_told_once_there_is_a_full_measurement(tmp_path, space):
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path, space=space, device="cpu", trials=6)
    assert findings(job, records(rung=1)) == []
    text = "\n".join(findings(job, records(recipes=11)))
    for part in (
        "best by score: t",
        "best by size: t",
        "quality, speed and size at once",
        "(fANOVA): quantize",
        "it took",
    ):
        assert part in text


def test_a_report_is_written_where_the_engine_is_not(tmp_path, space, monkeypatch):
    monkeypatch.setenv("SQUEEZE_CONTEST_PYTHON", str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text((MODEL / "config.json").read_text())
    told = space.model_copy(update={"engine": "contest"})
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path, space=told, device="cpu", trials=6)
    assert "gp would try next: " in findings(job, records(recipes=11))[-1]  # the contest's table is known without it
