"""The scheduler that stops: what it tells Ray Tune, and what it remembers."""

from search.schedulers.stopping import Stopping


def result(trial, rung, score, status="running"):
    return {"trial": trial, "rung": rung, "score": score, "status": status}


def test_a_restored_scheduler_judges_as_the_one_before():
    told = [("t0", 0, 0.8), ("t1", 0, 0.7), ("t2", 0, 0.6)]
    first = Stopping(2, last=2)
    for trial, rung, score in told:
        first.on_trial_result(None, None, result(trial, rung, score))
    second = Stopping(2, last=2, history=told)
    for score in (0.5, 0.75, 0.9):
        line = result("t3", 0, score)
        assert first.on_trial_result(None, None, dict(line)) == second.on_trial_result(None, None, dict(line))


def test_it_says_whom_it_stopped():
    scheduler = Stopping(2, last=2)
    scheduler.on_trial_result(None, None, result("t0", 0, 0.8))
    scheduler.on_trial_result(None, None, result("t1", 0, 0.7))
    assert scheduler.on_trial_result(None, None, result("t2", 0, 0.6)) == "STOP"
    assert scheduler.stopped == {"t1", "t2"}


def test_an_infeasible_trial_is_not_among_those_compared():
    scheduler = Stopping(2, last=2)
    scheduler.on_trial_result(None, None, result("t0", 0, 0.0, status="infeasible"))
    assert scheduler.rule.seen == {}


def test_every_result_is_valued_also_one_that_ends_its_trial():
    """Who values results learns from them: a full measurement tells most."""
    valued = []

    def worth(one):
        valued.append(one["rung"])
        return one["score"]

    scheduler = Stopping(2, last=2, worth=worth)
    scheduler.on_trial_result(None, None, result("t0", 0, 0.8))
    scheduler.on_trial_result(None, None, result("t0", 2, 0.8, "finished"))
    scheduler.on_trial_result(None, None, result("t0", 2, 0.7, "finished") | {"again": True})
    assert valued == [0, 2]
