"""The finals with Ray Tune and the driver as they are; only the bench, and so the engines, is a toy."""

import os
import signal
import time
from pathlib import Path

import pytest
import ray

from cluster.storage import StorageFault
from evaluation.health import ModelFault
from evaluation.reference import MODEL
from search.driver import run
from search.errors import RunFailed
from search.job import Job
from search.ledger import Ledger, trials_of
from search.recipe import Recipe
from search.trial import Trial
from tests.search.conftest import end_line, rung_line

FIRST = {"t000": 0.60, "t001": 0.70, "t002": 0.65, "t003": 0.50}
RECIPES = {name: [{"step": "drop_layers", "count": 1 + n % 3}, *[{"step": "quantize", "scheme": "W8A8"}] * (n > 2)]
           for n, name in enumerate(FIRST)}  # fmt: skip
AGAIN = {"t000": 0.61, "t001": 0.55, "t002": "NaN"}  # t001 falls behind, t002 is broken


class ToyBench:
    """Says what was asked of it in `work.txt` of the run folder; its answers are one file a folder."""

    def __init__(self, job, driver):
        self.job, self.driver = job, driver
        self.write("worker")

    def keep_answers(self, folder="answers"):
        self.folder = folder

    def rung(self, recipe, number):
        self.write(f"{self.folder} {number}")
        plan = (self.job.run / "plan").read_text()
        if plan == "interrupt":
            os.kill(self.driver, signal.SIGINT)
            time.sleep(30)
        if plan == "die":
            os._exit(1)
        if plan == "outage":
            raise StorageFault("s3://bucket cannot be used")
        if plan == "wait":  # until another one works, too
            end = time.monotonic() + 120
            while len(set(self.at_work())) < 2 and time.monotonic() < end:
                time.sleep(0.1)
        if self.folder == "answers":
            return self.line(recipe, number, 0.3)
        name = next(name for name, steps in RECIPES.items() if Recipe.of(steps) == recipe)
        if AGAIN[name] == "NaN":
            raise ModelFault("NaN")
        return self.line(recipe, number, AGAIN[name])

    def line(self, recipe, number, score):
        line = rung_line("", number, score, recipe.to_list())
        return {key: value for key, value in line.items() if key != "trial"}

    def write(self, text):
        with (self.job.run / "work.txt").open("a") as out:
            out.write(f"{text} by {os.getpid()}\n")

    def at_work(self):
        """Processes that measure or did."""
        return [line.split()[-1] for line in (self.job.run / "work.txt").read_text().splitlines() if line[0] == "a"]

    def close(self):
        pass


class ToyTrial(Trial):
    def setup(self, config, **given):
        self.job, self.history = given["job"], given["history"]
        self.bench = ToyBench(self.job, int((self.job.run / "driver").read_text()))
        self._begin(config)


@pytest.fixture
def job(space, tmp_path, monkeypatch):
    """Four trials have ended, none of the best was measured again; `trials` allows for one more."""
    monkeypatch.setattr("search.trial.Trial", ToyTrial)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "driver").write_text(str(os.getpid()))
    for name, score in FIRST.items():
        Ledger(folder / "ledger.jsonl").append(rung_line(name, 2, score, RECIPES[name]))
        Ledger(folder / "ledger.jsonl").append(end_line(name, "finished", RECIPES[name]))
    plan(folder)
    return Job(
        base=Path(MODEL), base_key="0", run=folder, store=folder / "store", trials=5, device="cpu",
        space=space.model_copy(update={"finalists": 2}),
    )  # fmt: skip


def plan(folder, text=""):
    (folder / "plan").write_text(text)
    (folder / "work.txt").write_text("")


def heard(job):
    """The ledger's lines after those that were there at first, in short; and what the workers did.

    Without the last words on who is ranked how, which follow them.
    """
    lines = Ledger(job.run / "ledger.jsonl").read()[2 * len(FIRST) :]
    lines = [line for line in lines if line["event"] != "judged"]
    work = [line.split(" by ")[0] for line in (job.run / "work.txt").read_text().splitlines()]
    return [(line["event"], line["trial"], line.get("status", line.get("score"))) for line in lines], work


