"""ASHA's rule against its definition."""

import math

import numpy as np
import pytest

from search.asha import Asha


@pytest.mark.parametrize("eta", [2.0, 3.0, 4.0])
def test_a_trial_goes_on_when_it_is_among_the_best_share_seen_so_far(eta):
    random = np.random.default_rng(0)
    scores = random.random(60)
    rule = Asha(eta, last=2)
    for number, score in enumerate(scores):
        seen = sorted(scores[: number + 1], reverse=True)
        among = score in seen[: math.ceil((number + 1) / eta)]
        assert rule.goes_on(f"t{number}", 0, score) == among


def test_the_last_rung_ends_every_trial():
    assert not Asha(2, last=1).goes_on("t0", 1, 0.9)


def test_rungs_are_judged_apart():
    rule = Asha(2, last=2)
    rule.goes_on("t0", 0, 0.9)
    assert rule.goes_on("t0", 1, 0.5)


def rungs(scores):
    """What was seen: {trial: [score by rung]}."""
    rule = Asha(2, last=2)
    for trial, told in scores.items():
        for rung, score in enumerate(told):
            rule.see(trial, rung, score)
    return rule


@pytest.mark.parametrize(
    ("scores", "waiting", "chosen"),
    [
        ({"a": [0.5]}, "a", None),  # floor(1 / 2)
        ({"a": [0.5], "b": [0.6]}, "ab", "b"),
        ({"a": [0.5], "b": [0.6]}, "a", None),  # the best is on its way
        ({"a": [0.5], "b": [0.6, 0.1], "c": [0.4], "d": [0.55]}, "acd", "d"),
        ({"a": [0.7, 0.3], "b": [0.6, 0.2], "c": [0.4], "d": [0.1]}, "abcd", "a"),  # the higher rung first
        ({"a": [0.7, 0.3, 0.9], "b": [0.6, 0.2], "c": [0.4], "d": [0.1]}, "bcd", None),
    ],
)
def test_who_waits_is_continued_once_among_the_best(scores, waiting, chosen):
    assert rungs(scores).promotable(waiting) == chosen


def test_the_leader_is_the_best_of_the_highest_rung():
    rule = rungs({"a": [0.9], "b": [0.6, 0.1], "c": [0.7, 0.2]})
    assert rule.leader("abc") == "c"
    assert rule.leader("a") == "a"
    assert rule.leader("") is None
