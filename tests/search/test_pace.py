"""Speed learned from all trials, and what a trial is judged by."""

import json

import numpy as np
import pytest

from evaluation.description import description_of
from evaluation.reference import MODEL
from evaluation.score import combine
from search.pace import ONE_PASS, PRECISE, Pace, features_of, spread_of
from search.recipe import Recipe
from search.target import described
from search.worth import Worth

LAYERS = description_of(MODEL).layers


def recipe_of(count=0, scheme=None):
    dropped = [{"step": "drop_layers", "count": count}] if count else []
    return Recipe.of([*dropped, *([{"step": "quantize", "scheme": scheme}] if scheme else [])])


def line_of(trial, recipe, speed, half=0.02, rung=1, **more):
    figures = {"speed_norm": speed, "speed_low": speed - half, "speed_high": speed + half}
    figures |= {"perf_norm": 0.9, "perf_low": 0.8, "perf_high": 1.0, "score": 0.45 + speed / 2}
    return {"trial": trial, "rung": rung, "recipe": recipe.to_list()} | figures | more


def speed_of(count, scheme):
    """What each layer takes, and each of eight bits less."""
    return 0.06 * count + (0.1 * (LAYERS - count) / LAYERS if scheme == "W8A8" else 0.0)


def taught(noise=0.05, trials=40):
    random, pace = np.random.default_rng(0), Pace(MODEL)
    for number in range(trials):
        count, scheme = number % 4, [None, "W8A8"][number // 4 % 2]
        told = speed_of(count, scheme) + random.normal(0, noise)
        pace.learn(line_of(f"t{number:03d}", recipe_of(count, scheme), told, 1.96 * noise))
    return pace


def test_a_noisy_timing_is_told_by_those_that_look_alike():
    pace = taught()
    for count, scheme in ((1, None), (2, "W8A8"), (3, "W8A8")):
        found = pace.speed(line_of("new", recipe_of(count, scheme), speed_of(count, scheme) + 0.15, 0.2))
        assert found == pytest.approx(speed_of(count, scheme), abs=0.04)


def test_a_precise_timing_stands():
    assert taught().speed(line_of("new", recipe_of(1), 0.13, 0.004)) == pytest.approx(0.13, abs=0.005)


def test_who_rambles_is_slow_and_bends_no_line():
    pace = taught()
    assert pace.speed(line_of("new", recipe_of(1), -1.3, 0.2)) == -1.3
    pace.learn(line_of("rambler", recipe_of(1), -1.3, 0.2))
    assert pace.speed(line_of("new", recipe_of(1), 0.2, 0.2)) == pytest.approx(speed_of(1, None), abs=0.04)


def test_alone_a_timing_is_all_there_is():
    line = line_of("t000", recipe_of(1), 0.3)
    pace = Pace(MODEL)
    assert pace.speed(line) == 0.3
    pace.learn(line)
    assert pace.speed(line) == 0.3  # it is no witness for itself


def test_a_trials_highest_rung_counts_and_what_was_predicted_teaches_nothing():
    pace = Pace(MODEL)
    pace.learn(line_of("t000", recipe_of(1), 0.2, rung=2))
    pace.learn(line_of("t000", recipe_of(1), 0.9, rung=1))
    pace.learn(line_of("t001", recipe_of(1), 0.9, speed_by="roofline"))
    assert {name: one.ratio for name, one in pace.timed.items()} == {"t000": pytest.approx(0.8)}


def test_one_pass_does_not_tell_how_sure_it_is():
    assert spread_of(line_of("t", recipe_of(), 0.1, half=0.0)) == ONE_PASS
    assert spread_of(line_of("t", recipe_of(), 0.1, half=1e-6)) == PRECISE


def test_features_are_shares_of_the_bases():
    base = description_of(MODEL)
    assert features_of(base, base) == {"step": 1.0, "layers": 1.0, "ffn": 1.0, "vocab": 1.0}
    model = described(recipe_of(1, "W8A8"), MODEL)
    found = features_of(model, base)
    assert found["layers"] == pytest.approx((LAYERS - 1) / LAYERS)
    assert found["int8 8"] == pytest.approx(found["layers"])


def test_few_answers_are_weighed_with_what_likelihood_said():
    worth = Worth(Pace(MODEL), 2)
    near = line_of("t000", recipe_of(1), 0.1, 0.004, rung=0, perf_by="likelihood", perf_norm=0.98)
    few = line_of("t000", recipe_of(1), 0.1, 0.004, rung=1, perf_norm=0.8, perf_low=0.6, perf_high=1.0)
    assert worth.of_line(few) == pytest.approx(0.45)
    worth.learn(near)
    assert worth.of_line(near) == pytest.approx(0.54)
    assert 0.49 < worth.of_line(few) < 0.54  # the answers were few
    many = few | {"perf_low": 0.795, "perf_high": 0.805}
    assert worth.of_line(many) == pytest.approx(0.45, abs=0.005)


def test_the_answers_of_a_full_measurement_stand_as_they_are():
    worth = Worth(Pace(MODEL), 2)
    worth.learn(line_of("t000", recipe_of(1), 0.1, 0.004, rung=0, perf_by="likelihood", perf_norm=0.98))
    few = {"perf_norm": 0.8, "perf_low": 0.6, "perf_high": 1.0}
    assert worth.of_line(line_of("t000", recipe_of(1), 0.1, 0.004, rung=2, **few)) == pytest.approx(0.45)


def test_results_are_learned_from_as_they_come():
    worth = Worth(Pace(MODEL), 2)
    line = line_of("t000", recipe_of(1), 0.1)
    told = {"score": 0.5, "event": json.dumps(line)}
    assert worth.of_result(told) == worth.of_line(line)
    assert set(worth.pace.timed) == {"t000"}
    assert worth.of_result({"score": 0.0, "event": ""}) == 0.0


def test_in_full_a_lucky_timing_does_not_lead():
    """Two of the same shape and quality: one timed luckily, both with an interval that says how little that tells."""
    pace = taught()
    worth = Worth(pace, 2)
    lines = {
        "lucky": line_of("lucky", recipe_of(2, "W8A8"), speed_of(2, "W8A8") + 0.08, 0.08, rung=2),
        "better": line_of("better", recipe_of(2, "W8A8"), speed_of(2, "W8A8"), 0.08, rung=2, perf_norm=0.93),
    }
    for line in lines.values():
        worth.learn(line)
    assert as_measured(lines["lucky"]) > as_measured(lines["better"])
    assert worth.of_line(lines["better"]) > worth.of_line(lines["lucky"])
    precise = lines["lucky"] | {"speed_low": speed_of(2, "W8A8") + 0.079, "speed_high": speed_of(2, "W8A8") + 0.081}
    assert worth.of_line(precise) == pytest.approx(as_measured(precise), abs=0.003)  # a GPU's: it stands as it is


def as_measured(line):
    return combine(line["perf_norm"], line["speed_norm"])
