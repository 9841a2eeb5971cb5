"""How far two predictions of the next token are apart: sums over positions, in nats, in fp32.

Predictions are log-probabilities over categories: the whole vocabulary, or a teacher's likeliest k tokens and one
category for all the rest. Knows nothing of models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Kind = Literal["kl", "reverse_kl", "jsd"]
LEAST = -30.0  # log-probability below which a category counts as this: e^-30 adds nothing, and 0 · inf is not a number


def divergence(kind: Kind, given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Between the student's `given` and the teacher's `wanted`, both [positions, categories] log-probabilities.

    kl: KL(teacher || student), Hinton et al., 2015. reverse_kl: KL(student || teacher), which seeks a mode (MiniLLM,
    Gu et al., 2024). jsd: the Jensen-Shannon divergence, half of each to their mean (GKD, Agarwal et al., 2024).
    """
    import torch

    if kind == "kl":
        return (wanted.exp() * (wanted - given)).sum()
    if kind == "reverse_kl":
        return (given.exp() * (given - wanted)).sum()
    middle = torch.logaddexp(given, wanted) - math.log(2)
    return 0.5 * ((wanted.exp() * (wanted - middle)).sum() + (given.exp() * (given - middle)).sum())


def over_top(log_probs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """[positions, vocabulary] to [positions, k + 1]: those of `ids` [positions, k], then all the rest together."""
    import torch

    top = log_probs.gather(-1, ids)
    return torch.cat([top, rest_of(top)], dim=-1)


def rest_of(top: torch.Tensor) -> torch.Tensor:
    """Log of what the probabilities of `top` [positions, k] leave over: [positions, 1]."""
    import torch

    together = top.logsumexp(dim=-1, keepdim=True).clamp(max=-1e-7)
    return torch.log1p(-together.exp()).clamp(min=LEAST)
