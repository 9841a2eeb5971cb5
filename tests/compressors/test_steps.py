"""Steps from plain dicts: what is accepted, and one-line errors that name what was wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compressors.steps import STEPS, parse_step, step_names


def test_every_step_parses_back_from_its_own_dump() -> None:
    for fields in (
        {"step": "drop_layers", "count": 2},
        {"step": "drop_layers", "by": "explicit", "layers": [2, 1]},
        {"step": "drop_layers", "by": "evolutionary_kl", "count": 2, "generations": 3},
        {"step": "prune_ffn", "width": 1024},
        {"step": "prune_heads", "kv_heads": 4},
        {"step": "prune_hidden", "hidden": 1024},
        {"step": "trim_vocab"},
        {"step": "trim_vocab", "mode": "lossy", "keep": 1000},
        {"step": "generation", "stop": [3, "[|user|]"]},
        {"step": "distill", "tokens": 1000},
        {"step": "sparsify", "method": "wanda"},
        {"step": "quantize", "scheme": "W8A8"},
        {"step": "nf4"},
        {"step": "context", "max_position_embeddings": 4096},
    ):
        step = parse_step(fields)
        assert parse_step(step.model_dump(mode="json")) == step
        assert type(step) in STEPS


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"step": "drop_layer", "count": 2}, ["drop_layer", *step_names()]),
        ({"count": 2}, ["no field 'step'", *step_names()]),
        ({"step": "drop_layers", "count": 0}, ["drop_layers", "count", "0"]),
        ({"step": "drop_layers"}, ["drop_layers", "count", "missing"]),
        ({"step": "drop_layers", "count": 1, "colour": "red"}, ["drop_layers", "colour", "red"]),
        ({"step": "quantize", "scheme": "W2A2"}, ["quantize", "scheme", "W2A2"]),
        ({"step": "quantize", "scheme": "W8A8", "keep": ["("]}, ["quantize", "keep", "("]),
        ({"step": "distill", "tokens": 10, "lr": -1}, ["distill", "lr", "-1"]),
        ({"step": "drop_layers", "count": True}, ["drop_layers", "count", "True is no number"]),
    ],
)
def test_errors_are_one_line_and_name_the_fault(fields: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        parse_step(fields)
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_every_field_has_a_description() -> None:
    for kind in STEPS:
        for name, field in kind.model_fields.items():
            assert name == "step" or field.description, f"{kind.__name__}.{name}"


def test_importing_steps_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'llmcompressor', 'datasets'}"
    code = f"import sys, compressors.steps, compressors.build; print(sorted(set(sys.modules) & {heavy}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_rung_scales_training_and_nothing_else() -> None:
    distill = parse_step({"step": "distill", "tokens": 1000})
    assert distill.at(0.25).model_dump()["tokens"] == 250
    drop = parse_step({"step": "drop_layers", "count": 1})
    assert drop.at(0.25) == drop
