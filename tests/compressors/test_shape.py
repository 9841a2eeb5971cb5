"""Shapes read from configs, and recipes refused without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressors.shape import check_recipe, read_shape
from compressors.step import EngineTraits, Infeasible
from compressors.steps import parse_step
from tests.shapes import SMALL


@pytest.mark.parametrize("kind", ["exaone4", "llama", "qwen2", "qwen3"])
def test_shape_is_that_of_the_weights(models: dict[str, Path], kind: str) -> None:
    from safetensors import safe_open

    shape = read_shape(models[kind])
    with safe_open(str(models[kind] / "model.safetensors"), framework="pt") as tensors:
        names = set(tensors.keys())

        def size(name: str) -> list[int]:
            found: list[int] = tensors.get_slice(f"model.{name}.weight").get_shape()
            return found

        assert size("embed_tokens") == [shape.vocab, shape.hidden]
        assert size("layers.0.mlp.down_proj") == [shape.hidden, shape.ffn]
        assert size("layers.0.self_attn.q_proj") == [shape.heads * shape.head_dim, shape.hidden]
        assert size("layers.0.self_attn.k_proj") == [shape.kv_heads * shape.head_dim, shape.hidden]
    assert shape.layers == len({name.split(".")[2] for name in names if ".layers." in name})
    assert shape.tied == ("lm_head.weight" not in names)
    assert shape.quantized is None


def test_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["MambaForCausalLM"]}))
    with pytest.raises(Infeasible, match="MambaForCausalLM"):
        read_shape(tmp_path)


def test_a_folder_without_config_or_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(ValueError, match="hidden_size"):
        read_shape(tmp_path)


DROP, W8A8 = {"step": "drop_layers", "count": 1}, {"step": "quantize", "scheme": "W8A8"}
KEEP_DOWN = {"step": "quantize", "scheme": "W4A16", "keep": [".*down_proj$"]}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ([{"step": "drop_layers", "count": 3}], "leaves 1 of 4 layers"),
        ([DROP, DROP, DROP], "leaves 1 of 2 layers"),
        ([W8A8, DROP], "quantized weights cannot be changed by drop_layers"),
        ([W8A8, W8A8], "quantized weights cannot be changed by quantize"),
        ([W8A8, {"step": "distill", "tokens": 5}], "quantized weights cannot be changed by distill"),
        ([{"step": "quantize", "scheme": "FP8_DYNAMIC"}], "vllm 9 on cpu does not serve scheme FP8_DYNAMIC"),
        ([{"step": "quantize", "scheme": "W4A16"}], "down_proj has 192 inputs"),
        ([{**W8A8, "keep": ["model.layers.9.*"]}], "matches no linear layer"),
        ([{**W8A8, "keep": [".*"]}], "leaves nothing to quantize"),
        ([{**W8A8, "keep": [".*0.self_attn.q_proj"]}], "vLLM fuses the two"),
        ([{"step": "context", "max_position_embeddings": 2048}], "more than the model's 1024"),
        ([{"step": "context", "max_position_embeddings": 64}], "less than 128"),
    ],
)
def test_refusals(recipe: list[dict[str, object]], reason: str) -> None:
    engine = EngineTraits(name="vllm 9 on cpu", device="cpu", schemes=frozenset({"W8A8", "W4A16"}))
    with pytest.raises(Infeasible, match=reason) as raised:
        check_recipe([parse_step(step) for step in recipe], SMALL, engine)
    assert "\n" not in str(raised.value)


def test_gptq_makes_no_fp8(engine: EngineTraits) -> None:
    step = parse_step({"step": "quantize", "scheme": "FP8_DYNAMIC", "method": "gptq"})
    with pytest.raises(Infeasible, match="made by rtn"):
        check_recipe([step], SMALL, engine)


def test_the_last_shape_comes_back(engine: EngineTraits) -> None:
    recipe = [DROP, KEEP_DOWN, {"step": "context", "max_position_embeddings": 512}]
    shape = check_recipe([parse_step(step) for step in recipe], SMALL, engine)
    assert (shape.layers, shape.quantized, shape.max_positions) == (3, "W4A16", 512)
