"""Who is measured again: the best, as often as one of them falls behind and lets another one up."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from evaluation.health import ModelFault
from evaluation.protocol import EngineFault
from evaluation.reference import MODEL
from search.bench import Bench
from search.budget import Budget
from search.finals import ANSWERS_AGAIN, Finals, lost, measure_again, once_measured
from search.job import Job
from search.ledger import trials_of
from search.recipe import Recipe
from search.schedulers import SCHEDULERS
from search.searchers.chance import ByChance
from search.tune_news import TuneNews
from search.tune_searcher import RecipeSearcher
from tests.search.conftest import end_line, rung_line

FIRST = {"t000": 0.60, "t001": 0.70, "t002": 0.65, "t003": 0.50}
BROKEN = {"fault": "it never stops", "broken": True}
OF_THE_JUDGE = {"fault": "JudgeFault: no answer", "broken": False}


def events():
    return [line for name, score in FIRST.items() for line in (rung_line(name, 2, score), end_line(name, "finished"))]


class Scribe:
    def __init__(self, known=None):
        self.events = events() if known is None else known
        self.said = []

    def say(self, text):
        self.said.append(text)

    def again(self, line):
        self.events.append(line)

    def fell(self, name, recipe, status, reason):
        self.events.append(end_line(name, status, reason=reason))


def finals_of(scribe, at_once=1):
    return Finals(2, 2, lambda: trials_of(scribe.events).values(), scribe, lambda: at_once)


def told_of(name, told):
    return told if isinstance(told, dict) else rung_line(name, 2, told) | {"event": "again"}


def asked(told):
    """Who is asked for, one after another, until all is done."""
    scribe = Scribe()
    finals, names = finals_of(scribe), []
    while (one := finals.begin()) is not None:
        assert not finals.over
        names.append(one.name)
        finals.told(one.name, told_of(one.name, told[one.name]))
    assert finals.over
    assert once_measured(trials_of(scribe.events).values(), 2, 2) == []
    return names


def test_the_best_k_and_no_other():
    assert asked({"t001": 0.69, "t002": 0.66}) == ["t001", "t002"]


def test_one_that_falls_behind_lets_another_up():
    assert asked({"t001": 0.55, "t002": 0.66, "t000": 0.58}) == ["t001", "t002", "t000"]


def test_one_that_fails_the_second_time_is_out():
    assert asked({"t001": BROKEN, "t002": 0.66, "t000": 0.61}) == ["t001", "t002", "t000"]


def test_nodes_that_come_and_go_are_heeded():
    scribe, nodes = Scribe(), iter([2, 2, 1, 0])
    finals = Finals(2, 2, lambda: trials_of(scribe.events).values(), scribe, lambda: next(nodes))
    assert finals.begin() is not None and finals.begin() is not None
    finals.forget()
    assert finals.begin() is not None  # one node is left, for one
    assert finals.begin() is None


def test_the_best_are_those_by_the_value_it_is_given():
    """A score may be luck of its timing, and who knows all timings ranks others first."""
    scribe = Scribe()
    value = {"t000": 0.9, "t001": 0.1, "t002": 0.2, "t003": 0.8}
    finals = Finals(2, 2, lambda: trials_of(scribe.events).values(), scribe, lambda: 2, lambda trial: value[trial.name])
    assert [finals.begin().name, finals.begin().name] == ["t000", "t003"]


def test_one_worker_measures_one_at_a_time():
    finals = finals_of(Scribe())
    assert finals.begin().name == "t001"
    assert finals.begin() is None
    assert not finals.over


def test_several_workers_measure_several_at_once():
    finals = finals_of(Scribe(), 3)
    assert [finals.begin().name, finals.begin().name] == ["t001", "t002"]
    assert finals.begin() is None  # nobody knows yet whether a third one is needed
    assert not finals.over
    finals.told("t001", told_of("t001", 0.55))
    assert finals.begin().name == "t000"
    finals.told("t002", told_of("t002", 0.66))
    finals.told("t000", told_of("t000", 0.60))
    assert finals.begin() is None
    assert finals.over


@pytest.mark.parametrize("fault", [OF_THE_JUDGE, lost("the node went away")])
def test_a_fault_that_is_not_the_models_leaves_the_first_measurements(fault):
    scribe = Scribe()
    finals = finals_of(scribe)
    finals.told(finals.begin().name, fault)
    assert finals.begin() is None
    assert finals.over  # for now: who resumes tries again
    assert scribe.events == events()
    assert "first measurements stand" in scribe.said[0]
    assert finals_of(scribe).begin().name == "t001"


def test_what_is_told_twice_is_written_once():
    """As by one whose process died after it had told."""
    scribe = Scribe()
    finals = finals_of(scribe)
    one = finals.begin().name
    for _ in range(2):
        finals.told(one, told_of(one, 0.69))
    assert len(scribe.events) == len(events()) + 1


def test_one_that_the_hours_cut_short_is_begun_anew():
    """Tune ends what runs, and says no result of it: that is no fault, and does not end the finals."""
    scribe = Scribe()
    finals = finals_of(scribe)
    one = finals.begin()
    cut = SimpleNamespace(config={"name": one.name, "again": True}, last_result=None)
    TuneNews(scribe, SCHEDULERS["stopping"](2, 2), finals).on_trial_complete(0, [], cut)
    finals.forget()
    assert finals.begin().name == one.name
    assert scribe.said == []


def test_nobody_is_begun_where_all_were():
    done = [*events(), *(rung_line(name, 2, score) | {"event": "again"} for name, score in FIRST.items())]
    assert finals_of(Scribe(done)).over


def test_what_goes_wrong_with_a_second_measurement_is_told_and_not_raised(tmp_path):
    class Bench:
        asked, closed = 0, 0

        def rung(self, recipe, rung):
            self.asked += 1
            raise fault

        def close(self):
            self.closed += 1

    job = type("Job", (), {"run": tmp_path, "last_rung": 2})
    for fault, broken, tries in [
        (ModelFault("NaN"), True, 1),
        (EngineFault("hung"), False, 2),
        (OSError("x"), False, 1),
    ]:
        bench = Bench()
        told = measure_again(bench, job, "t000", Recipe.of([]))
        assert (told["broken"], bench.asked, bench.closed) == (broken, tries, tries - 1)
        assert str(fault) in told["fault"]
    assert "OSError" in (tmp_path / "logs" / "t000-again.txt").read_text()


def test_an_engine_may_fail_once(tmp_path):
    class Bench:
        closed = False

        def rung(self, recipe, rung):
            if not self.closed:
                raise EngineFault("hung")
            return {"score": 0.7, "rung": rung}

        def close(self):
            self.closed = True

    job = type("Job", (), {"run": tmp_path, "last_rung": 2})
    told = measure_again(Bench(), job, "t000", Recipe.of([]))
    assert told == {"event": "again", "trial": "t000", "score": 0.7, "rung": 2}


def test_a_bench_keeps_the_second_answers_apart_and_its_engines(space, tmp_path):
    job = Job(
        base=Path(MODEL), base_key="0", run=tmp_path, store=tmp_path / "store", space=space, device="cpu", trials=1
    )
    with Bench(job) as bench:
        asker, engines = bench.measurer.asker, (bench.engine, bench.base_engine)
        for folder, kept in [((), "answers"), ((ANSWERS_AGAIN,), "answers-again"), ((), "answers")]:
            bench.keep_answers(*folder)
            assert asker.store.root == tmp_path / kept
        assert (asker.engine, asker.base_engine) == engines


@pytest.mark.parametrize("scheduler", SCHEDULERS.values())
def test_no_scheduler_judges_or_remembers_a_second_measurement(scheduler):
    asha = scheduler(2, 2, [("t001", 2, 0.7)])
    told = {"trial": "t001", "rung": 2, "score": 0.1, "status": "finished", "event": "{}", "again": True}
    assert asha.on_trial_result(None, None, told) == "STOP"
    assert asha.rule.seen == {2: {"t001": 0.7}}
    assert not asha.stopped


def test_finalists_come_when_all_trials_have_ended_and_count_as_none(space):
    scribe = Scribe()
    records = trials_of(scribe.events).values()
    searcher = RecipeSearcher(ByChance(space), Budget(5, history=records), list(records), finals_of(scribe, 2))
    assert searcher.suggest("a")["name"] == "t004"
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", {"score": 0.0, "status": "failed", "event": ""})
    recipe = next(one.recipe for one in records if one.name == "t001")
    assert searcher.suggest("c") == {"name": "t001", "recipe": recipe, "again": True}
    assert searcher.suggest("d")["name"] == "t002"
    assert searcher.suggest("e") is None
    assert not searcher.done  # an end here would be an interruption
    seconds = searcher.budget.seconds
    for tune_name, name in (("c", "t001"), ("d", "t002")):
        line = told_of(name, FIRST[name])
        searcher.finals.told(name, line)
        searcher.on_trial_complete(tune_name, {"event": "{}", "status": "finished", "score": 0.1})
    assert searcher.suggest("f") == "FINISHED"
    assert (searcher.budget.begun, searcher.budget.seconds, searcher.number) == (5, seconds, 5)
