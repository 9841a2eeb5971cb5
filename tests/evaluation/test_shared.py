"""Two processes of vLLM's that share a model, as several GPUs would: a real engine, on this machine's processors.

Each model takes them most of a minute: both import vLLM anew.
"""

import json
import os
import signal
from pathlib import Path

import pytest

from cluster.resources import here
from compressors.build import build
from compressors.quantize import Quantize
from compressors.store import Store
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.processes import of_session, running
from evaluation.protocol import EngineFault
from evaluation.reference import CALIBRATION, MODEL
from search.bench import NO_DATA
from search.serving import engine_settings

pytestmark = pytest.mark.skipif(here()["CPU"] < 2, reason="each takes a core")

ROWS = [json.loads(line)["conversations"] for line in Path(CALIBRATION).read_text().splitlines()[:16]]
CHATS = [row[:1] for row in ROWS]
TICK = os.sysconf("SC_CLK_TCK")


def answers(engine):
    return [one.text for one in engine.generate(CHATS, [Decoding(max_tokens=24)] * len(CHATS)).answers]


def computed(pids):
    """Processor seconds so far, as the kernel counts them."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / TICK


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    settings = engine_settings("cpu", max_model_len=2048, gpus=2)
    with Engine(settings, tmp_path_factory.mktemp("shared") / "engine.log") as started:
        started.load(MODEL)
        yield started


def test_they_answer_as_one_does(shared, engine):
    engine.load(MODEL)
    assert answers(shared) == answers(engine)
    texts = [row[1]["content"] for row in ROWS]
    alone, both = (
        one.score(texts, top=4, max_tokens=64, conversations=CHATS, thinking=False) for one in (engine, shared)
    )
    for mine, theirs in zip(alone, both, strict=True):
        assert mine.tokens == theirs.tokens
        assert theirs.actual == pytest.approx(mine.actual, abs=0.1)  # bf16, summed in another order
    assert shared.kernels == engine.kernels


def test_the_seconds_of_all_are_counted(shared):
    everyone = of_session(shared._process.pid)
    before = computed(everyone)
    done = shared.generate(CHATS, [Decoding(max_tokens=200, exact=True)] * len(CHATS))
    assert done.cpu_seconds == pytest.approx(computed(everyone) - before, rel=0.3)


def test_groups_of_four_bits_are_shared_too(shared, engine, tmp_path):
    step = Quantize(scheme="W4A16", group_size=128)
    built = build([step], Path(MODEL), Store(tmp_path / "store"), NO_DATA)
    for one in (shared, engine):
        one.load(built.artifact.folder)
    assert answers(shared) == answers(engine)


def test_when_one_dies_its_model_is_at_fault_and_the_next_is_served(shared):
    leader = shared._process.pid
    met = of_session(leader)
    os.kill(max(met), signal.SIGKILL)
    with pytest.raises(EngineFault):
        answers(shared)
    assert of_session(leader) == running(met) == set()


def test_what_does_not_come_apart_is_refused_by_vllm_too(tmp_path):
    settings = engine_settings("cpu", max_model_len=512).model_copy(update={"tensor_parallel_size": 3})
    with Engine(settings, tmp_path / "log") as three, pytest.raises(EngineFault, match="must be divisible by tensor"):
        three.load(MODEL)
