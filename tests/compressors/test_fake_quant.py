"""Training sees the grid that rounding to nearest will use, and gradients pass it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.fake_quant import GRIDS, fake_quantized, fp8_tokens, int8_tokens
from compressors.quantize import Quantize
from compressors.step import Conversations
from compressors.store import Store

if TYPE_CHECKING:
    import torch


@pytest.mark.parametrize("scheme", ["W8A8", "W4A16", "FP8_DYNAMIC"])
def test_weights_are_rounded_as_quantize_rounds_them(
    base: Path, tmp_path: Path, data: Conversations, scheme: Any
) -> None:
    """But for the bf16 that the reader here gives the products of integer and scale in."""
    quantized = build([Quantize(scheme=scheme)], base, Store(tmp_path), data).artifact.folder
    stored = dict(checkpoint.load_dense(quantized, "cpu")[0].named_parameters())
    for name, weight in checkpoint.load(base, "cpu")[0].named_parameters():
        weight = weight.detach()
        if name.endswith("proj.weight"):
            rounded = GRIDS[scheme][0](weight.float())
            apart = (rounded - stored[name].detach().float()).norm() / weight.float().norm()
            error = (weight.float() - stored[name].detach().float()).norm() / weight.float().norm()
            assert apart < 0.25 * error, name


def token_arguments(kind: str) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    return QuantizationArgs(num_bits=8, type=kind, strategy="token", symmetric=True, dynamic=True)


def tokens_to_round() -> torch.Tensor:
    """[2, 9, 64] with outliers, of very different sizes by token."""
    import torch

    torch.manual_seed(3)
    values = torch.randn(2, 9, 64) * torch.logspace(-3, 2, 18).view(2, 9, 1)
    values[..., 5] *= 20
    return values


@pytest.mark.parametrize(("kind", "top"), [("int", 127.0), ("float", 448.0)])
def test_activations_are_rounded_by_token_as_compressed_tensors_rounds(kind: str, top: float) -> None:
    """To the last bit with the engine's scale, absmax / 127 or / 448; a token's rounding is its own affair."""
    import torch
    from compressed_tensors.quantization import fake_quantize

    values = tokens_to_round()
    grid = int8_tokens if kind == "int" else fp8_tokens
    scale = values.abs().amax(-1, keepdim=True) / top
    wanted = fake_quantize(values, scale, torch.zeros_like(scale), token_arguments(kind))
    assert torch.equal(grid(values), wanted)
    assert not torch.equal(grid(values), values)
    assert torch.equal(grid(values[1, 4:5]), grid(values)[1, 4:5])
    assert torch.equal(grid(torch.zeros(1, 3, 64)), torch.zeros(1, 3, 64))


@pytest.mark.parametrize(("kind", "steps"), [("int", 1.0), ("float", 0.0)])
def test_activations_are_near_what_compressed_tensors_makes_of_them(kind: str, steps: float) -> None:
    """With its own dynamic scales. fp8: to the last bit; int8: within one step, as it divides by 127.5, not by 127."""
    import torch
    from compressed_tensors.quantization import fake_quantize
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

    values, args = tokens_to_round(), token_arguments(kind)
    scale, point = compute_dynamic_scales_and_zp(values, args, torch.nn.Linear(1, 1))
    wanted = fake_quantize(values, scale, point, args)
    given = (int8_tokens if kind == "int" else fp8_tokens)(values)
    assert bool(((given - wanted).abs() <= steps * values.abs().amax(-1, keepdim=True) / 127).all())


def test_gradients_pass_and_nothing_stays_behind(base: Path) -> None:
    import torch

    model = checkpoint.load(base, "cpu")[0].float()
    ids = torch.arange(10, 40)[None]
    plain = model(input_ids=ids).logits.detach()
    with fake_quantized(model, "W4A16"):
        rounded = model(input_ids=ids).logits
        rounded.sum().backward()
        assert not torch.allclose(plain, rounded.detach(), atol=1e-3)
    grads = [weight.grad for name, weight in model.named_parameters() if name.endswith("proj.weight")]
    assert all(grad is not None and bool(grad.abs().sum() > 0) for grad in grads)
    assert torch.equal(model(input_ids=ids).logits.detach(), plain)
