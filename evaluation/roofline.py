"""Seconds a token by device, predicted from a description: a roofline, corrected by what was measured.

Every part of a pass takes the longer of its computation and its memory traffic (Williams et al., 2009); parts follow
one another. Left out: passes that mix prompts and decoding, speculative decoding, several GPUs, heat. A prediction says
that it is one (`predicted`), and for which device. `python -m evaluation.roofline` prints it beside the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from evaluation.description import Description, Linear
from evaluation.devices import Device, Efficiencies
from evaluation.workload import Requests, Workload

CHUNK = 8192  # prompt tokens in a pass: vLLM's max_num_batched_tokens as pinned here
NOISE = 0.01  # of log seconds: timings repeat within half a per cent, and the model leaves things out
PRIORS = {  # spread of log efficiencies around a device's own: how far off an assumption may be
    "bf16": 0.3,
    "int8": 0.3,
    "fp8": 0.3,
    "attention": 0.4,
    "bandwidth": 0.1,
    "dequantization": 0.1,
    "layer_seconds": 0.7,
    "step_seconds": 0.7,
}
EIGHT_BITS_ALIKE = 0.1  # spread of log(int8 / fp8 efficiency) around its prior: the same kernels but for the numbers


class Prediction(BaseModel):
    """What a roofline says; nothing was run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted: Literal[True] = True
    device: str
    seconds: float = Field(description="of the whole workload")
    tokens: int = Field(description="generated")
    sec_per_token: float
    sec_per_token_base: float
    speed_norm: float = Field(description="1 - sec_per_token / sec_per_token_base")


class Measured(BaseModel):
    """Seconds that a workload took, to fit a device's efficiencies to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: Description
    workload: Workload
    seconds: PositiveFloat


def predict(model: Description, base: Description, workload: Workload, device: Device) -> Prediction:
    """Speed of `model` beside `base` on `device`, both generating as many tokens."""
    own, other = seconds(model, workload, device), seconds(base, workload, device)
    tokens = sum(requests.generated for requests in workload)
    return Prediction(
        device=device.name,
        seconds=own,
        tokens=tokens,
        sec_per_token=own / tokens,
        sec_per_token_base=other / tokens,
        speed_norm=1 - own / other,
    )


def seconds(model: Description, workload: Workload, device: Device) -> float:
    """Seconds of the whole workload, one kind of request after the other."""
    return sum(
        prefill_seconds(model, requests, device) + decode_seconds(model, requests, device) for requests in workload
    )


def prefill_seconds(model: Description, requests: Requests, device: Device) -> float:
    """Seconds until every prompt has its first token: passes of at most `CHUNK` tokens."""
    tokens = requests.prompts * requests.prompt_tokens
    passes = math.ceil(tokens / CHUNK)
    pairs = requests.prompts * requests.prompt_tokens * (requests.prompt_tokens + 1) / 2
    attention = 4 * model.layers * model.heads * model.head_dim * pairs
    return (
        passes * pass_seconds(model, tokens / passes, requests.prompts / passes, device)
        + attention / (device.bf16 * device.efficiencies.attention)
        + traffic_seconds(tokens * model.kv_bytes, device)
    )


def decode_seconds(model: Description, requests: Requests, device: Device) -> float:
    """Seconds of all tokens after the first: each step reads all weights and its sequences' KV cache."""
    steps = (requests.output_tokens - 1) * requests.prompts / requests.together
    context = requests.prompt_tokens + requests.output_tokens / 2
    cache = traffic_seconds(requests.together * context * model.kv_bytes, device)
    return steps * (pass_seconds(model, requests.together, requests.together, device) + cache)


def pass_seconds(model: Description, tokens: float, logits: float, device: Device) -> float:
    """Seconds of one pass of `tokens` through all layers and of `logits` of them through lm_head, but for attention."""
    per_layer = sum(_product(part, part.share * model.linear_weights, tokens, device) for part in model.linears)
    if tokens * 2 * 2 * model.ffn > device.cache:  # the widest tensor between products, in bf16
        per_layer += traffic_seconds(tokens * layer_traffic(model), device)
    per_layer += device.efficiencies.layer_seconds
    head = _product(model.head, model.head_weights, logits, device)
    return model.layers * per_layer + head + device.efficiencies.step_seconds


