"""Ray on machines one has, for real on this one: own.sh starts it on loopback, with a token and ports of its own."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.own import LAUNCHERS, ROOT, own_cluster


@pytest.fixture(scope="module")
def cluster():
    with own_cluster() as started:
        yield started


def test_nobody_comes_in_without_the_token(cluster):
    refused = cluster.asked("submit", "--", "echo", "never", token=False)
    assert refused.returncode != 0
    assert "never" not in refused.stdout and "authentication is enabled" in refused.stderr
    assert cluster.status("/api/jobs/")[0] == 401
    assert cluster.status("/api/jobs/", {"Authorization": "Bearer " + "f" * 64})[0] in {401, 403}
    assert cluster.status("/api/jobs/", cluster.bearer)[0] == 200


def test_the_dashboard_is_on_loopback_alone(cluster):
    """The port is looked up among the listening sockets of this machine, whatever addresses it has."""
    port = f":{int(cluster.dashboard.rsplit(':', 1)[1]):04X}"
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(port)]
    assert listening == [f"0100007F{port}"]


def test_a_job_runs_the_code_that_was_submitted_and_has_its_secrets(cluster, tmp_path):
    """`ray job submit --working-dir . -- squeeze …`; secrets come from a file that only its owner may read."""
    code = tmp_path / "clone"
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        if (ROOT / name).is_file():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, code / name)
    secrets = tmp_path / "job.yaml"
    secrets.write_text("env_vars: {JUDGE_KEY: sk-do-not-tell}\n")
    told = "import os, search; print('len', len(os.environ['JUDGE_KEY']), search.__file__)"
    (code / "told.py").write_text(told)
    words = ("--working-dir", ".", "--runtime-env", str(secrets), "--submission-id", "first", "--")
    entry = ("bash", "-c", "squeeze plan demo --base tiny --json && python told.py")
    done = cluster.asked("submit", *words, *entry, cwd=code)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    assert "error" not in json.loads(planned)
    ran = next(line for line in done.stdout.splitlines() if line.startswith("len "))
    assert ran.startswith("len 14 ") and "runtime_resources/working_dir_files" in ran
    assert "sk-do-not-tell" not in done.stdout + done.stderr
    # A browser is not shown it; whoever asks otherwise, with the token, is.
    seen = cluster.status("/api/jobs/first", cluster.bearer | {"User-Agent": "Mozilla/5.0"})[1]
    assert "JUDGE_KEY" in seen and "sk-do-not-tell" not in seen


def test_a_job_that_is_stopped_may_save_first(cluster, tmp_path):
    (tmp_path / "work.py").write_text(
        "import sys, time\n"
        "print('begun', flush=True)\n"
        "try:\n    time.sleep(100)\nexcept KeyboardInterrupt:\n    time.sleep(4)\n    print('saved', flush=True)\n"
    )
    words = ("--working-dir", ".", "--no-wait", "--submission-id", "long", "--", "python", "work.py")
    assert cluster.asked("submit", *words, cwd=tmp_path).returncode == 0
    until = time.monotonic() + 180
    logs = "/api/jobs/long/logs"
    while "begun" not in cluster.status(logs, cluster.bearer)[1] and time.monotonic() < until:
        time.sleep(0.2)
    assert "was stopped" in cluster.asked("stop", "long").stdout
    assert "saved" in cluster.status(logs, cluster.bearer)[1]  # after four seconds, where Ray by itself gives three


@pytest.mark.parametrize(("mode", "said"), [(None, "no token"), (0o644, "others may read the token")])
def test_it_does_not_start_without_a_token_of_ones_own(tmp_path, mode, said):
    token = tmp_path / "token"
    if mode:
        token.write_text("x")
        token.chmod(mode)
    done = subprocess.run(
        ["bash", LAUNCHERS / "own.sh", "head"], env=os.environ | {"RAY_AUTH_TOKEN_PATH": str(token)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and said in done.stderr
