"""What a roofline needs to know of a model: sizes, and the numbers its weights are stored and computed in.

Read from `config.json` alone, as llmcompressor writes it; knows nothing of devices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from evaluation.devices import Rate

SHAPE = {  # our field: its name in config.json
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
    "tied": "tie_word_embeddings",
}
SCALE_BITS = 16  # of a group's scale, kept in bf16
UNPACKED = 16  # bits of weights that need no unpacking


class Linear(BaseModel):
    """A share of the layers' linear weights and the numbers they are stored and computed in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: PositiveFloat = Field(1.0, le=1, description="of the layers' linear weights")
    bits: PositiveFloat = Field(16, description="bits a weight is stored in, without scales")
    group: PositiveInt | None = Field(None, description="weights that share a scale; None: a whole channel")
    rate: Rate = Field("bf16", description="what activations are computed in, which decides the device's rate")

    @property
    def stored_bits(self) -> float:
        """Bits a weight takes in memory, its share of the group's scale with it."""
        return self.bits + (SCALE_BITS / self.group if self.group else 0)

    @property
    def unpacked(self) -> bool:
        """Whether weights are unpacked to the activations' numbers before they are multiplied."""
        return self.bits < (UNPACKED if self.rate == "bf16" else 8)


SCHEMES: dict[str, Linear] = {
    "bf16": Linear(),
    "W8A8": Linear(bits=8, rate="int8"),
    "FP8_DYNAMIC": Linear(bits=8, rate="fp8"),
    "W4A16": Linear(bits=4, group=128),
    "W8A16": Linear(bits=8),
    "W4A8": Linear(bits=4, group=128, rate="int8"),
}