def layer_traffic(model: Description) -> float:
    """Bytes a token moves through memory in one layer between matrix products, counted kernel by kernel.

    In bf16: norms and rotation of queries and keys (read, write), SiLU and product (read two, write one), the two
    norms after attention and FFN with their residual sums (read two, write two). Quantizing activations reads each
    product's input in bf16 and writes it in 8 bits.
    """
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    between = 2 * (2 * (query + key) + 3 * model.ffn + 2 * 4 * model.hidden)
    inputs = 2 * model.hidden + query + model.ffn
    in_8_bits = sum(part.share for part in model.linears if part.rate != "bf16")
    return between + in_8_bits * 3 * inputs


def traffic_seconds(moved: float, device: Device) -> float:
    """Seconds to move `moved` bytes from or to memory."""
    return moved / (device.bandwidth * device.efficiencies.bandwidth)


def _product(numbers: Linear, weights: float, tokens: float, device: Device) -> float:
    """Seconds of `tokens` times a matrix of `weights`."""
    computing = 2 * weights * tokens / device.rate(numbers.rate)
    if numbers.unpacked:
        computing *= device.efficiencies.dequantization
    return max(computing, traffic_seconds(weights * numbers.stored_bits / 8, device))


def fit(measurements: Sequence[Measured], device: Device) -> Device:
    """`device` with the efficiencies that fit `measurements` best: least squares in log seconds.

    The device's own efficiencies are the prior (spreads in `PRIORS`), so that what no measurement touches stays where
    it was. Raises `ValueError` for no measurements.
    """
    import numpy as np
    from scipy.optimize import least_squares

    if not measurements:
        raise ValueError("nothing to fit: give at least one measurement")
    names, spreads = list(PRIORS), np.array(list(PRIORS.values()))
    prior = np.log([getattr(device.efficiencies, name) for name in names])
    observed = np.log([one.seconds for one in measurements])

    def at(logs: np.ndarray) -> Device:
        values = dict(zip(names, np.exp(logs).tolist(), strict=True))
        return device.model_copy(update={"efficiencies": Efficiencies(**values)})

    def residuals(logs: np.ndarray) -> np.ndarray:
        told = np.log([seconds(one.model, one.workload, at(logs)) for one in measurements])
        away = logs - prior
        apart = away[names.index("int8")] - away[names.index("fp8")]
        return np.concatenate([(told - observed) / NOISE, away / spreads, [apart / EIGHT_BITS_ALIKE]])

    return at(least_squares(residuals, prior).x)


def moved(fitted: Device, device: Device) -> Device:
    """`device` with what `fitted` says of kernels, relative to bf16: the 8-bit efficiencies and the unpacking.

    Its own bf16 efficiency, attention, bandwidth and costs of steps stay: they belong to the device.
    """
    ours, theirs = device.efficiencies, fitted.efficiencies
    update = {
        "int8": ours.bf16 * theirs.int8 / theirs.bf16,
        "fp8": ours.bf16 * theirs.fp8 / theirs.bf16,
        "dequantization": theirs.dequantization,
    }
    return device.model_copy(update={"efficiencies": ours.model_copy(update=update)})


def left_out(measurements: Sequence[Measured], base: str, device: Device) -> dict[str, float]:
    """SpeedNorm of every measurement but the base's, predicted by a fit of all the others.

    Raises `ValueError` when no measurement is named `base`.
    """
    reference = _named(measurements, base)
    told = {}
    for one in measurements:
        if one.name != base:
            fitted = fit([other for other in measurements if other is not one], device)
            told[one.name] = predict(one.model, reference.model, one.workload, fitted).speed_norm
    return told


def _named(measurements: Sequence[Measured], name: str) -> Measured:
    for one in measurements:
        if one.name == name:
            return one
    raise ValueError(f"no measurement is named {name}; there are {', '.join(one.name for one in measurements)}")


if __name__ == "__main__":
    from evaluation.roofline_table import main

    main()
