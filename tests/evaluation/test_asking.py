"""Whose fault it was: the base's engine gets a second start before a candidate pays for it, and is named then."""

import os
import signal

import pytest
import torch

from evaluation.answers import AnswerStore
from evaluation.asking import Asker, BaseFault
from evaluation.engine import Engine
from evaluation.health import ModelFault
from evaluation.protocol import EngineFault
from evaluation.record import Subject
from evaluation.reference import ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec
from tests.evaluation import broken

BASE, CANDIDATE = Subject(key="base", folder=MODEL), Subject(key="candidate", folder=MODEL)


class Mortal(Engine):
    """Its process is killed at each of the next `deaths` batches, as the kernel does when memory runs out."""

    deaths = 0

    def generate(self, *given, **more):
        if self.deaths:
            self.deaths -= 1
            os.kill(self._process.pid, signal.SIGKILL)
        return super().generate(*given, **more)

    def sleep(self):
        if self.deaths:
            raise EngineFault("sleep: no memory to lend")
        super().sleep()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    from search.serving import engine_settings

    with Mortal(engine_settings(max_model_len=512), tmp_path_factory.mktemp("engine") / "log") as started:
        yield started


@pytest.fixture
def asked(mortal, tmp_path):
    """An asker with one engine for both, and its only slice."""
    suite = Suite(SuiteSpec(benchmarks={"kmmlu_redux": str(ITEMS / "kmmlu_redux.jsonl")}, limit=2), (1.0,))
    yield Asker(mortal, mortal, BASE, AnswerStore(tmp_path / "answers"), suite.graders), suite.up_to(0)[0]
    mortal.deaths = 0


def test_a_base_whose_engine_died_once_is_asked_by_a_fresh_one(asked, mortal):
    asker, part = asked
    mortal.deaths = 1
    assert len(asker.ask(part, BASE).passes) == 1
    assert mortal.loaded == MODEL


def test_a_model_loaded_already_is_asked_anew_for_another_store(asked, mortal, tmp_path, monkeypatch):
    """Which kernels serve it stands in that store, too."""
    asker, part = asked
    asker.ask(part, BASE)
    monkeypatch.setattr(mortal, "kernels", ["SomeKernel"])
    monkeypatch.setattr(mortal, "load", None)  # it stays as it is
    asker.store = AnswerStore(tmp_path / "again")
    assert asker.record(part, BASE).passes == []
    assert len(asker.ask(part, BASE).passes) == 1
    assert asker.kernels(BASE) == ["SomeKernel"]


def test_a_base_whose_engine_dies_again_is_named(asked, mortal):
    asker, part = asked
    mortal.deaths = 2
    with pytest.raises(BaseFault, match=r"the base's engine, not the candidate's, failed twice, .*SIGKILL"):
        asker.ask(part, BASE)
    assert mortal.deaths == 0


def test_a_candidate_whose_engine_dies_gets_no_second_try(asked, mortal):
    asker, part = asked
    mortal.deaths = 2
    with pytest.raises(EngineFault, match="SIGKILL") as told:
        asker.ask(part, CANDIDATE)
    assert not isinstance(told.value, BaseFault)
    assert mortal.deaths == 1


def test_a_broken_base_is_no_fault_of_the_candidate(mortal, asked, tmp_path):
    asker, part = asked
    asker.base = Subject(key="nan", folder=broken.number_in(tmp_path / "nan", "model.norm.weight", torch.nan, 3))
    with pytest.raises(BaseFault, match="the base model, not the candidate: the model's logits are NaN") as told:
        asker.ask(part, asker.base)
    assert not isinstance(told.value, ModelFault)


def test_a_base_that_cannot_sleep_gives_way(mortal, engine, asked):
    """Its process ends, which frees what sleeping would have; it is loaded afresh when it is asked again."""
    asker, part = asked
    asker.engine = engine
    mortal.deaths = 1
    assert len(asker.ask(part, CANDIDATE).passes) == 1
    assert mortal.loaded is None
