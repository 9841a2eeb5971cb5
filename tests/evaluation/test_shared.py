"""Two processes of vLLM's that share a model, as several GPUs would: a real engine, on this machine's processors."""

import pytest

from cluster.resources import here
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.processes import of_session, running
from evaluation.protocol import EngineFault
from evaluation.reference import MODEL
from search.serving import engine_settings

pytestmark = pytest.mark.skipif(here()["CPU"] < 2, reason="each takes a core")

CHATS = [[{"role": "user", "content": text}] for text in ("Say hello.", "What is 2 + 3?", "1 2 3 4")]
TEXTS = ["The first of the letters is the one before all others.", "1 2 3 4 5 6 7 8"]


def answers(engine):
    return [one.text for one in engine.generate(CHATS, [Decoding(max_tokens=24)] * len(CHATS)).answers]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    settings = engine_settings("cpu", max_model_len=2048, gpus=2)
    with Engine(settings, tmp_path_factory.mktemp("shared") / "engine.log") as started:
        started.load(MODEL)
        yield started


def test_they_answer_as_one_does(shared, engine):
    engine.load(MODEL)
    assert answers(shared) == answers(engine)
    alone, both = (one.score(TEXTS, top=4, max_tokens=64) for one in (engine, shared))
    for mine, theirs in zip(alone, both, strict=True):
        assert mine.tokens == theirs.tokens
        assert theirs.actual == pytest.approx(mine.actual, abs=0.1)  # sums in bf16, in another order
    assert shared.kernels == engine.kernels


def test_the_seconds_of_both_are_counted(shared):
    done = shared.generate(CHATS, [Decoding(max_tokens=200, exact=True)] * len(CHATS))
    assert done.cpu_seconds > done.seconds  # one process alone computes no more than the clock goes on


def test_another_model_takes_their_place(shared, tmp_path):
    before = of_session(shared._process.pid)
    shared.unload()
    assert len(running(before)) <= len(before) - 2
    shared.load(MODEL)
    assert answers(shared)


def test_what_they_cannot_share_is_refused_by_vllm_too(tmp_path):
    settings = engine_settings("cpu", max_model_len=512).model_copy(update={"tensor_parallel_size": 3})
    with Engine(settings, tmp_path / "log") as three, pytest.raises(EngineFault, match="must be divisible by tensor"):
        three.load(MODEL)


def test_one_that_dies_takes_the_engine_along_and_nothing_stays(shared, tmp_path):
    """As where a GPU falls off the bus: told as a fault of that model, and the next one is served."""
    shared.load(MODEL)
    leader = shared._process.pid
    met = of_session(leader)
    ranks = met - {leader}
    assert len(ranks) >= 2
    import os
    import signal

    os.kill(max(ranks), signal.SIGKILL)
    with pytest.raises(EngineFault):
        answers(shared)
    assert of_session(leader) == running(met) == set()
    shared.load(MODEL)
    assert answers(shared)
