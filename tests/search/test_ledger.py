"""The ledger survives a writer that dies in the middle of a line."""

import json

import pytest

from search.errors import BadInput
from search.ledger import Ledger, ranked, trials_of
from tests.search.conftest import end_line, rung_line


def test_events_come_back_in_order_with_a_time(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(rung_line("t000", 0, 0.6))
    ledger.append(end_line("t000", "stopped"))
    events = ledger.read()
    assert [event["event"] for event in events] == ["rung", "end"]
    assert all(event["time"].endswith("+00:00") for event in events)


def test_a_half_written_line_did_not_happen(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(rung_line("t000", 0, 0.6))
    with ledger.path.open("a") as out:
        out.write(json.dumps(rung_line("t001", 0, 0.7))[:50])
    assert [event["trial"] for event in ledger.read()] == ["t000"]
    ledger.append(rung_line("t002", 0, 0.5))
    assert [event["trial"] for event in ledger.read()] == ["t000", "t002"]


def test_damage_in_the_middle_is_not_passed_over(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"event": "end", "trial"\n' + json.dumps(end_line("t001", "failed")) + "\n")
    with pytest.raises(BadInput, match="line 1"):
        Ledger(path).read()


def test_only_what_was_measured_in_full_is_ranked():
    events = [
        rung_line("t000", 2, 0.6), end_line("t000", "finished"),
        rung_line("t001", 0, 0.9), end_line("t001", "stopped"),
        rung_line("t002", 2, 0.7), end_line("t002", "finished"),
        end_line("t003", "infeasible"),
    ]  # fmt: skip
    trials = trials_of(events)
    assert [trial.name for trial in ranked(trials.values(), last_rung=2)] == ["t002", "t000"]
    assert trials["t003"].last is None
    assert trials["t003"].status == "infeasible"


def test_a_second_measurement_takes_the_place_of_the_first():
    events = [
        rung_line("t000", 2, 0.6), end_line("t000", "finished"),
        rung_line("t001", 2, 0.7), end_line("t001", "finished"),
        rung_line("t001", 2, 0.5) | {"event": "again"},
    ]  # fmt: skip
    trials = trials_of(events)
    assert [trial.name for trial in ranked(trials.values(), last_rung=2)] == ["t000", "t001"]
    assert trials["t001"].rungs[2]["score"] == 0.7
    assert trials["t001"].line["score"] == 0.5
    fallen = trials_of([*events, end_line("t000", "failed", reason="measured again: it never stops")])
    assert [trial.name for trial in ranked(fallen.values(), last_rung=2)] == ["t001"]


def test_those_that_were_judged_are_ranked_by_that():
    events = [
        rung_line("t000", 2, 0.6), end_line("t000", "finished"),
        rung_line("t001", 2, 0.7), end_line("t001", "finished"),
        {"event": "judged", "values": {"t000": 0.61, "t001": 0.58}},
    ]  # fmt: skip
    trials = trials_of(events)
    assert [trial.name for trial in ranked(trials.values(), last_rung=2)] == ["t000", "t001"]
    assert trials["t001"].line["score"] == 0.7  # what was measured stays
    for more in ([rung_line("t001", 2, 0.65) | {"event": "again"}], [rung_line("t002", 0, 0.5)]):
        newer = trials_of([*events, *more])  # all are ranked by one measure: by scores, until they are judged again
        assert [trial.name for trial in ranked(newer.values(), 2)] == ["t001", "t000"]
    by_name = ranked(trials.values(), 2, value=lambda trial: float(trial.name[1:]))
    assert [trial.name for trial in by_name] == ["t001", "t000"]
