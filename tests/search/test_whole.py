"""The whole job on real parts: search, killed and resumed, to a verified submission. Each stage is looked at after."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from search.ledger import Ledger, ranked, trials_of
from tests.evaluation.test_engine import wait_gone

pytestmark = pytest.mark.timeout(1500)  # three sittings of a whole search in one fixture
SQUEEZE = str(Path(sys.executable).with_name("squeeze"))
RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
SPACE = """
steps:
  - {step: drop_layers, count: [1, 2]}
  - {step: distill, optional: true, tokens: [20000]}
  - {step: quantize, optional: true, scheme: [W8A8, W4A16]}
  - {step: context, optional: true, max_position_embeddings: [1024]}
  - {step: generation, optional: true, stop: {fixed: STOPS}}
seeds:
  - [{step: drop_layers, count: 1}]
  - [{step: drop_layers, count: 1}, {step: generation, stop: STOPS}]
  - [{step: drop_layers, count: 2}]
  - [{step: drop_layers, count: 2}, {step: distill, tokens: 20000}, {step: quantize, scheme: W8A8},
     {step: context, max_position_embeddings: 1024}]
evaluation:
  limit: 24
  benchmarks:
    kmmlu_redux: reference:items/kmmlu_redux.jsonl
    komt_bench: reference:items/komt_bench.jsonl
calibration: reference:text/calibration.jsonl
rungs: [{items: 0.25, tokens: 0.25}, {items: 0.5, tokens: 0.5}, {items: 1.0, tokens: 1.0}]
eta: 2
passes: 2
timing_seconds: 1
finalists: 2
trials: 5
max_model_len: 1024
""".replace("STOPS", str(list(range(2048))))  # every token ends the answer: a model that says nothing


def children_of(pid):
    """Every process below `pid`."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}
    below, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in below} - below
        below |= more
        grown = bool(more)
    return below - {pid}


def title_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def paid(run):
    """When each artifact was made, for what is done again gets a new time; and every pass that was timed."""
    made = {path: path.stat().st_mtime_ns for path in run.glob("store/artifacts/*/provenance.json")}
    records = {path: json.loads(path.read_text())["content"] for path in run.glob("answers/*/*.json")}
    passes = {
        (path, number): one for path, told in records.items() for number, one in enumerate(told.get("passes", []))
    }
    # seconds tell passes apart: one that is timed again takes others
    return made | {place: (one["seconds"], one["tokens"]) for place, one in passes.items()}


