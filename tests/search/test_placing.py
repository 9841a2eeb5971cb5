"""Trials on a cluster of several nodes: Ray, Tune and driver as they are, the bench a toy, and GPUs numbers Ray counts.

One machine holds all nodes. One that differs has a folder first on its path that tells of another transformers. With
LATE_NODES=16 in the environment, 16 join late: each costs two cores about four seconds.
"""

import contextlib
import os
import pickle
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import pytest
import ray
import typer
from ray.air.execution import PlacementGroupResourceManager
from ray.cluster_utils import Cluster
from ray.tune import PlacementGroupFactory
from ray.util.placement_group import placement_group_table

from cluster.fleet import Fleet
from cluster.nodes import expected_like
from cluster.resources import trial_resources
from compressors.artifact import base_artifact
from evaluation.reference import MODEL
from search.cli import doctor
from search.driver import run
from search.errors import RunFailed
from search.job import Job
from search.joining import fleet_for, hardware_of, read_by_trials
from search.ledger import Ledger
from search.placing import Misplaced, Newcomers, Places, Where
from search.start import new_job
from search.there import verify_there
from search.trial import Trial
from search.whole import _verify_where_timed
from tests.search.conftest import rung_line

LATE = int(os.environ.get("LATE_NODES", "2"))


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
    """A head without a GPU, and three nodes: one that is fit, one that differs, one of another kind.

    In a folder of its own, since Ray notes there which cluster was begun last, for whoever gives no address.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        begun = Cluster()
        try:
            started(begun, num_cpus=0, include_dashboard=False)
            add(begun)
            add(begun, path=another_transformers)
            add(begun, "A100")
            yield begun
        finally:
            begun.shutdown()


def add(cluster, kind="L4", path=None):
    more = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}} if path else {}
    return started(cluster, num_cpus=1, num_gpus=1, resources={f"accelerator_type:{kind}": 1}, **more)


def started(cluster, **node):
    for _ in range(3):  # a raylet gives up where its agents take more than 15 seconds to start, on a busy machine
        with contextlib.suppress(Exception):
            return cluster.add_node(**node)
    raise RuntimeError("no node starts here")


@pytest.fixture
def job(space, tmp_path, monkeypatch):
    monkeypatch.setattr("search.trial.Trial", ToyTrial)
    monkeypatch.setattr("search.joining.expected_like", lambda report, engine, device: expected_like(report, engine))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "run"
    (folder / "at-work").mkdir(parents=True)
    (folder / "nodes").write_text("1")
    job = Job(
        base=Path(MODEL), base_key=base_artifact(Path(MODEL)).key, run=folder, store=folder / "store", trials=3,
        device="cuda", accelerator="L4",
        space=space.model_copy(update={"finalists": 0, "scheduler": "stopping", "eta": 1.0001}),
    )  # fmt: skip
    job.save()
    job.store.mkdir()  # as search.whole.conclude does
    return job


class Joining(Newcomers):
    """Adds nodes in Tune's loop, which has the main thread: the next of `steps` once all before it are at work."""

    steps: ClassVar = []
    done: ClassVar = []
    given_back: ClassVar = []  # how many failures Tune counted of each trial that was, by then

    def on_step_begin(self, iteration, trials, **info):
        super().on_step_begin(iteration, trials, **info)
        if self.steps and trials and len(at_work(trials[0])) > len(self.done):
            self.done.append(self.steps.pop(0)())

    def on_trial_recover(self, iteration, trials, trial, **info):
        super().on_trial_recover(iteration, trials, trial, **info)
        self.given_back.append(trial.num_failures)
        (Path(trial.storage.experiment_fs_path).parent / "given-back").touch()


def at_work(trial):
    return list((Path(trial.storage.experiment_fs_path).parent / "at-work").iterdir())


def joining(monkeypatch, *steps):
    monkeypatch.setattr("search.placing.Newcomers", Joining)
    monkeypatch.setattr(Joining, "steps", list(steps))
    monkeypatch.setattr(Joining, "done", [])
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


