"""Shapes read from configs, and recipes refused without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressors.shape import check_recipe, read_shape
from compressors.step import EngineTraits, Infeasible
from compressors.steps import parse_step
from tests.shapes import EXAONE, SMALL


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


W4A16 = {"step": "quantize", "scheme": "W4A16"}
BLOCKS = {"step": "quantize", "scheme": "FP8_BLOCK"}


@pytest.mark.parametrize(
    ("gpus", "recipe", "reason"),
    [
        (1, [], None),
        (2, [], None),
        (8, [{"step": "prune_ffn", "width": 1024}, W8A8], None),
        (16, [], None),  # two GPUs share each KV head
        (64, [], "the model: vLLM cannot spread it over 64 GPUs: 32 attention heads are no multiple of 64"),
        (3, [], "32 attention heads are no multiple of 3"),
        (4, [{"step": "prune_heads", "kv_heads": 4}], None),
        (4, [{"step": "prune_heads", "kv_heads": 6}], "prune_heads: .* over 4 GPUs: 6 KV heads are no multiple of 4"),
        (8, [{"step": "prune_heads", "kv_heads": 5}], "prune_heads: .* 20 attention heads are no multiple of 8"),
        (8, [{"step": "prune_ffn", "width": 1152}, W4A16], "down_proj has 144 inputs on each of 8 GPUs"),
        (8, [{"step": "prune_ffn", "width": 1152}, W4A16 | {"keep": [".*down_proj$"]}], None),
        (32, [W4A16], "o_proj has 64 inputs on each of 32 GPUs"),
        (32, [W4A16 | {"group_size": 64}], None),
        (4, [BLOCKS], None),
        (8, [BLOCKS], "k_proj has 2048 inputs and 64 outputs on each of 8 GPUs"),
        (4, [{"step": "nf4"}], "spreads no model that bitsandbytes quantized over 4 GPUs"),
        (4, [{"step": "trim_vocab"}], None),
        (6, [{"step": "trim_vocab"}], "6 GPUs do not divide 64"),
    ],
)
def test_what_several_gpus_cannot_share_is_refused(
    gpus: int, recipe: list[dict[str, object]], reason: str | None
) -> None:
    engine = EngineTraits(
        name="any", device="cuda", gpus=gpus, schemes=frozenset({"W8A8", "W4A16", "FP8_BLOCK"}),
        features=frozenset({"nf4"}),
    )  # fmt: skip
    steps = [parse_step(step) for step in recipe]
    if reason is None:
        check_recipe(steps, EXAONE, engine)
        return
    with pytest.raises(Infeasible, match=reason) as raised:
        check_recipe(steps, EXAONE, engine)
    assert "\n" not in str(raised.value)


def test_an_embedding_is_filled_up_before_it_is_shared() -> None:
    engine = EngineTraits(name="any", device="cuda", gpus=3, schemes=frozenset())
    able = EXAONE.model_copy(update={"heads": 24, "kv_heads": 6, "ffn": 4608, "vocab": 3 * 64 - 5})
    check_recipe([], able, engine)
    with pytest.raises(Infeasible, match=r"the model: .* 256 rows of its embedding are no multiple of 3"):
        check_recipe([], able.model_copy(update={"vocab": 193}), engine)


def test_gptq_makes_no_fp8(engine: EngineTraits) -> None:
    step = parse_step({"step": "quantize", "scheme": "FP8_DYNAMIC", "method": "gptq"})
    with pytest.raises(Infeasible, match="made by rtn"):
        check_recipe([step], SMALL, engine)


def test_the_last_shape_comes_back(engine: EngineTraits) -> None:
    recipe = [DROP, KEEP_DOWN, {"step": "context", "max_position_embeddings": 512}]
    shape = check_recipe([parse_step(step) for step in recipe], SMALL, engine)
    assert (shape.layers, shape.quantized, shape.max_positions) == (3, "W4A16", 512)