def judged(job):
    """Trials of which the ledger says what they are ranked by."""
    known = trials_of(Ledger(job.run / "ledger.jsonl").read())
    return {name for name, one in known.items() if one.judged is not None}


FINALS = [("again", "t001", 0.55), ("end", "t002", "failed"), ("again", "t000", 0.61)]


def test_an_interrupted_search_measures_nobody_again_and_a_resumed_one_does_on_its_warm_worker(job):
    plan(job.run, "interrupt")
    with pytest.raises(RunFailed, match="interrupted"):
        run(job, quiet=True)
    assert heard(job) == ([], ["worker", "answers 0"])
    assert judged(job) == set(FIRST)  # it may be exported as it is
    assert not ray.is_initialized()  # it holds no device

    plan(job.run)
    trials = run(job, quiet=True)
    told, work = heard(job)
    rungs = [("rung", "t004", 0.3)] * 3
    assert told == [*rungs, ("end", "t004", "finished"), *FINALS]
    assert work == ["worker", *(f"answers {number}" for number in range(3)), *["answers-again 2"] * 3]
    assert [trial.name for trial in trials] == [*FIRST, "t004"]
    known = trials_of(Ledger(job.run / "ledger.jsonl").read())
    assert known["t002"].end["reason"] == "measured again: ModelFault: NaN"
    assert judged(job) == {*FIRST, "t004"} - {"t002"}
    assert known["t001"].line["score"] == 0.55


def test_a_search_whose_hours_are_over_measures_the_best_again_all_the_same(job):
    """Its trials were ended by Tune: a resumed search goes on with them."""
    run(job.model_copy(update={"hours": 1e-6}), quiet=True)
    told, work = heard(job)
    assert told == FINALS
    assert work.count("answers-again 2") == 3
    assert judged(job) == {"t000", "t001", "t003"}
    assert not ray.is_initialized()


def test_a_search_that_measures_nobody_again_says_how_they_are_ranked_all_the_same(job):
    run(job.model_copy(update={"space": job.space.model_copy(update={"finalists": 0})}), quiet=True)
    told, work = heard(job)
    assert told == [*[("rung", "t004", 0.3)] * 3, ("end", "t004", "finished")]
    assert "answers-again 2" not in work
    assert judged(job) == {*FIRST, "t004"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one worker at most")
def test_finals_that_were_left_are_all_that_is_done_and_on_several_workers_at_once(job, monkeypatch):
    monkeypatch.setattr("search.driver.trial_resources", lambda *_: {"CPU": 1.0})
    plan(job.run, "wait")
    run(job.model_copy(update={"trials": 4}), quiet=True)
    told, work = heard(job)
    assert sorted(told) == sorted(FINALS)
    assert sorted(work) == [*["answers-again 2"] * 3, "worker", "worker"]


def test_a_worker_that_dies_is_no_models_fault(job, monkeypatch, capsys):
    """Tune tries once more on a fresh one; then the first measurements stand, and the search is done."""
    plan(job.run, "die")
    trials = run(job.model_copy(update={"trials": 4}))
    told, work = heard(job)
    assert told == []
    assert work == ["worker", "answers-again 2"] * 2
    assert {one.name: one.line["score"] for one in trials} == FIRST
    assert "t001 could not be measured again, so first measurements stand: its process ended" in capsys.readouterr().err


@pytest.mark.parametrize("trials", [4, 5], ids=["finals", "trials"])
def test_while_its_place_is_out_of_reach_nobody_fails_and_a_resumed_search_goes_on(job, trials, capsys, monkeypatch):
    monkeypatch.setattr("search.setbacks.LASTS", 5.0)
    monkeypatch.setattr("cluster.fleet.AGAIN", 2.0)  # the only node is left out for a while
    job = job.model_copy(update={"trials": trials})
    plan(job.run, "outage")
    with pytest.raises(RunFailed, match=r"s3://bucket cannot be used.*go on with `squeeze resume"):
        run(job)
    told, work = heard(job)
    assert told == []
    assert work.count("worker") > 1
    assert "was out of reach; it is tried again" in capsys.readouterr().err
    assert not ray.is_initialized()

    plan(job.run)
    run(job, quiet=True)
    assert heard(job)[0][-len(FINALS) :] == FINALS
