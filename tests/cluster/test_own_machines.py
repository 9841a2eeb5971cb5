"""Ray on machines one has, for real on this one: own.sh starts it on loopback, with a token and ports of its own."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.own import LAUNCHERS, ROOT, SECRET, own_cluster

pytestmark = pytest.mark.alone
TOLD = """
import os, ray, search
def told():
    return "has", len(os.environ["JUDGE_KEY"]), search.__file__
print(*told())
ray.init("auto", log_to_driver=False)
print(*ray.get(ray.remote(told).remote()))
"""


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
    """`ray job submit --working-dir . -- squeeze …`; the node's keys are in the job's environment and nowhere else."""
    code = tmp_path / "clone"
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        if (ROOT / name).is_file():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, code / name)
    (code / "told.py").write_text(TOLD)
    words = ("--working-dir", ".", "--submission-id", "first", "--")
    entry = ("bash", "-c", "squeeze plan demo --base tiny --json && python told.py")
    done = cluster.asked("submit", *words, *entry, cwd=code)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = next(line for line in done.stdout.splitlines() if line.startswith('{"'))
    assert "error" not in json.loads(planned)
    driver, worker = [line.split() for line in done.stdout.splitlines() if line.startswith("has ")]
    assert driver[1] == worker[1] == str(len(SECRET))
    assert driver[2] == worker[2] and "runtime_resources/working_dir_files" in driver[2]
    told = [done.stdout, done.stderr, cluster.asked("list").stdout, cluster.status("/api/jobs/", cluster.bearer)[1]]
    assert "first" in told[2] and not [one for one in told if SECRET in one]
    logs = subprocess.run(["grep", "-rl", SECRET, cluster.temp], capture_output=True, text=True, check=False)
    assert logs.stdout == ""


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


@pytest.mark.parametrize(("mode", "said"), [(None, "no token"), (0o644, "others may read")])
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
