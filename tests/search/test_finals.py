"""Who is measured again: the best, as often as one of them falls behind and lets another one up."""

import pytest
import ray

from evaluation.health import ModelFault
from evaluation.protocol import EngineFault
from search.finals import Referee, measure_finalists, once_measured
from search.ledger import trials_of
from tests.search.conftest import end_line, rung_line

FIRST = {"t000": 0.60, "t001": 0.70, "t002": 0.65, "t003": 0.50}


def events():
    return [line for name, score in FIRST.items() for line in (rung_line(name, 2, score), end_line(name, "finished"))]


class Job:
    """What finals read of a job."""

    last_rung = 2

    class space:
        finalists = 2


class Scribe:
    def __init__(self):
        self.events = events()
        self.said = []

    def say(self, text):
        self.said.append(text)

    def again(self, line):
        self.events.append(line)

    def fell(self, name, recipe, status, reason):
        self.events.append(end_line(name, status, reason=reason))


@pytest.fixture
def referee(monkeypatch):
    """Measures as told, without Ray or engines: which trials are asked for is what is looked at."""

    class Remote:
        def __init__(self, told):
            self.measure = self
            self.told = told
            self.asked = []

        def options(self, **takes):
            self.takes = takes
            return self

        def remote(self, *given):
            if len(given) == 1:  # the actor itself
                return self
            self.asked.append(given[0])
            told = self.told[given[0]]
            if isinstance(told, str):
                return {"fault": told, "broken": told == "it never stops"}
            if isinstance(told, Exception):
                raise told
            return rung_line(given[0], 2, told) | {"event": "again"}

    def made(told):
        remote = Remote(told)
        monkeypatch.setattr(ray, "remote", lambda _: remote)
        monkeypatch.setattr(ray, "get", lambda line: line)
        monkeypatch.setattr(ray, "kill", lambda _: None)
        return remote

    return made


def asked(referee, told):
    remote, scribe = referee(told), Scribe()
    measure_finalists(Job, lambda: trials_of(scribe.events).values(), {"CPU": 4.0, "GPU": 1.0}, scribe)
    assert once_measured(trials_of(scribe.events).values(), 2, 2) == []
    assert not remote.asked or remote.takes == {"num_cpus": 4.0, "num_gpus": 1.0}
    return remote.asked


def test_the_best_k_and_no_other(referee):
    assert asked(referee, {"t001": 0.69, "t002": 0.66}) == ["t001", "t002"]


def test_one_that_falls_behind_lets_another_up(referee):
    assert asked(referee, {"t001": 0.55, "t002": 0.66, "t000": 0.58}) == ["t001", "t002", "t000"]


def test_one_that_fails_the_second_time_is_out(referee):
    assert asked(referee, {"t001": "it never stops", "t002": 0.66, "t000": 0.61}) == ["t001", "t002", "t000"]


@pytest.mark.parametrize("fault", ["JudgeFault: no answer", ray.exceptions.ActorDiedError()])
def test_a_fault_that_is_not_the_models_leaves_the_first_measurements(referee, fault):
    remote, scribe = referee({"t001": fault}), Scribe()
    measure_finalists(Job, lambda: trials_of(scribe.events).values(), {"CPU": 1.0}, scribe)
    assert remote.asked == ["t001"]
    assert scribe.events == events()
    assert "first measurements stand" in scribe.said[0]


def test_what_goes_wrong_with_a_referee_is_told_and_not_raised(tmp_path):
    class Bench:
        asked = 0

        def rung(self, recipe, rung):
            Bench.asked += 1
            raise self.fault

        def close(self):
            pass

    one = object.__new__(Referee)
    one.job = type("Job", (), {"run": tmp_path, "last_rung": 2})
    one.bench = Bench()
    for fault, broken, tries in [
        (ModelFault("NaN"), True, 1),
        (EngineFault("hung"), False, 2),
        (OSError("x"), False, 1),
    ]:
        Bench.fault, Bench.asked = fault, 0
        told = one.measure("t000", [])
        assert (told["broken"], Bench.asked) == (broken, tries)
        assert str(fault) in told["fault"]
    assert "OSError" in (tmp_path / "logs" / "t000-again.txt").read_text()


def test_nothing_is_started_where_all_were(referee):
    remote = referee({})
    done = [*events(), *(rung_line(name, 2, score) | {"event": "again"} for name, score in FIRST.items())]
    measure_finalists(Job, lambda: trials_of(done).values(), {"CPU": 1.0}, Scribe())
    assert remote.asked == []
