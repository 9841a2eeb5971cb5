"""A search as Ray's job, for real: submitted with the token, stopped, gone on with by another job, finished.

Its run lies at a URI of a real S3 server; the job that goes on has its code in another folder than the first.
"""

import json
import shutil
import subprocess
import time

import pytest

from cluster.storage import CACHE, Remote
from search.job import Job
from search.ledger import Ledger, trials_of
from tests.cluster.own import ROOT, own_cluster
from tests.storage import BUCKET, s3_server

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]
RUN = f"s3://{BUCKET}/runs/first"
SPACE = """
steps:
  - {step: drop_layers, optional: true, count: [1]}
  - {step: quantize, optional: true, scheme: [W8A8]}
seeds:
  - [{step: quantize, scheme: W8A8}]
  - [{step: drop_layers, count: 1}]
evaluation: {limit: 8, benchmarks: {kmmlu_redux: "reference:items/kmmlu_redux.jsonl"}}
calibration: reference:text/calibration.jsonl
rungs: [{items: 0.5, tokens: 0.5}, {items: 1.0, tokens: 1.0}]
eta: 1.0001
searcher: grid
passes: 2
timing_seconds: 0
finalists: 1
trials: 2
max_model_len: 1024
"""


def clone(folder, word):
    """What a user submits: the code, and a space beside it. `word` makes it another upload."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "space.yaml").write_text(SPACE)
    (folder / "word").write_text(word)
    return folder


def submit(cluster, folder, name, *words):
    given = ("--working-dir", ".", "--no-wait", "--submission-id", name, "--", *words)
    done = cluster.asked("submit", *given, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


def state(cluster, name):
    return json.loads(cluster.status(f"/api/jobs/{name}", cluster.bearer)[1])["status"]


def until(cluster, name, holds):
    """Wait for it while the job runs."""
    end = time.monotonic() + 400
    while not holds():
        assert state(cluster, name) in {"PENDING", "RUNNING"}, cluster.status(f"/api/jobs/{name}/logs", cluster.bearer)
        assert time.monotonic() < end, cluster.status(f"/api/jobs/{name}/logs", cluster.bearer)
        time.sleep(0.5)


def rungs_there():
    """Trial and rung of each line that is at the URI."""
    parts = Remote(RUN).names("ledger")
    lines = [json.loads(line) for name in parts for line in (Remote(RUN).read(name) or b"").splitlines()]
    return [(line["trial"], line["rung"]) for line in lines if line["event"] == "rung"]


def test_a_search_is_submitted_stopped_gone_on_with_and_finished(tmp_path, monkeypatch):
    with s3_server() as storage, own_cluster(**storage) as cluster:
        for name, value in (storage | {CACHE: str(tmp_path / "laptop")}).items():
            monkeypatch.setenv(name, value)
        submit(cluster, clone(tmp_path / "one", "1"), "first", "squeeze", "search", "space.yaml", "--base", "tiny",
               "--out", RUN, "--no-verify")  # fmt: skip
        until(cluster, "first", lambda: bool(rungs_there()))
        cluster.asked("stop", "first")
        assert state(cluster, "first") == "STOPPED"
        before = rungs_there()
        assert "go on with `squeeze resume s3://" in cluster.status("/api/jobs/first/logs", cluster.bearer)[1]
        shutil.rmtree(cluster.home / ".cache")  # as on a new head
        submit(cluster, clone(tmp_path / "two", "2"), "again", "squeeze", "resume", RUN, "--no-verify")
        until(cluster, "again", lambda: state(cluster, "again") == "SUCCEEDED")
        job = Job.load(RUN)
        trials = trials_of(Ledger(job.run / "ledger.jsonl").read())
        told = rungs_there()
    assert [trial.status for trial in trials.values()] == ["finished"] * 2
    assert sorted(told) == [("t000", 0), ("t000", 1), ("t001", 0), ("t001", 1)]  # none was done again
    assert told[: len(before)] == before
    assert any(trial.again is not None for trial in trials.values())
