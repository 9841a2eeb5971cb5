"""Measuring with a real engine: what was asked before is not asked again, and a rung only adds."""

import pytest

from evaluation.answers import AnswerStore
from evaluation.asking import Asker
from evaluation.benchmarks.base import BadData
from evaluation.engine import Engine
from evaluation.measure import Measurer
from evaluation.record import Subject
from evaluation.reference import HELDOUT, ITEMS, MODEL
from evaluation.speed import sec_per_token
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
    assert sec_per_token(measured.passes) == pytest.approx(seconds / tokens)


def test_the_base_is_timed_beside_each_candidate(engine, tmp_path, asked):
    """With one engine one after the other; the base's answers to an earlier candidate's slices are not used again."""
    measurer = measurer_of(engine, tmp_path)
    for key in ("one", "two"):
        before = asked["generate"]
        model, base = measurer.measure_pair(Subject(key=key, folder=MODEL), 0)
        assert asked["generate"] - before >= 2 * len(model.benchmarks["kmmlu_redux"].grades)
        assert model.perf == pytest.approx(base.perf, abs=0.05)


def test_candidate_and_base_take_turns(engine, tmp_path):
    """Order B A A B B A, slice by slice; the base stays loaded, the candidate's answers are its own."""
    order = []
    whole = suite(tmp_path, benchmarks={}, heldout=None)
    store = AnswerStore(tmp_path / "answers")
    measurer = Measurer(Told("A", engine, order), Told("B", engine, order), BASE, whole, store, passes=3)
    model, base = measurer.measure_pair(Subject(key="candidate", folder=MODEL), 1)
    slices = len(model.passes)
    # each warms up once when it is loaded; one turn over each slice, then health is looked at, then the others
    first, others = ["B", "A"] * slices, ["A", "B", "B", "A"] * slices
    assert order[: 2 + 6 * slices] == ["B", "B", "A", *first[1:], *others]
    assert set(order[2 + 6 * slices :]) == {"B"}  # its own reference answers, once
    assert len(order[2 + 6 * slices :]) == slices
    assert model.turns
    assert base.turns
    assert all(len(passes) == 3 for passes in (*model.passes, *base.passes))
    # the same model answers in the same lengths: that is its speed at fixed lengths too, on what the last rung adds
    assert [len(passes) for passes in model.fixed] == [0, 3]
    assert model.fixed[1] == model.passes[1]


class Told(Engine):
    """The same warm engine under two names, telling which of them is asked."""

    def __init__(self, name, engine, order):
        super().__init__(engine.settings, engine.log)
        self.name, self.real, self.order = name, engine, order
        self.about = engine.about

    def launch(self):
        pass

    def load(self, folder, eager=False):
        self.real.load(folder)
        self.loaded, self.kernels = folder, self.real.kernels

    def generate(self, conversations, decodings, thinking=False):
        self.order.append(self.name)
        return self.real.generate(conversations, decodings, thinking)

    def score(self, texts, top, max_tokens):
        return self.real.score(texts, top, max_tokens)


@pytest.mark.parametrize(("within", "seconds", "more"), [(10.0, 60.0, False), (0.0, 1.0, True), (0.0, 0.0, False)])
def test_on_the_last_rung_passes_go_on_until_the_interval_or_the_time_ends(engine, tmp_path, within, seconds, more):
    whole = suite(tmp_path, benchmarks={}, heldout=None)
    store = AnswerStore(tmp_path / "answers")
    engines = (Told("A", engine, []), Told("B", engine, []))
    measurer = Measurer(*engines, BASE, whole, store, passes=2, within=within, seconds=seconds)
    candidate = Subject(key="candidate", folder=MODEL)
    low, _ = measurer.measure_pair(candidate, 0)
    assert [len(passes) for passes in low.passes] == [2]
    model, base = measurer.measure_pair(candidate, 1)
    counts = {len(passes) for passes in (*model.passes, *base.passes)}
    assert len(counts) == 1
    assert counts.pop() % 2 == 0
    assert any(len(passes) > 2 for passes in model.passes) == more


def test_fixed_lengths_are_the_bases(engine, tmp_path):
    """A model that says less is timed on as many tokens as the base said, each turn after the base's own words."""
    whole = suite(tmp_path, prompts=None, heldout=None, benchmarks={"komt_bench": str(ITEMS / "komt_bench.jsonl")})
    asker = Asker(engine, engine, BASE, AnswerStore(tmp_path / "answers"), whole.graders)
    part = whole.up_to(1)[0]
    candidate = Subject(key="candidate", folder=MODEL)
    said = asker.ask(part, candidate)
    longer = said.model_copy(update={"tokens": [[count + 3 for count in turns] for turns in said.tokens]})
    asked = []
    real = engine.generate
    engine.generate = lambda chats, *rest: asked.append(chats) or real(chats, *rest)
    try:
        timed = asker.ask_as_long(
            part, candidate, longer.model_copy(update={"texts": [["so", "so"]] * len(part.items)})
        )
    finally:
        del engine.generate
    assert timed.fixed[0].tokens == sum(sum(turns) for turns in longer.tokens) != said.passes[0].tokens
    assert timed.passes == said.passes
    two = [item for item in part.items if len(item.turns) == 2]
    assert two
    assert all(chat[1] == {"role": "assistant", "content": "so"} for chat in asked[1])


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
