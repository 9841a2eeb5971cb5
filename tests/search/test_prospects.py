"""What a recipe could score at best, and that who aims at the score leaves out what could not win."""

import math

import pytest

from evaluation.devices import H100, known_device
from evaluation.reference import MODEL
from search.outcome import Outcome
from search.prospects import LENGTH, PERF_AT_BEST, Prospects, devices_of
from search.recipe import Recipe
from search.searchers import SEARCHERS
from search.target import speed_on

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


def test_devices_are_read_off_what_ray_counts():
    nodes = [{"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0}, {"CPU": 4.0}]
    assert devices_of(nodes) == ["L4"]
    assert devices_of([*nodes, {"GPU": 1.0, "accelerator_type:T4": 1.0}]) == []
    assert devices_of([*nodes, {"GPU": 1.0}]) == []  # nobody says what it is
    assert devices_of([{"GPU": 1.0, "accelerator_type:H100": 1.0}]) == []  # of several kinds, at several clocks
    assert devices_of([{"CPU": 4.0}]) == []


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