def test_a_new_search_finds_out_and_run_json_says_what_it_is_timed_on(cluster, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    new_job("demo", "tiny", tmp_path / "run", address=cluster.address)
    job = Job.load(tmp_path / "run")
    assert (job.device, job.accelerator) == ("cuda", "L4")


def test_processors_are_timed_on_all_nodes_that_fit(cluster, job):
    ray.init(address=cluster.address)
    try:
        fleet = fleet_for(job.model_copy(update={"device": "cpu", "accelerator": ""}), cluster.address, [], print)
    finally:
        ray.shutdown()
    assert trial_resources("cpu", fleet.resources()) == {"CPU": 1.0}
    assert len(fleet.fit()) == 2


def test_a_submission_is_verified_on_a_node_of_the_kind_that_was_timed(cluster, job):
    """Which finds a run without a ledger here; the driver's machine is not asked."""
    told = _verify_where_timed(job.run / "submit.zip", job, cluster.address, quiet=True)
    assert "has lost its ledger.jsonl" in told
    there = verify_there(node_at_work, job, cluster.address, lambda text: None)
    ray.init(address=cluster.address)
    labels = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    ray.shutdown()
    assert "accelerator_type:L4" in labels[there]


def node_at_work(place):
    return ray.get_runtime_context().get_node_id()


@pytest.fixture(scope="module")
def without_squeeze(tmp_path_factory):
    """Python looks for a sitecustomize before anything else; this one hides a package of ours."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(
        "import sys\nclass Hides:\n    def find_spec(self, name, *_):\n"
        "        if name == 'cluster': raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, Hides())\n"
    )
    return folder


@pytest.mark.parametrize("differs", ["another_transformers", "without_squeeze"])
def test_a_trial_that_began_on_a_node_that_differs_is_run_again_elsewhere(
    cluster, job, differs, request, monkeypatch, capsys
):
    """The driver does not look at newcomers here: the worker alone sees it, and no failure is counted."""
    monkeypatch.setattr("cluster.fleet.PAUSE", 1e9)
    joining(monkeypatch, lambda: add(cluster, path=request.getfixturevalue(differs)))
    (job.run / "nodes").write_text("given back")
    try:
        run(job, cluster.address)
    finally:
        cluster.remove_node(Joining.done[0])
    assert Joining.given_back == [0]
    assert len(nodes_of(job)) == 1
    assert ends_of(job) == ["finished"] * 3
    told = capsys.readouterr().err
    assert told.count("is left out: transformers 4.0.0 instead of") == 1 + (differs == "another_transformers")


def test_nodes_that_join_late_are_used_and_one_that_differs_and_another_kind_are_not(cluster, job, monkeypatch, capsys):
    (job.run / "nodes").write_text(str(1 + LATE))
    joining(monkeypatch, *[lambda: add(cluster)] * LATE)
    run(job.model_copy(update={"trials": LATE + 4}), cluster.address)
    assert len(nodes_of(job)) == 1 + LATE
    assert ends_of(job) == ["finished"] * (LATE + 4)
    told = capsys.readouterr().err
    assert told.count("is left out: transformers 4.0.0 instead of") == 1
    assert "1 node with A100 left unused: this search runs on L4 alone" in told


def test_who_waits_for_a_place_gets_one_on_a_node_that_was_mended(cluster):
    """Ray keeps to what was asked for at first, which barred that node; Tune's own manager waits for ever."""
    ray.init(address=cluster.address)
    try:
        fleet = Fleet(None, "cuda", print)
        fleet.settle()
        with_l4 = [node.id for node in fleet.fit() if "accelerator_type:L4" in node.resources]
        for node in with_l4:
            fleet.leave_out(node, "a disk is full")
        where = Where.of({"CPU": 1.0, "GPU": 1.0, "accelerator_type:L4": 0.001}, "mended", fleet)
        managers = Places(), PlacementGroupResourceManager()
        for one in managers:
            one.request_resources(where)
        time.sleep(1)
        assert not any(one.has_resources_ready(where) for one in managers)
        for node in with_l4:
            fleet.known[node].again = 0.0
        assert fleet.barred() == []  # which looks
        end = time.monotonic() + 60
        while not managers[0].has_resources_ready(where):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert not managers[1].has_resources_ready(where)
        acquired = managers[0].acquire_resources(where)
        assert placement_group_table(acquired.placement_group)["bundles_to_node_id"][0] in with_l4
        managers[0].free_resources(acquired)
        managers[1].cancel_resource_request(where)
    finally:
        ray.shutdown()


def test_a_trial_of_two_gpus_waits_for_a_node_that_has_both(cluster, job, monkeypatch, capsys):
    """Nodes of one are left out by name, and two of them are no substitute."""
    shared = job.model_copy(update={"space": job.space.model_copy(update={"gpus": 2}), "trials": 1})
    monkeypatch.setattr("search.joining.WAIT", 0.0)
    with pytest.raises(RunFailed, match=r"it has 1 GPU, and a trial takes 2 \(gpus\)"):
        run(shared, cluster.address, quiet=True)
    large = started(cluster, num_cpus=1, num_gpus=2, resources={"accelerator_type:L4": 1})
    try:
        run(shared, cluster.address)
    finally:
        cluster.remove_node(large)
    assert nodes_of(job) == {large.node_id}
    assert ends_of(job) == ["finished"]
    assert "is left out: it has 1 GPU, and a trial takes 2 (gpus)" in capsys.readouterr().err


def test_what_tune_is_given_survives_its_pickling():
    where = Where({"CPU": 1.0, "GPU": 1.0, "accelerator_type:L4": 0.001}, "run")
    copy = pickle.loads(pickle.dumps(where))
    assert copy == where == PlacementGroupFactory([where.takes])
    assert copy.name == "run"
    fault = pickle.loads(pickle.dumps(Misplaced("f00d", "transformers 4.0.0")))
    assert (fault.node, fault.why, fault.preempted) == ("f00d", "transformers 4.0.0", True)


def test_a_run_folder_that_a_node_does_not_see_is_refused(cluster, job, tmp_path):
    """As a folder of the head's own disk; here it is nobody's."""
    (tmp_path / "own").mkdir()
    apart = job.model_copy(update={"run": tmp_path / "own"})
    with pytest.raises(RunFailed, match=r"does not see .*own: a search on several nodes needs --out, .* at a URI"):
        run(apart, cluster.address, quiet=True)


def test_a_node_without_a_file_that_trials_read_is_left_out(cluster, job, tmp_path):
    assert str(job.base / "config.json") in read_by_trials(job)
    gone = job.model_copy(update={"base": tmp_path / "gone"})
    with pytest.raises(RunFailed, match=r"it does not see .*gone/config.json: bring it there"):
        run(gone, cluster.address, quiet=True)
