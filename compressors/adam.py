"""AdamW (Loshchilov and Hutter, 2019) for models whose moments would not fit beside them: kept in bf16, worked in fp32.

At EXAONE-4.0-1.2B's size fp32 moments take 10.2 GB; here 5.1. With betas of 0.9 and 0.95 a moment moves by a tenth or
a twentieth of the way each step, far above bf16's resolution of 1/256. No weight decay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 2**24  # elements worked on at once: a few tensors of 64 MiB
EPSILON = 1e-8


class SmallAdamW:
    """The part of torch.optim.AdamW that `Trainer` uses: `state`, `param_groups`, `zero_grad`, `step`."""

    def __init__(self, weights: Iterable[torch.Tensor], lr: float, betas: tuple[float, float]) -> None:
        self.weights, self.betas = list(weights), betas
        self.param_groups = [{"lr": lr}]
        self.state: dict[torch.Tensor, dict[str, Any]] = {weight: {} for weight in self.weights}

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self.weights:
            weight.grad = None

    def step(self) -> None:
        import torch

        with torch.no_grad():
            for weight in self.weights:
                if weight.grad is not None:
                    self._update(weight, weight.grad)

    def _update(self, weight: torch.Tensor, grad: torch.Tensor) -> None:
        import torch

        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight, dtype=torch.bfloat16)
            state["exp_avg_sq"] = torch.zeros_like(weight, dtype=torch.bfloat16)
        state["step"] += 1
        count, (first, second), lr = float(state["step"]), self.betas, self.param_groups[0]["lr"]
        flat = [one.view(-1) for one in (weight, grad, state["exp_avg"], state["exp_avg_sq"])]
        for start in range(0, weight.numel(), CHUNK):
            w, g, mean, square = (one[start : start + CHUNK] for one in flat)
            m = mean.float().lerp_(g, 1 - first)
            v = square.float().mul_(second).addcmul_(g, g, value=1 - second)
            mean.copy_(m)
            square.copy_(v)
            w.addcdiv_(m, v.div_(1 - second**count).sqrt_().add_(EPSILON), value=-lr / (1 - first**count))
