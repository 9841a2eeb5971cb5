"""How near a model is to its base by likelihood, beside plain transformers; and that it is paid for once."""

import pytest
import torch

from evaluation.answers import AnswerStore
from evaluation.asking import TOP
from evaluation.benchmarks.base import Item
from evaluation.measure import Measurer
from evaluation.nearness import LONGEST, TOKENS, answers_of, check_comparable, comparable
from evaluation.record import Record, Subject
from evaluation.reference import ITEMS, MODEL
from evaluation.suite import Slice, Suite, SuiteSpec
from tests.evaluation.broken import with_weights

BASE = Subject(key="tiny", folder=MODEL)
BENCHMARKS = {"kmmlu_redux": str(ITEMS / "kmmlu_redux.jsonl"), "komt_bench": str(ITEMS / "komt_bench.jsonl")}
WEIGHED = {"kmmlu_pro_likelihood": str(ITEMS / "kmmlu_pro.jsonl")}


def suite_of(benchmarks=BENCHMARKS):
    return Suite(SuiteSpec(benchmarks=benchmarks, limit=8), (0.5, 1.0))


@pytest.fixture(scope="module")
def shaken(tmp_path_factory):
    """The reference model with noise, as large as they are, on the weights that end each FFN."""

    def shake(tensors):
        random = torch.Generator().manual_seed(0)
        for name in sorted(one for one in tensors if one.endswith("mlp.down_proj.weight")):
            noise = torch.randn(tensors[name].shape, generator=random)
            tensors[name] += (tensors[name].float().std() * noise).to(tensors[name].dtype)

    return Subject(key="shaken", folder=with_weights(tmp_path_factory.mktemp("shaken") / "model", shake))


def logits_after(folder, chat, answer):
    """Log-probabilities, shape (tokens of the answer, vocabulary), and those tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    prompt = tokenizer.encode(text, add_special_tokens=False)
    said = tokenizer.encode(answer, add_special_tokens=False)[:LONGEST]
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
    return logprobs[len(prompt) - 1 : -1], said


def test_an_answer_is_as_likely_as_in_transformers(engine):
    chat, answer = [{"role": "user", "content": "1 2 3 4"}], "5 6 7 8 9"
    engine.load(MODEL)
    found = engine.score([answer], TOP, 3, conversations=[chat], thinking=False)[0]
    logprobs, said = logits_after(MODEL, chat, answer)
    assert found.tokens[1:] == said[:3]
    assert len(found.actual) == len(found.tokens) - 1 == 3
    expected = [float(logprobs[place, token]) for place, token in enumerate(said[:3])]
    assert found.actual == pytest.approx(expected, abs=0.1)


def test_it_is_the_kl_of_transformers(engine, tmp_path, shaken):
    measurer = Measurer(engine, engine, BASE, suite_of(), AnswerStore(tmp_path), 1)
    mine, theirs = measurer.compare(shaken, 0, timed=False)
    assert all(one.value == pytest.approx(1.0, abs=1e-6) for one in theirs.benchmarks.values())
    parts = comparable(measurer.suite, 0)
    said = answers_of(parts, [measurer.asker.record(part, BASE) for part in parts])
    for one in said[:3]:
        chat = [{"role": "user", "content": one.item.turns[0]}]
        (model, _), (base, _) = (logits_after(who.folder, chat, one.answer) for who in (shaken, BASE))
        whole = torch.nn.functional.kl_div(model, base, log_target=True, reduction="batchmean")
        grade = mine.benchmarks[one.benchmark].grades[one.item.id]
        # over the likeliest tokens and the rest as one it is a lower bound, and the engine rounds to bf16
        assert grade == pytest.approx(float(torch.exp(-whole)), abs=0.05)
    assert mine.perf < 0.99


def test_asked_once_and_the_base_once_for_all(engine, tmp_path, shaken, monkeypatch):
    asked = {"generate": 0, "score": 0}
    for name in asked:
        real = getattr(engine, name)

        def counted(*given, _name=name, _real=real, **more):
            asked[_name] += 1
            return _real(*given, **more)

        monkeypatch.setattr(engine, name, counted)
    measurer = Measurer(engine, engine, BASE, suite_of(), AnswerStore(tmp_path), 2)
    measurer.compare(shaken, 0, timed=False)
    first = dict(asked)
    measurer.compare(shaken, 0, timed=False)
    assert asked == first
    other = Subject(key="another", folder=shaken.folder)
    measurer.compare(other, 0, timed=False)
    assert asked["generate"] - first["generate"] <= 1  # the warm-up of a load: the base had answered
    again, theirs = measurer.compare(other, 0, timed=True)
    assert again.passes and theirs.passes
    assert all(len(one) == 1 for one in again.passes)


def test_what_is_not_timed_is_loaded_without_graphs(engine, tmp_path, shaken, monkeypatch):
    loads, load = [], engine.load

    def noted(folder, eager=False):
        loads.append((folder, eager))
        load(folder, eager)

    monkeypatch.setattr(engine, "load", noted)
    Measurer(engine, engine, BASE, suite_of(), AnswerStore(tmp_path), 2).compare(shaken, 0, timed=False)
    assert {eager for folder, eager in loads if folder == shaken.folder} == {True}


def test_rungs_that_follow_go_on_with_the_pass_that_was_timed(engine, tmp_path, shaken):
    from evaluation.engine import Engine

    class Same(Engine):
        """The same warm engine under another name, so that the two take turns."""

        def __init__(self):
            super().__init__(engine.settings, engine.log)
            self.about = engine.about

        def launch(self):
            pass

        def load(self, folder, eager=False):
            engine.load(folder, eager)
            self.loaded, self.kernels = folder, engine.kernels

        def generate(self, *given, **more):
            if engine.loaded != self.loaded:
                engine.load(self.loaded)
            return engine.generate(*given, **more)

        def score(self, *given, **more):
            if engine.loaded != self.loaded:
                engine.load(self.loaded)
            return engine.score(*given, **more)

    measurer = Measurer(Same(), Same(), BASE, suite_of(), AnswerStore(tmp_path), 2)
    near, _ = measurer.compare(shaken, 0, timed=True)
    whole, _ = measurer.measure_pair(shaken, 0)
    firsts = [passes[0] for passes in whole.passes]
    assert firsts == [passes[0] for passes in near.passes]


def part_of(name, count):
    return Slice(benchmark=name, rung=0, items=tuple(Item(id=f"{name}{n}", turns=("?",)) for n in range(count)))


def test_benchmarks_in_turn_and_a_few_thousand_tokens_at_most():
    parts = [part_of("long", 100), part_of("short", 2)]
    records = [
        Record(texts=[["x"]] * 100, tokens=[[10 * LONGEST]] * 100),
        Record(texts=[["y"], [" "]], tokens=[[3], [1]]),
    ]
    chosen = answers_of(parts, records)
    assert [one.item.id for one in chosen][:3] == ["long0", "short0", "long1"]
    assert "short1" not in {one.item.id for one in chosen}  # it said nothing
    assert len(chosen) == TOKENS // LONGEST + 1


def test_where_nothing_is_said_there_is_nothing_to_compare():
    only = Suite(SuiteSpec(benchmarks=WEIGHED | BENCHMARKS, limit=8), (0.5, 1.0))
    check_comparable(only, 0)
    only.slices = [part for part in only.slices if part.benchmark in WEIGHED]
    with pytest.raises(ValueError, match="rung 1 goes by likelihood"):
        check_comparable(only, 0)
