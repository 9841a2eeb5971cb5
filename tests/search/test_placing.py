"""Trials on a cluster of several nodes: Ray, Tune and driver as they are, the bench a toy, and GPUs numbers Ray counts.

One machine holds all nodes. One that differs has a folder first on its path that tells of another transformers. With
LATE_NODES=16 in the environment, 16 join late: each costs two cores about four seconds.
"""

import os
import pickle
import time
from pathlib import Path
from typing import ClassVar

import pytest
import ray
import typer
from ray.cluster_utils import Cluster
from ray.tune import PlacementGroupFactory

from cluster.kinds import Kind
from cluster.nodes import expected_like
from evaluation.reference import MODEL
from search.cli import doctor
from search.driver import run
from search.errors import RunFailed
from search.job import Job
from search.joining import _chosen, hardware_of
from search.ledger import Ledger
from search.placing import Misplaced, Newcomers, Where
from search.there import verify_there
from search.trial import Trial
from search.whole import _verify_where_timed
from tests.search.conftest import rung_line

LATE = int(os.environ.get("LATE_NODES", "3"))


class ToyBench:
    """A rung takes until as many nodes are at work as `nodes` in the run folder says, or 200 seconds.

    Where that says "given back", until a trial was.
    """

    def __init__(self, job, progress):
        self.folder = job.run
        self.node = ray.get_runtime_context().get_node_id()

    def keep_answers(self, folder):
        pass

    def rung(self, recipe, number):
        (self.folder / "at-work" / self.node).touch()
        end = time.monotonic() + 200
        while not self.enough() and time.monotonic() < end:
            time.sleep(0.1)
        line = rung_line("", number, 0.5, recipe.to_list(), device="NVIDIA L4", node=self.node)
        return {key: value for key, value in line.items() if key != "trial"}

    def enough(self):
        wanted = (self.folder / "nodes").read_text()
        if wanted == "given back":
            return (self.folder / "given-back").exists()
        return len(list((self.folder / "at-work").iterdir())) >= int(wanted)

    def close(self):
        pass


class ToyTrial(Trial):
    """The worker's own look at its node is as it is."""

    def setup(self, config, **given):
        import search.trial

        search.trial.Bench = ToyBench  # in this worker alone
        super().setup(config, **given)


@pytest.fixture(scope="module")
def another_transformers(tmp_path_factory):
    told = tmp_path_factory.mktemp("another") / "transformers-4.0.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.0.0\n")
    return told.parent


@pytest.fixture(scope="module")
def cluster(another_transformers):
    """A head without a GPU, and three nodes: one that is fit, one that differs, one of another kind."""
    begun = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    add(begun)
    add(begun, path=another_transformers)
    add(begun, "A100")
    yield begun
    begun.shutdown()


def add(cluster, kind="L4", path=None):
    more = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}} if path else {}
    return cluster.add_node(num_cpus=1, num_gpus=1, resources={f"accelerator_type:{kind}": 1}, **more)


@pytest.fixture
def job(space, tmp_path, monkeypatch):
    monkeypatch.setattr("search.trial.Trial", ToyTrial)
    monkeypatch.setattr("search.joining.expected_like", lambda report, engine, device: expected_like(report, engine))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "run"
    (folder / "at-work").mkdir(parents=True)
    (folder / "nodes").write_text("1")
    return Job(
        base=Path(MODEL), base_key="0", run=folder, store=folder / "store", trials=3, device="cuda", accelerator="L4",
        space=space.model_copy(update={"finalists": 0, "scheduler": "stopping", "eta": 1.0001}),
    )  # fmt: skip


class Joining(Newcomers):
    """Does `steps` once some trial is at work: in Tune's loop, since nodes are to be added in the main thread."""

    steps: ClassVar = []
    given_back: ClassVar = []  # how many failures Tune counted of each trial that was, by then

    def on_step_begin(self, iteration, trials, **info):
        super().on_step_begin(iteration, trials, **info)
        if self.steps and any(trial.status == "RUNNING" for trial in trials):
            self.steps.pop(0)()

    def on_trial_recover(self, iteration, trials, trial, **info):
        super().on_trial_recover(iteration, trials, trial, **info)
        self.given_back.append(trial.num_failures)
        (Path(trial.storage.experiment_fs_path).parent / "given-back").touch()


def joining(monkeypatch, *steps):
    monkeypatch.setattr("search.placing.Newcomers", Joining)
    monkeypatch.setattr(Joining, "steps", list(steps))
    monkeypatch.setattr(Joining, "given_back", [])


def nodes_of(job):
    return {line["node"] for line in Ledger(job.run / "ledger.jsonl").read() if line["event"] == "rung"}


def ends_of(job):
    return [line["status"] for line in Ledger(job.run / "ledger.jsonl").read() if line["event"] == "end"]


