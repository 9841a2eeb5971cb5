"""What the reference model can do, and what compressing it costs: the figures that make a search on it worth watching.

Measured through the engine on all items, as a search measures. docs/measurements.md has the longer runs.
"""

import pytest

from compressors.build import build
from compressors.data import read_conversations
from compressors.steps import parse_step
from compressors.store import Store
from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import Decoding
from evaluation.measure import Measurer
from evaluation.record import Subject
from evaluation.reference import CALIBRATION, ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec

NAMES = ("kmmlu_pro", "kmmlu_redux", "ko_longrag", "komt_bench")
BUDGET = 20_000  # tokens of distillation, within what a trial of the demo spends
DROP_2 = {"step": "drop_layers", "count": 2}


@pytest.fixture(scope="module")
def perf(engine, tmp_path_factory):
    """A function from steps to the measurement of the model they make; on a part of the items where asked."""
    folder = tmp_path_factory.mktemp("figures")
    base, answers = Subject(key="tiny", folder=MODEL), AnswerStore(folder / "answers")
    store, data = Store(folder / "store"), read_conversations(CALIBRATION)

    def measured(*steps, limit=None):
        spec = SuiteSpec(benchmarks={name: str(ITEMS / f"{name}.jsonl") for name in NAMES}, limit=limit)
        measurer = Measurer(engine, engine, base, Suite(spec, [1.0]), answers, passes=1)
        artifact = build([parse_step(step) for step in steps], MODEL, store, data).artifact
        return measurer.measure(Subject(key=artifact.key, folder=artifact.folder), 0)

    return measured


def test_it_knows_something(perf):
    values = {name: figures.value for name, figures in perf().benchmarks.items()}
    assert values["kmmlu_pro"] >= 0.75
    assert values["kmmlu_redux"] >= 0.75
    assert values["ko_longrag"] >= 0.7
    assert values["komt_bench"] >= 0.7


def test_it_is_worth_compressing(perf):
    """Two layers cost at least 5 points, and distillation wins back part of them within the demo's budget."""
    whole, dropped = perf().perf, perf(DROP_2).perf
    assert whole - dropped >= 0.05
    recovered = perf(DROP_2, {"step": "distill", "tokens": BUDGET}).perf
    assert recovered - dropped >= 0.1 * (whole - dropped)


def test_int8_costs_little(perf):
    assert perf().perf - perf({"step": "quantize", "scheme": "W8A8"}).perf < 0.02


@pytest.mark.parametrize(
    "step",
    [
        {"step": "quantize", "scheme": "W4A16"},
        {"step": "quantize", "scheme": "W8A8", "method": "gptq"},
        {"step": "context", "max_position_embeddings": 1024},
    ],
    ids=lambda step: "-".join(str(value) for value in step.values()),
)
def test_every_other_step_gives_a_model_that_the_engine_serves(engine, perf, step):
    base, found = perf(limit=12), perf(step, limit=12)
    assert found.perf > 0.7 * base.perf
    if step.get("scheme") == "W8A8":
        assert "Int8" in " ".join(found.kernels)  # CPUInt8…, or CutlassInt8… on a GPU
    if step["step"] == "context":
        assert engine.max_model_len == 1024


def test_fp8_is_served(engine, tmp_path):
    """One short prompt: vLLM's CPU build takes about a quarter of a second a token for it (docs/measurements.md)."""
    step = parse_step({"step": "quantize", "scheme": "FP8_DYNAMIC"})
    artifact = build([step], MODEL, Store(tmp_path), read_conversations(CALIBRATION, limit=1)).artifact
    chat, told = [{"role": "user", "content": "1 2 3"}], {}
    for folder in (MODEL, artifact.folder):
        engine.load(folder)
        told[folder] = engine.generate([chat], [Decoding(max_tokens=1)]).answers[0].text
    assert "Fp8" in " ".join(engine.kernels)
    assert told[artifact.folder] == told[MODEL]
