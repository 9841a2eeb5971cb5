"""Measuring with a real engine: what was asked before is not asked again, and a rung only adds."""

import pytest

from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import BadData
from evaluation.engine import Engine
from evaluation.measure import Measurer, Subject
from evaluation.reference import HELDOUT, ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec

BASE = Subject(key="tiny", folder=MODEL)
FRACTIONS = (0.25, 1.0)


def suite(tmp_path, **more):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Say hello."}\n{"prompt": "Count to three."}\n')
    given = {
        "benchmarks": {"kmmlu_redux": str(ITEMS / "kmmlu_redux.jsonl"), "komt_bench": str(ITEMS / "komt_bench.jsonl")},
        "prompts": str(prompts),
        "heldout": str(HELDOUT),
        "limit": 12,
        "heldout_tokens": 64,
    }
    return Suite(SuiteSpec.model_validate(given | more), FRACTIONS)


def measurer_of(engine, tmp_path, passes=1):
    return Measurer(engine, engine, BASE, suite(tmp_path), AnswerStore(tmp_path / "answers"), passes)


@pytest.fixture
def asked(engine, monkeypatch):
    """Counts the prompts that reach the engine."""
    counts = {"generate": 0, "score": 0, "load": 0}
    for name in counts:
        real = getattr(engine, name)

        def counted(first, *rest, _name=name, _real=real, **more):
            counts[_name] += len(first) if _name != "load" else 1
            return _real(first, *rest, **more)

        monkeypatch.setattr(engine, name, counted)
    return counts


def test_answers_are_paid_once_and_a_rung_only_adds(engine, tmp_path, asked):
    measurer = measurer_of(engine, tmp_path)
    low = measurer.measure(BASE, 0)
    first = dict(asked)
    assert measurer.measure(BASE, 0) == low
    assert asked == first
    high = measurer.measure(BASE, 1)
    for name, figures in low.benchmarks.items():
        assert figures.grades.items() <= high.benchmarks[name].grades.items()
    again = measurer_of(engine, tmp_path)
    total = dict(asked)
    assert again.measure(BASE, 1) == high
    assert asked == total
    # two turns for each of 12 KoMT items, one for each of 12 Redux items and 2 prompts; warm-up aside (4 a load)
    assert total["generate"] - 4 * total["load"] == 12 * 2 + 12 + 2
    # and a look at the logits after each load
    assert total["score"] - total["load"] == len(high.benchmarks["agreement"].grades)


def test_the_base_is_like_itself(engine, tmp_path):
    measured = measurer_of(engine, tmp_path).measure(BASE, 0)
    assert measured.benchmarks["likeness"].value == 1.0
    assert measured.benchmarks["agreement"].value == 1.0
    assert measured.benchmarks["agreement"].details["kl"] == pytest.approx(0.0, abs=1e-6)
    assert measured.benchmarks["perplexity"].value == 1.0
    assert measured.benchmarks["perplexity"].tokens == 0


def test_time_per_token_is_all_seconds_over_all_tokens(engine, tmp_path):
    measured = measurer_of(engine, tmp_path, passes=3).measure(BASE, 0)
    assert all(len(passes) == 3 for passes in measured.passes)
    seconds = sum(sorted(timing.seconds for timing in passes)[1] for passes in measured.passes)
    tokens = sum(passes[0].tokens for passes in measured.passes)
    assert measured.sec_per_token == pytest.approx(seconds / tokens)


def test_the_base_is_timed_beside_each_candidate(engine, tmp_path, asked):
    """With one engine one after the other; the base's answers to an earlier candidate's slices are not used again."""
    measurer = measurer_of(engine, tmp_path)
    for key in ("one", "two"):
        before = asked["generate"]
        model, base = measurer.measure_pair(Subject(key=key, folder=MODEL), 0)
        assert asked["generate"] - before >= 2 * len(model.benchmarks["kmmlu_redux"].grades)
        assert model.perf == pytest.approx(base.perf, abs=0.05)


def test_with_an_engine_of_its_own_the_base_takes_turns(engine, tmp_path):
    """Order A B B A A B, in every slice; the base stays loaded, the candidate's answers are its own."""
    order = []

    class Told(Engine):
        """The same warm engine under two names, telling which of them is asked."""

        def __init__(self, name):
            super().__init__(engine.settings, engine.log)
            self.name = name
            self.about = engine.about

        def launch(self):
            pass

        def load(self, folder):
            engine.load(folder)
            self.loaded, self.kernels = folder, engine.kernels

        def generate(self, conversations, decodings, thinking=False):
            order.append(self.name)
            return engine.generate(conversations, decodings, thinking)

        def score(self, texts, top, max_tokens):
            return engine.score(texts, top, max_tokens)

    whole = suite(tmp_path, benchmarks={}, heldout=None)
    store = AnswerStore(tmp_path / "answers")
    measurer = Measurer(Told("A"), Told("B"), BASE, whole, store, passes=3)
    model, base = measurer.measure_pair(Subject(key="candidate", folder=MODEL), 1)
    slices = len(model.passes)
    # each warms up once when it is loaded; then, for every slice, the turns; last, the base's own reference answers
    assert order[: 2 + 6 * slices] == ["A", "B", *["A", "B", "B", "A", "A", "B"] * slices]
    assert set(order[2 + 6 * slices :]) == {"B"}
    assert model.turns
    assert base.turns
    assert all(len(passes) == 3 for passes in (*model.passes, *base.passes))


def test_slices_are_nested_and_cover_everything(tmp_path):
    whole = suite(tmp_path)
    low = {item.id for part in whole.up_to(0) for item in part.items}
    high = {item.id for part in whole.up_to(1) for item in part.items}
    assert low < high
    assert len(high) == 12 + 12 + 2


def test_nothing_to_ask_is_refused():
    with pytest.raises(BadData, match="nothing to time"):
        Suite(SuiteSpec(), FRACTIONS)
    with pytest.raises(BadData, match="unknown benchmark"):
        Suite(SuiteSpec(benchmarks={"mmlu_ultra": "x"}), FRACTIONS)
