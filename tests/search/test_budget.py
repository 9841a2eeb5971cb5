"""When a search begins no more trials."""

import pytest

from search.budget import Budget, Patience
from search.ledger import trials_of
from search.outcome import Outcome
from tests.search.conftest import end_line, rung_line


def finished(score):
    return Outcome(status="finished", rung=2, score=score)


def test_a_trial_on_two_gpus_takes_two_device_hours_an_hour():
    line = rung_line("t0", 0, 0.5, stages=[], measuring_seconds=1800.0)
    for devices, over in ((1, ""), (2, "1.00 of 1 device hours are spent")):
        budget = Budget(99, device_hours=1.0, devices=devices)
        budget.spend(line)
        assert budget.over() == over


def test_waiting_holds_a_device_and_is_no_price_of_the_recipe():
    stages = [
        {"step": "drop_layers", "key": "0", "cached": True, "seconds": 600.0},  # another worker was building it
        {"step": "quantize", "key": "1", "cached": False, "seconds": 300.0},
    ]
    line = rung_line("t0", 2, 0.5, stages=stages, data_seconds=1800.0, measuring_seconds=900.0)
    budget = Budget(99)
    budget.spend(line)
    assert budget.seconds == 3600
    assert Outcome.of("finished", line).seconds == 1200


def test_trials_are_counted_as_they_begin():
    budget = Budget(2)
    assert budget.over() == ""
    budget.begun += 2
    assert budget.over() == "2 trials were begun"


@pytest.mark.parametrize(
    ("scores", "gain", "over"),
    [
        ([0.5, 0.4, 0.45], 0.0, False),
        ([0.5, 0.4, 0.45, 0.5], 0.0, True),  # as good is no gain
        ([0.5, 0.4, 0.45, 0.51], 0.0, False),
        ([0.5, 0.4, 0.45, 0.51], 0.02, True),
        ([0.5, 0.505, 0.51, 0.515, 0.53], 0.02, False),  # small gains add up
    ],
)
def test_it_ends_after_so_many_without_a_gain(scores, gain, over):
    budget = Budget(99, patience=Patience(trials=3, gain=gain))
    for score in scores:
        budget.end(finished(score))
    assert bool(budget.over()) == over


def test_what_was_stopped_is_no_gain_and_what_failed_no_sign():
    budget = Budget(99, patience=Patience(trials=2))
    budget.end(finished(0.5))
    budget.end(Outcome(status="failed"))
    budget.end(Outcome(status="infeasible"))
    assert budget.over() == ""
    budget.end(Outcome(status="stopped", rung=0, score=0.99))
    budget.end(Outcome(status="stopped", rung=0, score=0.99))
    assert budget.over() == "no gain in 2 trials"


def test_what_was_spent_in_vain_is_spent():
    """Here and in an earlier sitting; a ledger that does not tell was written by an earlier version."""
    vain = end_line("t000", "failed") | {"in_vain": 1800.0}
    budget = Budget(99, device_hours=1.0, history=trials_of([vain, end_line("t001", "failed")]).values(), devices=2)
    assert budget.over() == "1.00 of 1 device hours are spent"
    now = Budget(99, device_hours=1.0)
    now.waste(3600.0)
    assert now.over()


def test_an_earlier_sitting_counts():
    lines = [rung_line("t000", rung, 0.5, measuring_seconds=1800.0, stages=[]) for rung in range(3)]
    lines += [end_line("t000", "finished"), end_line("t003", "infeasible")]
    records = list(trials_of(lines).values())
    assert Budget(2, history=records).over() == "2 trials were begun"
    assert Budget(9, device_hours=1.5, history=records).over() == "1.50 of 1.5 device hours are spent"
    assert Budget(9, device_hours=1.6, history=records).over() == ""
    assert Budget(9, history=records).best == 0.5


def test_patience_goes_on_where_the_last_sitting_left_it():
    lines = [rung_line("t000", 0, 0.5)]
    for name in ("t001", "t002"):
        lines += [rung_line(name, 0, 0.4), end_line(name, "stopped")]
    lines += [rung_line("t000", 2, 0.6), end_line("t000", "finished"), rung_line("t003", 0, 0.4)]
    lines += [end_line("t003", "stopped")]
    assert Budget(9, patience=Patience(trials=3), history=trials_of(lines).values()).since == 1
