"""Measuring with a real engine: what was asked before is not asked again, and a rung only adds."""

import pytest

from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import BadData
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
    measurer = Measurer(engine, suite(tmp_path), AnswerStore(tmp_path / "answers"), passes=1)
    low = measurer.measure(BASE, 0, BASE)
    first = dict(asked)
    assert measurer.measure(BASE, 0, BASE) == low
    assert asked == first
    high = measurer.measure(BASE, 1, BASE)
    for name, figures in low.benchmarks.items():
        assert figures.grades.items() <= high.benchmarks[name].grades.items()
    again = Measurer(engine, suite(tmp_path), AnswerStore(tmp_path / "answers"), passes=1)
    total = dict(asked)
    assert again.measure(BASE, 1, BASE) == high
    assert asked == total
    # two turns for each of 12 KoMT items, one for each of 12 Redux items and 2 prompts; warm-up aside (4 a load)
    assert total["generate"] - 4 * total["load"] == 12 * 2 + 12 + 2
    assert total["score"] == len(high.benchmarks["agreement"].grades)


def test_the_base_is_like_itself(engine, tmp_path):
    measured = Measurer(engine, suite(tmp_path), AnswerStore(tmp_path / "answers"), passes=1).measure(BASE, 0, BASE)
    assert measured.benchmarks["likeness"].value == 1.0
    assert measured.benchmarks["agreement"].value == 1.0
    assert measured.benchmarks["agreement"].details["kl"] == pytest.approx(0.0, abs=1e-6)
    assert measured.benchmarks["perplexity"].value == 1.0
    assert measured.benchmarks["perplexity"].tokens == 0


def test_time_per_token_is_all_seconds_over_all_tokens(engine, tmp_path):
    measured = Measurer(engine, suite(tmp_path), AnswerStore(tmp_path / "answers"), passes=3).measure(BASE, 0, BASE)
    assert all(len(passes) == 3 for passes in measured.passes)
    seconds = sum(sorted(timing.seconds for timing in passes)[1] for passes in measured.passes)
    tokens = sum(passes[0].tokens for passes in measured.passes)
    assert measured.sec_per_token == pytest.approx(seconds / tokens)


def test_new_timings_can_be_asked_for(engine, tmp_path, asked):
    measurer = Measurer(engine, suite(tmp_path), AnswerStore(tmp_path / "answers"), passes=1)
    measurer.measure(BASE, 0, BASE)
    before = asked["generate"]
    measurer.measure(BASE, 0, BASE, retime="beside another")
    assert asked["generate"] > before


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
