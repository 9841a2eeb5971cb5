"""Which lost workers count against a trial, by the faults that Ray raises."""

from types import SimpleNamespace

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from search.placing import Misplaced
from search.setbacks import ALWAYS, NEVER, NODES, Setbacks, lost_its_node

CLASS = "Trial"
NODE_GONE = "The actor died because its node has died. Node Id: f00d"
CRASHED = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"


def died(words, **more):
    return ActorDiedError(ActorDiedErrorContext(error_message=words, class_name=CLASS, actor_id=b"0" * 16, **more))


def noticed():
    return died("", node_death_info=NodeDeathInfo(reason=NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED))


@pytest.fixture
def trial():
    return SimpleNamespace(trial_id="a", config={"name": "t000"}, max_failures=ALWAYS)


@pytest.fixture
def lose(trial, monkeypatch):
    """Have the trial lose its worker by a fault; gives what is said."""
    said = []
    monkeypatch.setattr("search.setbacks.fault_of", lambda trial: trial.fault)
    setbacks = Setbacks(said.append)

    def lost(fault):
        trial.fault = fault
        setbacks.on_trial_recover(0, [trial], trial)
        return said[-1] if said else ""

    lost.setbacks = setbacks
    return lost


def test_a_worker_goes_with_its_node_or_by_itself():
    assert lost_its_node(died(NODE_GONE))
    assert lost_its_node(noticed())
    assert lost_its_node(ActorUnavailableError("out of reach", b"0" * 16))
    assert not lost_its_node(died(CRASHED))
    assert not lost_its_node(RayTaskError("step", "traceback", ValueError("x")))
    assert not lost_its_node(None)


def test_a_trial_goes_on_until_it_seems_to_end_its_nodes_itself(trial, lose):
    for _ in range(NODES - 1):
        assert "goes on elsewhere" in lose(died(NODE_GONE))
        assert trial.max_failures == ALWAYS
    lose(noticed())
    assert trial.max_failures == NEVER


def test_a_finished_rung_makes_good_for_all_that_was_lost(trial, lose):
    for _ in range(3 * NODES):
        lose(died(NODE_GONE))
        lose.setbacks.on_trial_result(0, [trial], trial, {})
    assert trial.max_failures == ALWAYS
    lose(died(CRASHED))
    lose.setbacks.on_trial_result(0, [trial], trial, {})
    assert trial.max_failures == ALWAYS


def test_a_trial_that_crashed_its_own_process_is_tried_once_more(trial, lose):
    assert "tried once more" in lose(died(CRASHED))
    assert trial.max_failures == NEVER


def test_one_that_began_where_it_cannot_be_measured_lost_nothing(trial, lose):
    assert lose(Misplaced("f00d", "transformers 4.0.0")) == ""
    assert trial.max_failures == ALWAYS
