"""Which lost workers count against a trial, by the faults that Ray raises."""

from types import SimpleNamespace

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from cluster.storage import StorageFault
from search.placing import Misplaced
from search.setbacks import ALWAYS, LASTS, NODES, Setbacks, lost_its_node

CLASS = "Trial"
NODE_GONE = "The actor died because its node has died. Node Id: f00d"
CRASHED = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"


def died(words, **more):
    return ActorDiedError(ActorDiedErrorContext(error_message=words, class_name=CLASS, actor_id=b"0" * 16, **more))


def noticed():
    return died("", node_death_info=NodeDeathInfo(reason=NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED))


@pytest.fixture
def trial():
    return SimpleNamespace(trial_id="a", config={"name": "t000"}, max_failures=ALWAYS, num_failures=0)


@pytest.fixture
def lose(trial, monkeypatch):
    """Have the trial lose its worker by a fault, counted as Tune does unless it is excused; gives what is said."""
    said = []
    monkeypatch.setattr("search.setbacks.fault_of", lambda trial: trial.fault)
    setbacks = Setbacks(said.append)

    def lost(fault, excused=False):
        said.clear()
        trial.fault = fault
        trial.num_failures += not (excused or getattr(fault, "preempted", False))
        setbacks.on_trial_recover(0, [trial], trial)
        return said[-1] if said else ""

    lost.setbacks = setbacks
    return lost


def is_run_again_after(trial, counted):
    """Tune's own rule, as it stands in Trial.should_recover, for a failure that it counts or not."""
    return trial.max_failures < 0 or trial.num_failures + counted <= trial.max_failures


def test_a_worker_goes_with_its_node_or_by_itself():
    assert lost_its_node(died(NODE_GONE))
    assert lost_its_node(noticed())
    assert lost_its_node(ActorUnavailableError("out of reach", b"0" * 16))
    assert not lost_its_node(died(CRASHED))
    assert not lost_its_node(RayTaskError("step", "traceback", ValueError("x")))
    assert not lost_its_node(None)


def test_a_trial_goes_on_until_it_seems_to_end_its_nodes_itself(trial, lose):
    for _ in range(NODES - 1):
        assert is_run_again_after(trial, counted=True)
        assert "goes on elsewhere" in lose(died(NODE_GONE))
    assert not is_run_again_after(trial, counted=True)


def test_nodes_that_gave_notice_are_no_trials_doing(trial, lose):
    for _ in range(3 * NODES):
        assert "goes on elsewhere" in lose(noticed())
    assert is_run_again_after(trial, counted=True)


def test_a_finished_rung_makes_good_for_all_that_was_lost(trial, lose):
    for _ in range(3 * NODES):
        lose(died(NODE_GONE))
        lose.setbacks.on_trial_result(0, [trial], trial, {})
    assert is_run_again_after(trial, counted=True)
    lose(died(CRASHED))
    lose.setbacks.on_trial_result(0, [trial], trial, {})
    assert is_run_again_after(trial, counted=True)


def test_a_trial_that_crashed_its_own_process_is_tried_once_more(trial, lose):
    assert "tried once more" in lose(died(CRASHED))
    assert not is_run_again_after(trial, counted=True)
    assert is_run_again_after(trial, counted=False)  # a notice, or a node that differs, takes that try from nobody
    assert "goes on elsewhere" in lose(noticed())
    assert is_run_again_after(trial, counted=False)


def test_a_failure_that_a_node_is_to_blame_for_is_held_against_no_trial(trial, lose):
    """Newcomers take it back from Tune's count where a worker could not begin."""
    assert lose(died(CRASHED), excused=True) == ""
    assert is_run_again_after(trial, counted=True)


def test_one_that_began_where_it_cannot_be_measured_lost_nothing(trial, lose):
    assert lose(Misplaced("f00d", "transformers 4.0.0")) == ""
    assert is_run_again_after(trial, counted=True)


def task(fault):
    """As Ray hands on what a worker raised."""
    return RayTaskError("step", "traceback", fault).as_instanceof_cause()


@pytest.mark.parametrize(
    "outage",
    [task(Misplaced("f00d", "s3://bucket is gone", outage=True)), task(OSError("s3://bucket is gone"))],
    ids=["of the bench", "of Tune's restoring"],
)
def test_a_place_that_stays_out_of_reach_ends_the_search_and_no_trial(trial, lose, outage, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("search.setbacks.time.monotonic", lambda: now[0])
    for _ in range(3):
        for _ in range(6):
            assert "s3://bucket is gone" in lose(outage)
            now[0] += LASTS / 6 - 1
        lose.setbacks.on_trial_result(0, [trial], trial, {})  # it was back
    lose(outage)
    now[0] += LASTS
    assert is_run_again_after(trial, counted=True)
    with pytest.raises(StorageFault, match="s3://bucket is gone"):
        lose(outage)
