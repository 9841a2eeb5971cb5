"""Models that are broken where the base is not are told by name; those that are merely bad are measured."""

import pytest
import torch

from evaluation import health
from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import Decoding
from evaluation.health import Health, ModelFault, health_of, look, signs
from evaluation.measure import Measurer
from evaluation.protocol import Answer, EngineFault
from evaluation.record import Subject
from evaluation.reference import ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec
from tests.evaluation import broken

WELL = Health(answers=20)


def answer(text="ok", finish="stop", **more):
    return Answer(text=text, tokens=3, prompt_tokens=5, finish=finish, **more)


def test_signs_are_counted_by_answer():
    seen = health_of(
        [
            answer(),
            answer(" \n"),
            answer(finish="length", bad_bytes=1),  # a character that the limit cut in two
            answer(bad_bytes=1),
            answer("", finish="length", bad_bytes=9, unknown=4),
        ]
    )
    assert seen == Health(answers=5, cut=2, empty=2, garbled=2, unknown=1)
    assert str(seen) == "40% cut, 40% empty, 40% garbled, 20% unknown"


@pytest.mark.parametrize(
    ("model", "base", "found"),
    [
        ({"a": Health(answers=20, cut=20)}, {"a": WELL}, {"cut": ["a"]}),
        ({"a": Health(answers=20, cut=18)}, {"a": WELL}, {"cut": ["a"]}),
        ({"a": Health(answers=20, cut=17)}, {"a": WELL}, {}),
        ({"a": Health(answers=4, cut=4)}, {"a": Health(answers=4)}, {}),  # too few to tell
        ({"a": Health(answers=20, cut=20)}, {"a": Health(answers=20, cut=11)}, {}),  # the limit cuts the base too
        # a benchmark whose limit cuts everybody says nothing; of those that do, one that is well acquits
        (
            {"a": Health(answers=20, cut=20), "b": Health(answers=5, cut=5)},
            {"a": Health(answers=20, cut=20), "b": Health(answers=5)},
            {"cut": ["b"]},
        ),
        ({"a": Health(answers=400, empty=400), "b": WELL}, {"a": WELL, "b": WELL}, {}),
        ({"a": Health(answers=20, empty=20, garbled=20)}, {"a": WELL}, {"empty": ["a"], "garbled": ["a"]}),
        ({"a": WELL}, {"a": WELL}, {}),
        ({"a": Health()}, {"a": Health()}, {}),  # stored before answers were looked at
    ],
)
def test_what_no_working_model_shows_is_a_fault(model, base, found):
    assert signs(model, base) == found


@pytest.fixture(scope="module")
def measurer(engine, tmp_path_factory):
    """Six questions with a limit of 32 tokens; the base's answers are paid once."""
    suite = Suite(SuiteSpec(benchmarks={"kmmlu_redux": str(ITEMS / "kmmlu_redux.jsonl")}, limit=6), [1.0])
    store = AnswerStore(tmp_path_factory.mktemp("answers"))
    return Measurer(engine, engine, Subject(key="tiny", folder=MODEL), suite, store, passes=1)


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    folder = broken.endless(tmp_path_factory.mktemp("endless") / "model")
    return Subject(key="endless", folder=folder)


def test_a_model_that_never_stops_is_told(measurer, endless, monkeypatch):
    monkeypatch.setattr(health, "FREE_TOKENS", 64)
    with pytest.raises(ModelFault, match="the model never stops: of 6 answers 100% cut; the base's: all answers end"):
        measurer.measure_pair(endless, 0)


def test_who_is_cut_but_ends_when_it_may_is_no_fault(measurer, endless, monkeypatch):
    """A limit of 32 tokens does not tell an endless model from one that talks much: it is given room."""
    monkeypatch.setattr("evaluation.measure.ends", lambda *_: True)
    model, _ = measurer.measure_pair(endless, 0)
    assert model.health == {"kmmlu_redux": Health(answers=6, cut=6)}


def test_a_model_that_gives_no_answer_is_told(measurer, tmp_path):
    model = Subject(key="silent", folder=broken.silent(tmp_path / "model"))
    with pytest.raises(ModelFault, match="the model gives no answer: of 6 answers 100% empty; the base's: all"):
        measurer.measure_pair(model, 0)


@pytest.mark.parametrize(("make", "sign"), [(broken.bytes_alone, "garbled"), (broken.beyond_its_tokenizer, "unknown")])
def test_answers_that_are_no_text_are_seen(engine, tmp_path, make, sign):
    """vLLM leaves bytes that are no UTF-8, and tokens without text, out of what it hands over: its tokens tell."""
    engine.load(make(tmp_path / "model"))
    chat = [{"role": "user", "content": "Say hello."}]
    seen = health_of(engine.generate([chat] * 5, [Decoding(max_tokens=16)] * 5).answers)
    assert getattr(seen, sign) == 5
    assert sign in signs({"a": seen}, {"a": WELL})


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("tensor", "value", "place"),
    [
        (NORM, torch.nan, 3),
        (NORM, torch.inf, ...),
        ("model.layers.3.mlp.up_proj.weight", torch.nan, (0, 0)),
    ],
)
def test_logits_that_are_no_numbers_are_seen_right_after_the_load(engine, tmp_path, tensor, value, place):
    engine.load(broken.number_in(tmp_path / "model", tensor, value, place))
    with pytest.raises(ModelFault, match="logits are NaN or infinite"):
        look(engine)


def test_a_sound_model_is_looked_at_and_nothing_said(engine):
    engine.load(MODEL)
    look(engine)


def test_an_answer_that_fills_the_context_leaves_none_for_the_next_turn(engine):
    engine.load(MODEL)
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "1 2 3 4 " * 2000}]
    longer = [*chat, {"role": "user", "content": "5"}]
    short = [{"role": "user", "content": "Say hello."}]
    full, said = engine.generate([longer, short], [Decoding(max_tokens=4)] * 2).answers
    assert (full.text, full.tokens, full.finish) == ("", 0, "length")
    assert said.tokens > 0
    [alone] = engine.generate([longer], [Decoding(max_tokens=4)]).answers
    assert alone == full


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (broken.without_template, "no chat template"),
        (
            lambda folder: broken.with_template(folder, "{{ raise_exception('roles must alternate') }}"),
            "chat template fails: TemplateError: roles must alternate",
        ),
        (
            lambda folder: broken.with_template(folder, "{{ messages[0].content + 3 }}"),
            "chat template fails: TypeError",
        ),
    ],
)
def test_a_conversation_that_cannot_be_put_is_refused_and_the_engine_goes_on(engine, tmp_path, make, said):
    engine.load(make(tmp_path / "model"))
    with pytest.raises(EngineFault, match=said):
        engine.generate([[{"role": "user", "content": "1"}]], [Decoding(max_tokens=2)])
    assert len(engine.complete(["1 2 3"], max_tokens=2, temperature=0.0, seed=0)) == 1
