"""What people read: the leader, its ties, and nothing that the ledger does not say."""

import csv
import json
import re

import pytest

from search.folder_lock import only_driver
from search.home import VERDICT
from search.job import Job
from search.ledger import Ledger
from search.picture import figure
from search.report import in_order, row_of, status_of, who_works, write_report
from search.verify import pending
from tests.search.conftest import end_line, rung_line

DROP = [{"step": "drop_layers", "count": 1}]


@pytest.fixture
def job(tmp_path, space):
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path / "store", space=space, device="cpu", trials=6)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for event in [
        rung_line("t000", 0, 0.70), rung_line("t000", 2, 0.60), end_line("t000", "finished"),
        rung_line("t001", 2, 0.63, DROP), end_line("t001", "finished", DROP),
        rung_line("t002", 2, 0.62), end_line("t002", "finished"),
        rung_line("t003", 0, 0.90), end_line("t003", "stopped", reason="not among the best at rung 1"),
        end_line("t004", "infeasible", reason="no <kernel> for | W4A16"),
        rung_line("t005", 1, 0.5),
    ]:  # fmt: skip
        ledger.append(event)
    return job


def test_the_best_is_the_best_of_those_measured_in_full(job):
    told = status_of(job)
    assert told["best"]["trial"] == "t001"
    assert told["ties"] == ["t002"]  # its interval reaches into the leader's; t000's does not
    assert told["counts"] == {"finished": 3, "stopped": 1, "infeasible": 1, "running": 1}
    assert (told["steps_built"], told["steps_from_store"]) == (6, 0)


def test_who_leads_without_the_highest_score_is_told_why(job):
    assert "all timings" not in status_of(job)["text"]
    job.ledger().append({"event": "judged", "values": {"t001": 0.60, "t002": 0.615, "t000": 0.59}})
    told = status_of(job)
    assert (told["best"]["trial"], told["best"]["score"], told["best"]["judged"]) == ("t002", 0.62, 0.615)
    assert (
        "judged as 0.6150, the score with the speed that all timings tell together; t001 measured 0.6300, and by that "
        "comes to 0.6000" in told["text"]
    )
    assert [trial.name for trial in in_order(job)[:3]] == ["t002", "t001", "t000"]
    assert row_of(in_order(job)[0], job.last_rung)["judged"] == 0.615
    _, text, page = write_report(job)
    assert "| trial | status | rung | score | 95 % | judged |" in text.read_text()
    assert re.search(r"\| t002 \| finished \| 1/3 \| 0.6200 \| [\d. –]+ \| 0.6150 \|", text.read_text())
    assert re.search(r"<td>0.6200</td><td>[^<]+</td><td>0.6150</td>", page.read_text())


def test_who_was_interrupted_is_told_what_to_do_next(job):
    assert status_of(job)["open"] == ["t005"]
    assert f"interrupted, open trials: 1; go on with `squeeze resume {job.run}`" in status_of(job)["text"]
    assert "6 of 6 trials: 3 finished, 1 infeasible, 1 open, 1 stopped" in status_of(job)["text"]
    with only_driver(job.run):
        assert status_of(job)["working"]
        assert "interrupted" not in status_of(job)["text"]


def test_whether_anybody_is_at_work_is_told(tmp_path, space):
    """A driver that died before its first trial leaves no open one."""
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path / "store", space=space, device="cpu", trials=6)
    idle = f"nobody is at work on it: `squeeze resume {tmp_path}` goes on with what is left to do"
    assert who_works(job, status_of(job)) == [idle]
    with only_driver(job.run):
        assert who_works(job, status_of(job)) == ["a driver is at work on it"]
    pending(tmp_path / "submit.zip")  # as of a driver that died while it verified
    assert who_works(job, status_of(job)) == [idle]
    (tmp_path / VERDICT).write_text(json.dumps({"agrees": True}))
    assert who_works(job, status_of(job)) == []


def test_full_measurements_stand_first(job):
    assert [trial.name for trial in in_order(job)] == ["t001", "t002", "t000", "t003", "t005", "t004"]


def test_every_trial_is_in_every_form(job):
    table, text, page = write_report(job)
    rows = list(csv.DictReader(table.open()))
    assert [row["trial"] for row in rows] == ["t001", "t002", "t000", "t003", "t005", "t004"]
    assert float(rows[0]["score"]) == 0.63
    assert rows[5]["score"] == ""
    assert "no <kernel> for \\| W4A16" in text.read_text()
    assert "no &lt;kernel&gt; for | W4A16" in page.read_text()
    assert "processor seconds" in page.read_text()


def test_the_picture_has_a_point_for_each_measured_trial(job):
    points = {
        name: (x, y)
        for trace in figure(in_order(job), 2).data
        if trace.text is not None
        for name, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    }
    assert points.keys() == {"t000", "t001", "t002", "t003", "t005"}
    assert points["t001"] == (pytest.approx(0.26), 1.0)


def test_a_run_without_results_can_be_looked_at(tmp_path, space):
    job = Job(base=tmp_path, base_key="0", run=tmp_path, store=tmp_path / "store", space=space, device="cpu", trials=6)
    assert status_of(job)["best"] is None
    assert len(write_report(job)) == 3
