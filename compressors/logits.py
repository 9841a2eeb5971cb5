"""Predictions of the next token, made from hidden states a part at a time: tokens x vocabulary is what fills memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from compressors.divergence import divergence

if TYPE_CHECKING:
    import torch

    Head = Callable[[torch.Tensor], torch.Tensor]  # [positions, hidden] to [positions, vocabulary]

AT_ONCE = 2**25  # logits worked on at once (128 MiB in fp32, a few tensors of them)


def parts(positions: int, vocabulary: int) -> Iterator[slice]:
    """Runs of positions whose logits are `AT_ONCE` at most."""
    size = max(1, AT_ONCE // vocabulary)
    for start in range(0, positions, size):
        yield slice(start, start + size)


def summed_kl(head: Head, wanted: torch.Tensor, given: torch.Tensor, vocabulary: int) -> float:
    """KL(wanted || given) of what `head` makes of two hidden states [positions, hidden], in nats, summed."""
    import torch

    total = 0.0
    with torch.no_grad():
        for part in parts(len(wanted), vocabulary):
            pair = [torch.log_softmax(head(one[part]).float(), dim=-1) for one in (given, wanted)]
            total += float(divergence("kl", *pair))
    return total