def test_the_doctor_tells_of_every_node_in_one_page(cluster, capsys):
    with pytest.raises(typer.Exit):
        doctor(address=cluster.address)
    lines = capsys.readouterr().out.splitlines()
    assert f"cluster at {cluster.address}: " in lines[0]
    nodes = [line for line in lines if line.split()[1] == "node"]
    assert len(nodes) == 4
    assert any(line.startswith("ok ") and "0 CPUs" in line for line in nodes)  # the head
    (differs,) = (line for line in nodes if "transformers 4.0.0 instead of" in line)
    assert differs.startswith("NO ")
    assert "run `make setup` there" in differs


def test_a_search_is_timed_on_the_target_and_ends_where_no_node_is_of_its_kind(cluster, job):
    assert hardware_of(cluster.address, "A100", job.run) == ("cuda", "A100")
    assert hardware_of(cluster.address, "H100", job.run) == ("cuda", "L4")
    told = r"this run is timed on H100, and the cluster at .* has A100, L4: bring a node of that kind"
    with pytest.raises(RunFailed, match=told):
        run(job.model_copy(update={"accelerator": "H100"}), cluster.address)


def test_whose_scores_are_compared_were_measured_on_one_kind(job):
    """Ray has one name for GPUs that their drivers tell apart."""
    small, large = (Kind("cuda", "A100", f"NVIDIA A100-SXM4-{size}GB") for size in (40, 80))
    l4, cpu = Kind("cuda", "L4", "NVIDIA L4"), Kind("cpu", "", "a processor", 8.0)
    job = job.model_copy(update={"accelerator": "A100"})
    assert _chosen([small, large, small, l4, l4, l4], job, []) == small
    assert _chosen([small, large, small], job, [large.name]) == large
    assert _chosen([small, small], job, [large.name]) is None
    targeted = job.model_copy(update={"space": job.space.model_copy(update={"target": "A100"})})
    assert _chosen([small, large, small], targeted, []) == large  # the one that evaluation.devices knows
    on_cpus = job.model_copy(update={"device": "cpu", "accelerator": ""})
    assert _chosen([cpu], on_cpus, ["another processor"]) == cpu


def test_a_submission_is_verified_on_a_node_of_the_kind_that_was_timed(cluster, job):
    """Which finds no run folder here, as where it is not shared; the driver's machine is not asked."""
    told = _verify_where_timed(job.run / "submit.zip", job, cluster.address, quiet=True)
    assert told.endswith("is not a run folder: it has no run.json")
    there = verify_there(node_at_work, job.run / "submit.zip", job, cluster.address, lambda text: None)
    ray.init(address=cluster.address)
    labels = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    ray.shutdown()
    assert "accelerator_type:L4" in labels[there]


def node_at_work(submission):
    return ray.get_runtime_context().get_node_id()


def test_a_trial_that_began_on_a_node_that_differs_is_run_again_elsewhere(
    cluster, job, another_transformers, monkeypatch, capsys
):
    """The driver does not look at newcomers here: the worker alone sees it."""
    monkeypatch.setattr("cluster.fleet.PAUSE", 1e9)
    late = []
    joining(monkeypatch, lambda: late.append(add(cluster, path=another_transformers)))
    (job.run / "nodes").write_text("given back")
    try:
        run(job, cluster.address)
    finally:
        cluster.remove_node(late[0])
    assert Joining.given_back == [0]
    assert len(nodes_of(job)) == 1
    assert ends_of(job) == ["finished"] * 3
    assert capsys.readouterr().err.count("is left out: transformers 4.0.0 instead of") == 2


def test_nodes_that_join_late_are_used_and_one_that_differs_and_another_kind_are_not(cluster, job, monkeypatch, capsys):
    (job.run / "nodes").write_text(str(1 + LATE))
    joining(monkeypatch, *[lambda: add(cluster)] * LATE)
    run(job.model_copy(update={"trials": LATE + 4}), cluster.address)
    assert len(nodes_of(job)) == 1 + LATE
    assert ends_of(job) == ["finished"] * (LATE + 4)
    told = capsys.readouterr().err
    assert told.count("is left out: transformers 4.0.0 instead of") == 1
    assert "1 node with A100 left unused: this search runs on L4 alone" in told


def test_what_tune_is_given_survives_its_pickling():
    where = Where({"CPU": 1.0, "GPU": 1.0, "accelerator_type:L4": 0.001}, "run")
    copy = pickle.loads(pickle.dumps(where))
    assert copy == where == PlacementGroupFactory([where.takes])
    assert copy.name == "run"
    fault = pickle.loads(pickle.dumps(Misplaced("f00d", "transformers 4.0.0")))
    assert (fault.node, fault.why, fault.preempted) == ("f00d", "transformers 4.0.0", True)
