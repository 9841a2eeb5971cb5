"""A small space and ledger lines for tests that need no model."""

import shutil

import pytest

from evaluation.reference import MODEL
from search.recipe import Recipe
from search.space_file import load_space

SPACE = """
steps:
  - step: drop_layers
    optional: true
    count: [1, 2, 3]
  - step: distill
    optional: true
    lr: {low: 1.0e-4, high: 1.0e-3, log: true}
    tokens: 1000
  - step: quantize
    optional: true
    scheme: [W8A8, W4A16]
seeds:
  - [{step: quantize, scheme: W8A8}]
  - [{step: drop_layers, count: 2}, {step: distill, tokens: 1000, lr: 3.0e-4}]
evaluation:
  benchmarks: {kmmlu_pro: reference:items/kmmlu_pro.jsonl}
calibration: reference:text/calibration.jsonl
rungs:
  - {items: 0.1, tokens: 0.1}
  - {items: 0.5, tokens: 0.5}
  - {items: 1.0, tokens: 1.0}
"""


@pytest.fixture
def space_text():
    return SPACE


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return load_space(str(path))


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "space.yaml").write_text(text)
        return str(tmp_path / "space.yaml")

    return write


@pytest.fixture
def weightless(tmp_path):
    """The reference model's config and tokenizer, no weights."""
    return shutil.copytree(MODEL, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))


def rung_line(trial, rung, score, recipe=None, **more):
    """A ledger line as a bench writes it."""
    steps = Recipe.of(recipe if recipe is not None else [{"step": "quantize", "scheme": "W8A8"}])
    return {
        "event": "rung",
        "trial": trial,
        "recipe": steps.to_list(),
        "recipe_hash": steps.hash,
        "rung": rung,
        "fidelity": {"items": 1.0, "tokens": 1.0},
        "perf": 0.8,
        "perf_base": 0.8,
        "perf_norm": 1.0,
        "sec_per_token": 0.001,
        "sec_per_token_base": 0.001,
        "speed_norm": 2 * score - 1.0,
        "speed_low": 2 * score - 1.01,
        "speed_high": 2 * score - 0.99,
        "score": score,
        "score_low": score - 0.01,
        "score_high": score + 0.01,
        "length_ratio": 1.0,
        "benchmarks": {"kmmlu_pro": {"value": 0.8, "n": 10, "tokens": 20, "seconds": 0.02}},
        "artifact": "0" * 32,
        "size_bytes": 1000,
        "stages": [{"step": "quantize", "key": "0" * 32, "cached": False, "seconds": 1.0, "peak_gpu_bytes": 0}],
        "engine": "vllm 0.32.0",
        "device": "a processor",
        "clock": "cpu",
        "kernels": [],
    } | more


def end_line(trial, status, recipe=None, reason=""):
    steps = Recipe.of(recipe if recipe is not None else [{"step": "quantize", "scheme": "W8A8"}])
    return {"event": "end", "trial": trial, "recipe": steps.to_list(), "status": status, "reason": reason}
