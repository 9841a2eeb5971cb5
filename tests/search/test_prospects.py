"""What a recipe could score at best, and that who aims at the score leaves out what could not win."""

import math

import pytest

from cluster.fleet import Fleet
from cluster.kinds import Kind
from evaluation.devices import H100, known_device
from evaluation.reference import MODEL
from search.driver import _gpu_of
from search.findings import _devices
from search.forms import recipes_of
from search.ledger import trials_of
from search.outcome import Outcome
from search.prospects import LENGTH, PERF_AT_BEST, Prospects, prospects_for
from search.recipe import Recipe
from search.searchers import SEARCHERS
from search.searchers.gaussian import STARTUP, Gaussian
from search.target import speed_on
from tests.search.conftest import rung_line
from tests.search.searchers.test_conformance import whole

FASTER = Recipe.of([{"step": "drop_layers", "count": 3}])


def test_the_ceiling_is_the_predicted_speed_beside_whole_quality():
    found = Prospects(MODEL, ["H100"])
    speed = speed_on("H100", FASTER, MODEL).speed_norm
    assert found.ceiling(FASTER) == pytest.approx(0.5 * PERF_AT_BEST + 0.5 * (speed + H100.error + LENGTH))
    assert (
        found.ceiling(FASTER) > found.ceiling(Recipe([])) == pytest.approx(0.5 * (PERF_AT_BEST + H100.error + LENGTH))
    )


def test_the_fastest_device_counts_and_without_one_nothing_is_ruled_out():
    both, one = Prospects(MODEL, ["H100", "L4"]), Prospects(MODEL, ["H100"])
    assert both.ceiling(FASTER) >= one.ceiling(FASTER)
    assert Prospects(MODEL, []).ceiling(FASTER) == math.inf


def test_what_is_foreseen_is_of_the_kind_that_trials_run_on(monkeypatch):
    """By the name that its driver tells: Ray's H100 is of several kinds, at several clocks."""
    fleet = Fleet(None, "cuda", print)
    monkeypatch.setattr("search.driver.gpu_name", lambda: "NVIDIA L4")
    assert known_device(_gpu_of(fleet)) == "L4"  # a Ray of our own, on this machine
    for name, known in (("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", None), ("", None)):
        fleet.kind = Kind("cuda", "H100", name)
        assert known_device(_gpu_of(fleet)) == known


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA L40S", None),
        ("Intel Xeon", None),
    ],
)
def test_a_device_is_known_by_its_whole_name(told, known):
    assert known_device(told) == known


def test_the_outlook_is_the_predicted_score_with_whole_quality():
    found = Prospects(MODEL, ["H100"])
    speed = speed_on("H100", FASTER, MODEL).speed_norm
    assert found.outlook(FASTER) == pytest.approx(0.5 + 0.5 * speed)
    assert found.outlook(Recipe([])) == pytest.approx(0.5)
    assert Prospects(MODEL, []).outlook(FASTER) == 0.0


def test_only_on_the_target_is_anything_foreseen(space):
    aimed = space.model_copy(update={"target": "L4"})
    assert prospects_for(aimed, MODEL, ["L4"]) is not None
    for other, at_hand in ((space, ["L4"]), (aimed, ["H100"]), (aimed, ["L4", "H100"]), (aimed, [])):
        assert prospects_for(other, MODEL, at_hand) is None
    assert prospects_for(aimed.model_copy(update={"thinking": True}), MODEL, ["L4"]) is None


def test_a_model_of_scores_begins_with_the_outlook(space):
    """Where scores are what was foreseen, the best is proposed as soon as the model speaks."""
    known = whole(space)
    wanted = Recipe.of([{"step": "drop_layers", "count": 3}, {"step": "quantize", "scheme": "W8A8"}])
    proposer = Gaussian(known)
    proposer.outlook = lambda recipe: 0.5 + 0.2 * (recipe == wanted)
    for recipe in [one for one in recipes_of(known) if one != wanted][:STARTUP]:
        proposer.tell(recipe, Outcome(status="finished", rung=2, score=0.5))
    assert proposer.propose() == wanted


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_what_cannot_win_is_left_out_by_those_that_aim_at_the_score(name, space):
    proposer = SEARCHERS[name](space.model_copy(update={"seeds": ()}))
    proposer.ceiling = lambda recipe: 0.4 if any(step.step == "drop_layers" for step in recipe.steps) else 0.9
    proposer.tell(Recipe.of([{"step": "quantize", "scheme": "W8A8"}]), Outcome(status="finished", rung=2, score=0.6))
    found = [recipe for recipe in (proposer.propose() for _ in range(12)) if recipe is not None]
    dropped = [recipe for recipe in found if any(step.step == "drop_layers" for step in recipe.steps)]
    assert bool(dropped) == (not proposer.aims_at_score)


def test_no_ceiling_lies_below_what_was_measured():
    """Variants of EXAONE's shape on an H100, with quality kept whole."""
    from evaluation.roofline import predict
    from evaluation.roofline_table import BASE, MEASURED, known
    from evaluation.score import combine

    measured = {one.name: one for one in MEASURED}
    base = measured.pop(BASE)
    for one in measured.values():
        told = predict(one.model, base.model, one.workload, known("H100")).speed_norm
        assert combine(1.0, 1 - one.seconds / base.seconds) < combine(PERF_AT_BEST, told + H100.error + LENGTH)


def test_what_trials_were_measured_on_is_read_off_the_ledger():
    lines = [rung_line(f"t00{number}", 2, 0.6) | {"device": name} for number, name in enumerate(["NVIDIA L4", "Xeon"])]
    first, both = trials_of(lines[:1]).values(), trials_of(lines).values()
    assert _devices(list(first)) == {"L4"}
    assert _devices(list(both)) == {"L4", None}
