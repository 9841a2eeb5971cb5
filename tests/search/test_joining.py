"""Which nodes a search begins on, told without a Ray; tests/search/test_placing.py has a real one."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.kinds import Kind
from evaluation.reference import MODEL
from search.job import Job
from search.joining import _await_a_node, _chosen, read_by_trials


@pytest.fixture
def job(space, tmp_path):
    return Job(base=Path(MODEL), base_key="0", run=tmp_path, store=tmp_path, trials=3, device="cuda",
               accelerator="L4", space=space)  # fmt: skip


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


def test_what_lies_at_a_uri_needs_no_shared_folder(job):
    there = job.model_copy(update={"home": "s3://b/run", "store_home": "s3://b/run/store"})
    assert str(job.base / "config.json") not in read_by_trials(there)


def test_a_node_that_was_taken_back_before_it_was_looked_at_is_asked_for_again(job, monkeypatch):
    """An autoscaler ends a node that idles; what asked for it was given back when it came."""
    asked, closed, looks = [], [], iter(["comes", "is gone", "comes", "fits"])
    node = SimpleNamespace(small=False)

    class Granted:
        """A node holds what was asked for as soon as anyone looks."""

        def __init__(self, takes, number):
            asked.append(takes)

        def look(self):
            return 0

        def close(self):
            closed.append(self)

    class Fleet:
        known, fitting = {}, []

        def fit(self):
            return self.fitting

        def look(self):
            now = next(looks)
            self.known = {} if now == "is gone" else {"a": node}
            self.fitting = [node] if now == "fits" else []

    monkeypatch.setattr("cluster.demand.Demand", Granted)
    monkeypatch.setattr("search.joining.time.sleep", lambda _: None)
    _await_a_node(Fleet(), job, lambda text: None)
    assert asked == [{"CPU": 1.0, "GPU": 1.0, "accelerator_type:L4": 0.001}] * 2
    assert len(closed) == 1