def driver_at(run, words, log, rungs):
    """A driver started with `words`, as soon as its ledger holds `rungs` finished rungs."""
    with log.open("w") as out:
        driver = subprocess.Popen([SQUEEZE, *map(str, words)], stdout=out, stderr=out)
    ledger = Ledger(run / "ledger.jsonl")
    end = time.monotonic() + 400
    while time.monotonic() < end and driver.poll() is None:
        if sum(event["event"] == "rung" for event in ledger.read()) >= rungs:
            break
        time.sleep(0.2)
    assert driver.poll() is None, log.read_text()
    return driver


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """A search that was told to end after its first rung: its run folder and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "space.yaml").write_text(SPACE)
    run, log = folder / "run", folder / "log"
    driver = driver_at(run, ["search", folder / "space.yaml", "--base", "tiny", "--out", run], log, rungs=1)
    driver.terminate()
    assert driver.wait(timeout=120) == 1
    return run, log.read_text()


@pytest.fixture(scope="module")
def killed(terminated, tmp_path_factory):
    """The same search resumed, until its driver got SIGKILL after two finished rungs, and what its ledger said then."""
    run, _ = terminated
    driver = driver_at(run, ["resume", run], tmp_path_factory.mktemp("log") / "log", rungs=2)
    # Ray's two agents of a node notice in about a minute that theirs is gone; everything of ours has seconds.
    below = {pid for pid in children_of(driver.pid) if not title_of(pid).startswith(RAY_AGENTS)}
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert wait_gone(below, seconds=30), f"outlived the driver: {[title_of(pid) for pid in below]}"
    return run, Ledger(run / "ledger.jsonl").read(), paid(run)


@pytest.fixture(scope="module")
def finished(killed):
    run, _, _ = killed
    done = subprocess.run([SQUEEZE, "resume", str(run)], capture_output=True, text=True, check=False)
    assert as_verified(run / "verification.json", done), done.stderr[-3000:]
    return run


def as_verified(path, done):
    """Whether the exit code is what the verification says, and what it says is true but for the machine's mood.

    Of two sound 95 % intervals one in twenty pairs does not agree: answers must be the same to the digit, and scores
    must lie within three times what the intervals allow.
    """
    result = json.loads(path.read_text())
    same = all(abs(one["search"] - one["verified"]) < 1e-9 for one in result["benchmarks"].values())
    near = result["difference"] <= 3 * result["allowed"]
    return same and near and done.returncode == (0 if result["agrees"] else 1)


def test_a_terminated_search_says_how_to_go_on(terminated):
    run, said = terminated
    assert f"squeeze resume {run}" in said.strip().splitlines()[-1]
    assert "SIGTERM received" not in said  # Ray's own handler prints a stack


def test_resume_finishes_the_search_without_redoing_rungs(killed, finished):
    _, before, done = killed
    events = Ledger(finished / "ledger.jsonl").read()
    assert events[: len(before)] == before
    rungs = [(event["trial"], event["rung"]) for event in events if event["event"] == "rung"]
    assert len(rungs) == len(set(rungs))
    assert done
    assert paid(finished).items() >= done.items()
    trials = trials_of(events)
    assert len(trials) == 5
    assert all(trial.end is not None for trial in trials.values())
    assert len({json.dumps(trial.recipe) for trial in trials.values()}) == 5


def test_a_broken_model_ends_its_trial_by_name_and_no_other(finished):
    trials = trials_of(Ledger(finished / "ledger.jsonl").read())
    failed = {name: trial.end["reason"] for name, trial in trials.items() if trial.status == "failed"}
    silent = {name for name, trial in trials.items() if any(step["step"] == "generation" for step in trial.recipe)}
    assert failed.keys() == silent >= {"t001"}
    assert all(reason.startswith("ModelFault: the model gives no answer: of ") for reason in failed.values())
    assert not any(trials[name].rungs for name in silent)
    assert all(trials[name].in_vain > 0.1 for name in silent)  # the engine was asked all the same
    assert all(line["health"].keys() == line["health_base"].keys() == {"kmmlu_redux", "komt_bench"}
               for trial in trials.values() for line in trial.rungs.values())  # fmt: skip


def test_the_same_prefix_is_built_once(finished):
    stages = [
        stage for event in Ledger(finished / "ledger.jsonl").read() if event["event"] == "rung"
        for stage in event["stages"]
    ]  # fmt: skip
    built = [stage["key"] for stage in stages if not stage["cached"]]
    assert len(built) == len(set(built))
    assert sum(stage["cached"] for stage in stages) >= 2


def test_ledger_lines_hold_what_the_design_names(finished):
    line = next(event for event in Ledger(finished / "ledger.jsonl").read() if event["event"] == "rung")
    assert line.keys() >= {
        "event", "trial", "recipe", "recipe_hash", "rung", "fidelity", "perf", "perf_base", "perf_norm",
        "sec_per_token", "sec_per_token_base", "speed_norm", "score", "score_low", "score_high", "length_ratio",
        "benchmarks", "size_bytes", "stages", "engine", "device", "kernels", "time",
    }  # fmt: skip
    assert line["benchmarks"]["komt_bench"].keys() >= {"value", "n", "tokens", "seconds"}
    assert line["score_low"] <= line["score"] <= line["score_high"]


def test_the_submission_was_scored_again_and_agrees(finished):
    result = json.loads((finished / "verification.json").read_text())
    assert result["agrees"] == (result["difference"] <= result["allowed"])
    assert result["transformers"]["class"] == "Exaone4ForCausalLM"
    assert {name.split("/")[0] for name in zipfile.ZipFile(finished / "submit.zip").namelist()} == {"model"}


def test_the_winner_was_measured_twice(finished):
    """From nothing: the second time has answers of its own, and its score is the one that counts."""
    trials = trials_of(Ledger(finished / "ledger.jsonl").read())
    best = ranked(trials.values(), 2)
    assert all(trial.again is not None for trial in best[:2])
    again = best[0].line
    assert again["score"] != best[0].rungs[2]["score"]
    assert {name: one["value"] for name, one in again["benchmarks"].items()} == {
        name: one["value"] for name, one in best[0].rungs[2]["benchmarks"].items()
    }
    told = json.loads((finished / "verification.json").read_text())
    assert told["score_search"]["score"] == again["score"]
    assert again["fixed_low"] <= again["fixed_norm"] <= again["fixed_high"]


def test_people_get_a_report(finished):
    page = (finished / "report.html").read_text()
    assert "t000" in page
    assert "plotly" in page
    assert 'src="http' not in page
    rows = list(csv.DictReader((finished / "summary.csv").open()))
    assert len(rows) == 5
    assert "| t000 |" in (finished / "summary.md").read_text()


def test_wandb_has_a_run_for_every_trial(finished):
    names = {path.name for path in finished.glob("wandb/wandb/offline-run-*/run-*.wandb")}
    told = {name.removesuffix(".wandb").removesuffix("-again").rsplit("-", 1)[1] for name in names}
    assert told == {f"t00{number}" for number in range(5)}


def test_another_trial_can_be_exported_and_verified(finished, tmp_path):
    trial = next(
        event["trial"] for event in Ledger(finished / "ledger.jsonl").read()
        if event["event"] == "end" and event["status"] == "finished"
    )  # fmt: skip
    target = tmp_path / "other.zip"
    export, verify = (
        subprocess.run([SQUEEZE, *map(str, words)], capture_output=True, text=True, check=False)
        for words in (["export", finished, "--pick", trial, "-o", target], ["verify", target, "--run", finished])
    )
    assert export.returncode == 0, export.stderr
    assert as_verified(target.with_suffix(".verification.json"), verify), verify.stderr


def test_a_submission_of_another_model_is_refused(finished, tmp_path):
    """One bit of one weight: the tensor is whole, the file is sound, but it is not what was measured."""
    target = tmp_path / "submit.zip"
    with zipfile.ZipFile(finished / "submit.zip") as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = bytearray(old.read(name))
            if name.endswith(".safetensors"):
                content[-1] ^= 1
            new.writestr(name, bytes(content))
    done = subprocess.run(
        [SQUEEZE, "verify", str(target), "--run", str(finished)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "none that" in done.stderr
    assert json.loads((tmp_path / "verification.json").read_text())["agrees"] is False


def test_without_a_run_it_is_still_loaded_by_both(finished, tmp_path):
    shutil.copy2(finished / "submit.zip", tmp_path / "submit.zip")
    done = subprocess.run(
        [SQUEEZE, "verify", str(tmp_path / "submit.zip")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no run to compare" in done.stdout


def test_a_finished_run_resumes_to_itself(finished):
    before = (finished / "ledger.jsonl").read_bytes()
    done = subprocess.run(
        [SQUEEZE, "resume", str(finished), "--no-verify", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 5
    assert (finished / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_run_can_be_looked_at(finished, command):
    done = subprocess.run([SQUEEZE, command, str(finished), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
