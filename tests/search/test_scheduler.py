"""ASHA's rule against its definition, and what it remembers."""

import math

import numpy as np
import pytest

from search.scheduler import Asha, RungScheduler


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


def result(trial, rung, score, status="running"):
    return {"trial": trial, "rung": rung, "score": score, "status": status}


def test_a_restored_scheduler_judges_as_the_one_before():
    told = [("t0", 0, 0.8), ("t1", 0, 0.7), ("t2", 0, 0.6)]
    first = RungScheduler(2, last=2)
    for trial, rung, score in told:
        first.on_trial_result(None, None, result(trial, rung, score))
    second = RungScheduler(2, last=2, history=told)
    for score in (0.5, 0.75, 0.9):
        line = result("t3", 0, score)
        assert first.on_trial_result(None, None, dict(line)) == second.on_trial_result(None, None, dict(line))


def test_it_says_whom_it_stopped():
    scheduler = RungScheduler(2, last=2)
    scheduler.on_trial_result(None, None, result("t0", 0, 0.8))
    scheduler.on_trial_result(None, None, result("t1", 0, 0.7))
    assert scheduler.on_trial_result(None, None, result("t2", 0, 0.6)) == "STOP"
    assert scheduler.stopped == {"t1", "t2"}


def test_an_infeasible_trial_is_not_among_those_compared():
    scheduler = RungScheduler(2, last=2)
    scheduler.on_trial_result(None, None, result("t0", 0, 0.0, status="infeasible"))
    assert scheduler.rule.seen == {}
