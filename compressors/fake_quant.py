"""Rounding that training can see through: weights and activations pass through the grid, gradients straight on.

The grids are those of `quantize` by rounding to nearest, so that a model trained here loses nothing when it is
quantized after (of int4, in groups of 128). Straight-through gradients: Bengio et al., 2013; with distillation: QAD,
NVIDIA, 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FakeScheme = Literal["W8A8", "W4A16", "FP8_DYNAMIC"]
GROUP = 128  # input channels that share a scale in W4A16
FP8_MAX = 448.0  # of float8_e4m3fn
LEAST = 1e-12  # smallest scale: a row of zeros has none


@contextmanager
def fake_quantized(model: PreTrainedModel, scheme: FakeScheme | None) -> Iterator[None]:
    """While this is open, every linear layer of the decoder computes as if quantized by `scheme`."""
    import torch

    linears = [one for one in model.model.layers.modules() if isinstance(one, torch.nn.Linear)] if scheme else []
    weight, activation = GRIDS[scheme] if scheme else (same, same)

    def forward(linear: torch.nn.Linear, entering: torch.Tensor) -> torch.Tensor:
        rounded = through(linear.weight, weight)
        return torch.nn.functional.linear(through(entering, activation), rounded, linear.bias)

    for linear in linears:
        linear.forward = partial(forward, linear)  # type: ignore[method-assign]  # undone below
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward


def through(values: torch.Tensor, grid: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """`grid(values)` whose gradient is that of `values`."""
    if grid is same:
        return values
    return values + (grid(values.detach()) - values.detach())


def same(values: torch.Tensor) -> torch.Tensor:
    return values


def int8_weight(weight: torch.Tensor) -> torch.Tensor:
    """int8 with one scale an output, absmax / 127.5, both in bf16: compressed-tensors' symmetric min-max."""
    return _integers(weight, 127.5)


def int4_weight(weight: torch.Tensor) -> torch.Tensor:
    """int4 with one scale for `GROUP` inputs: absmax / 7.5. Of a weight [outputs, inputs]."""
    return _integers(weight.view(weight.shape[0], -1, GROUP), 7.5).view(weight.shape)


def fp8_weight(weight: torch.Tensor) -> torch.Tensor:
    """float8_e4m3fn with one scale an output: absmax / 448, in bf16."""
    import torch

    held = weight.to(torch.bfloat16)
    scale = (held.abs().amax(dim=-1, keepdim=True) / FP8_MAX).clamp(min=LEAST)
    return (held / scale).to(torch.float8_e4m3fn).to(weight.dtype) * scale.to(weight.dtype)


def int8_tokens(entering: torch.Tensor) -> torch.Tensor:
    """int8 with one scale a token, absmax / 127, as the engine's kernels scale activations."""
    scale = (entering.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=LEAST)
    return (entering / scale).round() * scale


def fp8_tokens(entering: torch.Tensor) -> torch.Tensor:
    """float8_e4m3fn with one scale a token: absmax / 448."""
    import torch

    scale = (entering.abs().amax(dim=-1, keepdim=True) / FP8_MAX).clamp(min=LEAST)
    return (entering / scale).to(torch.float8_e4m3fn).to(entering.dtype) * scale


def _integers(weight: torch.Tensor, half: float) -> torch.Tensor:
    """In bf16, as the weights will be when they are quantized: a scale in fp32 would round some of them elsewhere."""
    import torch

    held = weight.to(torch.bfloat16)
    scale = (held.abs().amax(dim=-1, keepdim=True) / half).clamp(min=LEAST)
    top = int(half)
    return (held / scale).round().clamp(-top - 1, top).to(weight.dtype) * scale.to(weight.dtype)


GRIDS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]] = {
    "W8A8": (int8_weight, int8_tokens),
    "W4A16": (int4_weight, same),
    "FP8_DYNAMIC": (fp8_weight, fp8_tokens),
}
