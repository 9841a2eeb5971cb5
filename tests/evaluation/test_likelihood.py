"""Options weighed by their likelihood, beside plain transformers; and thinking, which readers must be able to tell."""

import pytest
import torch

from evaluation.answers import AnswerStore
from evaluation.benchmarks import benchmark, read_rows
from evaluation.benchmarks.base import BadData, Decoding
from evaluation.benchmarks.choice_reader import after_thinking
from evaluation.measure import Measurer
from evaluation.protocol import EngineFault
from evaluation.record import Subject
from evaluation.reference import ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec

BASE = Subject(key="tiny", folder=MODEL)
WEIGHED = {"kmmlu_redux_likelihood": str(ITEMS / "kmmlu_redux.jsonl")}


def suite_of(**more):
    return Suite(SuiteSpec.model_validate({"benchmarks": WEIGHED, "limit": 10} | more), (0.4, 1.0))


def serve_tiny(engine):
    if engine.loaded != MODEL:
        engine.load(MODEL)


def by_transformers(chats, options):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    found = []
    for chat, several in zip(chats, options, strict=True):
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        prompt = tokenizer.encode(text, add_special_tokens=False)
        for option in several:
            whole = prompt + tokenizer.encode(option, add_special_tokens=False)
            with torch.no_grad():
                logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            found.append(sum(float(logprobs[i - 1, whole[i]]) for i in range(len(prompt), len(whole))))
    return found


def test_options_are_as_likely_as_in_transformers(engine):
    """Sums over the tokens of each option to within what bf16 rounds."""
    asked = benchmark("kmmlu_redux_likelihood")
    items = asked.items(read_rows(ITEMS / "kmmlu_redux.jsonl", asked.columns))[:6]
    chats = [[{"role": "user", "content": item.turns[0]}] for item in items]
    options = [(*asked.options(item), "네.") for item in items]
    serve_tiny(engine)
    found = engine.choose(chats, options)
    flat = torch.tensor([value for one in found for value in one])
    expected = torch.tensor(by_transformers(chats, options))
    likely = expected > -5  # what is all but impossible has a logarithm that rounding moves by more
    assert likely.sum() >= len(items)
    assert (flat - expected)[likely].abs().max() < 0.15
    assert ((flat - expected).abs() / expected.abs().clamp(min=1)).max() < 0.15
    best = [one[:4].index(max(one[:4])) for one in found]
    theirs = expected.reshape(len(items), 5)[:, :4].argmax(1).tolist()
    assert sum(mine == their for mine, their in zip(best, theirs, strict=True)) >= len(items) - 1


def test_options_that_do_not_fit_are_refused(engine):
    serve_tiny(engine)
    with pytest.raises(EngineFault, match="does not fit max_model_len"):
        engine.choose([[{"role": "user", "content": "가나다 " * 1500}]], [["1", "2"]])
    assert engine.choose([[{"role": "user", "content": "1 2 3"}]], [["4", "5"]])


def test_weighed_once_and_never_timed(engine, tmp_path, monkeypatch):
    suite = suite_of(benchmarks=WEIGHED | {"kmmlu_redux": str(ITEMS / "kmmlu_redux.jsonl")})
    asked = []
    real = engine.choose
    monkeypatch.setattr(engine, "choose", lambda chats, options: asked.append(len(chats)) or real(chats, options))
    measurer = Measurer(engine, engine, BASE, suite, AnswerStore(tmp_path), 1)
    low, high = measurer.measure(BASE, 0), measurer.measure(BASE, 1)
    assert asked == [4, 6]
    weighed = high.benchmarks["kmmlu_redux_likelihood"]
    assert low.benchmarks["kmmlu_redux_likelihood"].grades.items() <= weighed.grades.items()
    assert (len(weighed.grades), weighed.tokens, weighed.passes) == (10, 0, [])
    assert weighed.value >= 0.8  # tiny answers 0.95 of all items right when it generates
    assert high.passes == high.benchmarks["kmmlu_redux"].passes
    assert measurer.measure(BASE, 1) == high
    assert asked == [4, 6]


def test_weighing_alone_gives_nothing_to_time():
    with pytest.raises(BadData, match="nothing to time: name at least one benchmark that generates"):
        suite_of()


def test_what_the_prompt_opened_shows_in_the_answer(engine):
    """With thinking on, the template writes `<think>`: an answer cut before its end is all thought."""
    serve_tiny(engine)
    chat = [{"role": "user", "content": "Say hello."}]
    (thinking,) = engine.generate([chat], [Decoding(max_tokens=4)], thinking=True).answers
    (plain,) = engine.generate([chat], [Decoding(max_tokens=4)]).answers
    assert thinking.text.startswith("<think>")
    assert "</think>" in thinking.text or after_thinking(thinking.text) == ""
    assert "<think>" not in plain.text
