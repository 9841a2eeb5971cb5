"""What each quantization scheme is and which methods make it, as plain data. Imports no torch.

The fields are those of compressed-tensors' `QuantizationArgs`; its presets of the same names are not used, since
their meaning has changed between releases (W8A16 was per channel, and is per group of 128 in 0.19).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BLOCK = 128  # FP8_BLOCK: weights share a scale in squares of this side, activations in groups of it
DEFAULT_GROUP = 128  # inputs that share a scale where nothing else is asked

_CHANNEL8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
_GROUP4 = {"num_bits": 4, "type": "int", "strategy": "group", "symmetric": True}
_TOKEN8 = {"num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True}
_FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True}

INTEGER = ("rtn", "gptq", "awq", "autoround")  # methods that round weights to integers beside fixed activations


@dataclass(frozen=True)
class Scheme:
    """`weights` and `inputs` (activations; None: bf16) as quantization arguments, and the methods that make it."""

    weights: dict[str, Any]
    inputs: dict[str, Any] | None
    methods: tuple[str, ...]

    @property
    def grouped(self) -> bool:
        """Whether a group size belongs to it."""
        return self.weights["strategy"] == "group"

    @property
    def static(self) -> bool:
        """Whether activations have scales measured on data, for good."""
        return self.inputs is not None and not self.inputs.get("dynamic", False)


SCHEMES: dict[str, Scheme] = {
    "W8A8": Scheme(_CHANNEL8, _TOKEN8, ("rtn", "gptq", "smoothquant")),
    "W8A8_STATIC": Scheme(
        _CHANNEL8,
        {"num_bits": 8, "type": "int", "strategy": "tensor", "symmetric": True, "dynamic": False},
        ("rtn", "gptq", "smoothquant"),
    ),
    "FP8_DYNAMIC": Scheme(
        _FLOAT8 | {"strategy": "channel"}, _FLOAT8 | {"strategy": "token", "dynamic": True}, ("rtn",)
    ),
    "FP8_STATIC": Scheme(
        _FLOAT8 | {"strategy": "tensor"}, _FLOAT8 | {"strategy": "tensor", "dynamic": False}, ("rtn",)
    ),
    "FP8_BLOCK": Scheme(
        _FLOAT8 | {"strategy": "block", "block_structure": [BLOCK, BLOCK]},
        _FLOAT8 | {"strategy": "group", "group_size": BLOCK, "dynamic": True},
        ("rtn",),
    ),
    "W4A16": Scheme(_GROUP4, None, INTEGER),
    "W4A16_ASYM": Scheme(_GROUP4 | {"symmetric": False}, None, INTEGER),
    "W8A16": Scheme(_CHANNEL8, None, INTEGER),
    "W4A8": Scheme(_GROUP4, _TOKEN8, ("rtn", "gptq", "awq", "smoothquant")),
}

KV_CACHE_FP8 = _FLOAT8 | {"strategy": "tensor", "dynamic": False}


def arguments(scheme: str, group_size: int | None) -> dict[str, Any]:
    """The scheme as compressed-tensors' `QuantizationScheme` takes it, without targets."""
    one = SCHEMES[scheme]
    weights = dict(one.weights)
    if one.grouped:
        weights["group_size"] = group_size or DEFAULT_GROUP
    return {"weights": weights, "input_activations": dict(one.inputs) if one.inputs is not None else None}
