"""How training computes: in bf16 on a GPU, while the weights stay fp32; in fp32 on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mixed(device: torch.device) -> torch.autocast:
    """Automatic bf16 while this lasts, on a GPU. Cast weights are not kept: all of them together are half a model."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)
