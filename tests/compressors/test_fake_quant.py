"""Training sees the grid that rounding to nearest will use, and gradients pass it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.fake_quant import GRIDS, fake_quantized
from compressors.quantize import Quantize
from compressors.step import Conversations
from compressors.store import Store


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