class Description(BaseModel):
    """A decoder-only model with gated FFN and grouped-query attention."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: PositiveInt = Field(description="decoder layers")
    hidden: PositiveInt = Field(description="width of the residual stream")
    ffn: PositiveInt = Field(description="width of the FFN")
    heads: PositiveInt = Field(description="query heads")
    kv_heads: PositiveInt = Field(description="key and value heads")
    head_dim: PositiveInt = Field(description="width of a head")
    vocab: PositiveInt = Field(description="tokens of the vocabulary")
    tied: bool = Field(description="whether lm_head and the embedding are one matrix")
    linears: tuple[Linear, ...] = Field((Linear(),), description="the layers' linear weights; shares add up to 1")
    head: Linear = Field(Linear(), description="lm_head's numbers")
    kv_bits: PositiveFloat = Field(16, description="bits of a number in the KV cache")

    @property
    def modules(self) -> dict[str, int]:
        """Weights of each linear layer of one decoder layer."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": self.hidden * query,
            "self_attn.k_proj": self.hidden * key,
            "self_attn.v_proj": self.hidden * key,
            "self_attn.o_proj": query * self.hidden,
            "mlp.gate_proj": self.hidden * self.ffn,
            "mlp.up_proj": self.hidden * self.ffn,
            "mlp.down_proj": self.ffn * self.hidden,
        }

    @property
    def linear_weights(self) -> int:
        """Linear weights of one decoder layer."""
        return sum(self.modules.values())

    @property
    def head_weights(self) -> int:
        """Weights of lm_head, which are those of the embedding."""
        return self.hidden * self.vocab

    @property
    def parameters(self) -> int:
        """All weights: linear ones, embedding, lm_head unless tied, and norms as Exaone4 has them (four a layer)."""
        norms = self.layers * (2 * self.hidden + 2 * self.head_dim) + self.hidden
        return self.layers * self.linear_weights + self.head_weights * (1 if self.tied else 2) + norms

    @property
    def step_bytes(self) -> float:
        """Bytes of weights that every decoding step reads: linear layers and lm_head (the embedding's rows are few)."""
        linear = sum(part.share * part.stored_bits for part in self.linears) * self.layers * self.linear_weights
        return (linear + self.head_weights * self.head.stored_bits) / 8

    @property
    def stored_bytes(self) -> float:
        """Bytes of the weights as they are handed over: linear layers, embedding, lm_head unless tied, and norms."""
        linear = sum(part.share * part.stored_bits for part in self.linears) * self.layers * self.linear_weights
        norms = self.parameters - self.layers * self.linear_weights - self.head_weights * (1 if self.tied else 2)
        head = 0 if self.tied else self.head_weights * self.head.stored_bits
        return (linear + UNPACKED * (self.head_weights + norms) + head) / 8

    @property
    def kv_bytes(self) -> float:
        """Bytes a token takes in the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bits / 8

    def quantized(self, scheme: str, kept_layers: int = 0, **more: Any) -> Description:
        """This model with the layers' linear weights in `scheme`, all but those of `kept_layers` layers.

        Raises `ValueError` for a scheme that is not in `SCHEMES` or when more layers are kept than there are.
        """
        if scheme not in SCHEMES:
            raise ValueError(f"scheme {scheme} is not known; known are {', '.join(SCHEMES)}")
        if not 0 <= kept_layers <= self.layers:
            raise ValueError(f"{kept_layers} layers cannot be kept: the model has {self.layers}")
        weights = {Linear(): float(kept_layers)}
        weights[SCHEMES[scheme]] = weights.get(SCHEMES[scheme], 0) + self.layers - kept_layers
        parts = _parts(weights)
        return self.model_copy(update={"linears": parts, **more})


def description_of(folder: Path, shape: Mapping[str, Any] | None = None) -> Description:
    """The model in `folder`, from its `config.json`; sizes in `shape` (a step's ModelShape as a dict) go before it.

    Raises `ValueError` when the file is missing, is no JSON, lacks a size or states a quantization nobody here knows.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a model folder: it has no config.json") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}; write the model anew") from None
    sizes = _sizes(config) | {name: value for name, value in (shape or {}).items() if name in SHAPE}
    lacking = [SHAPE[name] for name, value in sizes.items() if value is None]
    if lacking:
        raise ValueError(f"{path} does not state {', '.join(lacking)}: add it, or give it as shape")
    model = Description(**sizes)
    quantization = config.get("quantization_config")
    if not quantization:
        return model
    try:
        return _with_quantization(model, quantization)
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise ValueError(f"{path}: its quantization_config is none that llmcompressor writes ({error!r})") from None


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes as `config.json` states or implies them; None where it does neither."""
    sizes = {name: config.get(stated) for name, stated in SHAPE.items()}
    sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
    if not sizes["head_dim"] and sizes["hidden"] and sizes["heads"]:
        sizes["head_dim"] = sizes["hidden"] // sizes["heads"]
    sizes["tied"] = bool(sizes["tied"])
    return sizes


def _with_quantization(model: Description, quantization: Mapping[str, Any]) -> Description:
    """`model` in the numbers that compressed-tensors' config states: the first group that matches a module decides."""
    if quantization.get("quant_method") == "bitsandbytes" and quantization.get("load_in_4bit"):
        return model.model_copy(update={"linears": (Linear(bits=4, group=64),)})
    groups = [(group["targets"], _linear(group)) for group in quantization["config_groups"].values()]
    ignored = quantization.get("ignore") or []
    found: dict[Linear, float] = {}
    for layer in range(model.layers):
        for module, weights in model.modules.items():
            numbers = _numbers(f"model.layers.{layer}.{module}", groups, ignored)
            found[numbers] = found.get(numbers, 0) + weights
    cache = quantization.get("kv_cache_scheme")
    return model.model_copy(
        update={
            "linears": _parts(found),
            "head": _numbers("lm_head", groups, ignored),
            "kv_bits": cache["num_bits"] if cache else 16,
        }
    )


def _numbers(module: str, groups: list[tuple[list[str], Linear]], ignored: list[str]) -> Linear:
    """What `module` is stored and computed in; bf16 where it is ignored or no group names it."""
    if any(_matches(entry, module) for entry in ignored):
        return Linear()
    return next((numbers for targets, numbers in groups if any(_matches(entry, module) for entry in targets)), Linear())


def _matches(entry: str, module: str) -> bool:
    """compressed-tensors' three ways to name a module: `re:` and a pattern, its class, its whole name."""
    if entry.startswith("re:"):
        return re.match(entry[3:], module) is not None
    return entry in ("Linear", module)


def _linear(group: Mapping[str, Any]) -> Linear:
    """One config group's numbers. A rate of activations that is none of ours raises `ValueError`."""
    weights, inputs = group["weights"], group.get("input_activations")
    rate: Rate = "bf16"
    if inputs is not None:
        if inputs["num_bits"] != 8:
            raise ValueError(f"activations of {inputs['num_bits']} bits")
        rate = "fp8" if inputs["type"] == "float" else "int8"
    size = weights.get("group_size")
    return Linear(bits=weights["num_bits"], group=size if size and size > 0 else None, rate=rate)


def _parts(weights: Mapping[Linear, float]) -> tuple[Linear, ...]:
    """Numbers and how many weights are in them, as shares."""
    whole = sum(weights.values())
    return tuple(one.model_copy(update={"share": count / whole}) for one, count in weights.items() if count)
