"""What a model looks like and whether a recipe fits it, from `config.json` alone: no weights, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressors.sharding import check_shards
from compressors.step import EngineTraits, Infeasible, ModelShape, Step
from compressors.tokens import KEPT

ARCHITECTURES = ("Exaone4ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")

# vLLM 0.14.1 and 0.32 read head_dim from the configs of the others; of these it takes hidden / heads
HEAD_DIM_IMPLIED = ("Qwen2ForCausalLM",)

# compressed-tensors' names of storage formats, and the scheme each stands for among those made here
FORMATS = {"int-quantized": "W8A8", "pack-quantized": "W4A16", "float-quantized": "FP8_DYNAMIC", "bitsandbytes": "NF4"}


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in `folder`.

    Raises `Infeasible` for an architecture that is not one of `ARCHITECTURES`, `ValueError` when the folder
    has no readable `config.json` or the config lacks a size.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a model folder: it has no config.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    named = config.get("architectures") or []
    architecture = named[0] if named else config.get("model_type", "unnamed")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Infeasible(f"architecture {architecture} is not supported; supported are {known}")
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return ModelShape(
            architecture=architecture,
            layers=config["num_hidden_layers"],
            hidden=hidden,
            ffn=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            max_positions=config["max_position_embeddings"],
            quantized=_quantized(config),
            trimmed=(folder / KEPT).is_file(),
        )
    except KeyError as missing:
        raise ValueError(f"{path} does not state {missing}") from None


def check_recipe(steps: Sequence[Step], shape: ModelShape, engine: EngineTraits) -> ModelShape:
    """Walk `steps` from a model of `shape` towards `engine`; return the shape of the result.

    Raises `Infeasible` with the first step that does not fit, in one line; or with the result, where its
    architecture cannot state it, or the engine's GPUs cannot share it: a width step may leave it so if a later one puts
    it right.
    """
    for step in steps:
        if shape.quantized is not None and not step.keeps_quantized():
            raise Infeasible(f"quantized weights cannot be changed by {step.step}")
        step.check(shape, engine)
        shape = step.reshape(shape)
    if shape.trained_for is not None:
        raise Infeasible(f"trained as if quantized by {shape.trained_for}, and no quantize step of that scheme follows")
    if shape.architecture in HEAD_DIM_IMPLIED and shape.heads * shape.head_dim != shape.hidden:
        at_fault = ", ".join(step.step for step in steps if step.step in ("prune_heads", "prune_hidden")) or "the model"
        raise Infeasible(
            f"{at_fault}: vLLM takes the head_dim of a {shape.architecture} for hidden/heads, and "
            f"{shape.heads} heads of {shape.head_dim} do not make hidden {shape.hidden}"
        )
    check_shards(shape, engine.gpus, tuple(step.step for step in steps))
    return shape


def _quantized(config: dict[str, Any]) -> str | None:
    quantization = config.get("quantization_config")
    if not quantization:
        return None
    stored = quantization.get("format") or quantization.get("quant_method") or "unknown"
    return FORMATS.get(stored, stored)
