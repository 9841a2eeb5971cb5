"""Saved models: read alike by old and new transformers, nothing lost, nothing not finite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.quantize import Quantize
from compressors.step import Conversations, StepFault
from compressors.store import Store


@pytest.mark.parametrize("kind", ["exaone4", "llama", "qwen2", "qwen3"])
def test_a_model_comes_back_as_it_was(models: dict[str, Path], kind: str, tmp_path: Path) -> None:
    import torch

    model, tokenizer = checkpoint.load(models[kind], "cpu")
    checkpoint.save(model, tokenizer, tmp_path, files_from=models[kind])
    again, _ = checkpoint.load(tmp_path, "cpu")
    ids = torch.arange(6, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / name).read_bytes() == (models[kind] / name).read_bytes()


@pytest.mark.parametrize("kind", ["exaone4", "llama", "qwen2", "qwen3"])
def test_config_speaks_both_dialects(models: dict[str, Path], kind: str, tmp_path: Path) -> None:
    model, tokenizer = checkpoint.load(models[kind], "cpu")
    checkpoint.save(model, tokenizer, tmp_path, files_from=models[kind])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    theta = 1_000_000.0 if kind == "exaone4" else 500_000.0
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == theta
    if kind == "exaone4":
        wanted = {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        assert config["rope_scaling"] == {**wanted, "original_max_position_embeddings": 512}
    else:
        assert config["rope_scaling"] is None
    if kind != "llama":
        assert config["layer_types"] == ["full_attention"] * config["num_hidden_layers"]
    assert "_name_or_path" not in config


def test_an_old_config_gains_the_new_names(tmp_path: Path) -> None:
    old = {"num_hidden_layers": 2, "rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "bfloat16"}
    checkpoint.dump_config(old, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 5e5}
    assert config["dtype"] == "bfloat16"


def test_a_published_yarn_snippet_keeps_its_scaling(tmp_path: Path) -> None:
    """Qwen2.5's README names the kind `type`; read by transformers itself."""
    from transformers import AutoConfig

    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    old = {"model_type": "qwen2", "num_hidden_layers": 2, "rope_theta": 1e6, "rope_scaling": yarn}
    checkpoint.dump_config({**old, "max_position_embeddings": 32768}, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_scaling"] == yarn | {"rope_type": "yarn"}
    assert config["rope_parameters"] == yarn | {"rope_type": "yarn", "rope_theta": 1e6}
    read = AutoConfig.from_pretrained(str(tmp_path)).rope_parameters
    assert (read["rope_type"], read["factor"], read["rope_theta"]) == ("yarn", 4.0, 1e6)
    plain = {"num_hidden_layers": 2, "rope_theta": 1e6, "rope_parameters": {"type": "default", "rope_theta": 1e6}}
    checkpoint.dump_config(plain, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["rope_scaling"] is None


def test_tied_embeddings_are_stored_once(base: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    model, tokenizer = checkpoint.load(base, "cpu")
    checkpoint.save(model, tokenizer, tmp_path, files_from=base)
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as tensors:
        assert "lm_head.weight" not in tensors.keys()  # noqa: SIM118 - not a dict


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(base: Path, tmp_path: Path, value: float) -> None:
    model, tokenizer = checkpoint.load(base, "cpu")
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = value
    with pytest.raises(StepFault, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or Inf"):
        checkpoint.save(model, tokenizer, tmp_path, files_from=base)
    assert not list(tmp_path.iterdir())


def test_layer_types_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFault, match="3 layer_types for 2 layers"):
        checkpoint.dump_config({"layer_types": ["full_attention"] * 3, "num_hidden_layers": 2}, tmp_path)


def test_quantized_weights_come_back_as_the_models_own(base: Path, tmp_path: Path, data: Conversations) -> None:
    """compressed-tensors leaves them on the host, and hands out copies: on a GPU none of these would learn."""
    folder = build([Quantize(scheme="W4A16")], base, Store(tmp_path), data).artifact.folder
    model, _ = checkpoint.load_dense(folder, "cpu")
    assert {type(module._parameters) for module in model.modules()} == {dict}
    assert "Linear.forward" in model.lm_head.forward.__qualname__
