"""What training makes smaller: distance to a teacher, or surprise at the data. Adds gradients; changes no weights.

The head sees only the tokens counted, a part of them at a time: logits are what fills memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from compressors.batches import pad
from compressors.data import Sample
from compressors.divergence import Kind, divergence
from compressors.logits import parts
from compressors.precision import mixed
from compressors.step import Infeasible
from compressors.teacher import Teacher, same_categories

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Objective(Protocol):
    """A loss over counted tokens."""

    def backward(self, student: PreTrainedModel, piece: Sequence[Sample], counted: int) -> float:
        """Add the gradient of the piece's summed loss over `counted` to the student's weights; return that share."""

    def flush(self) -> None:
        """Keep what later training can use."""


class Match:
    """Divergence from a teacher's predictions; `hidden` weighs the distance of last hidden states beside it.

    That distance is the squared error over the teacher's mean square, mean over counted tokens.
    """

    def __init__(self, teacher: Teacher, kind: Kind = "kl", hidden: float = 0.0) -> None:
        self.teacher, self.kind, self.hidden = teacher, kind, hidden

    def backward(self, student: PreTrainedModel, piece: Sequence[Sample], counted: int) -> float:
        import torch

        guide, (learner, _) = self.teacher.guide(piece), learner_of(student, piece)
        leaf = learner.detach().requires_grad_()
        total = 0.0
        for part in parts(len(leaf), student.config.vocab_size):
            with mixed(leaf.device):
                logits = student.lm_head(leaf[part])
            wanted, ids = guide.at(part)
            given = same_categories(torch.log_softmax(logits.float(), dim=-1), ids)
            loss = divergence(self.kind, given, wanted) / counted
            loss.backward()
            total += float(loss.detach())
        if self.hidden:
            assert guide.hidden is not None  # Distill refuses a stored teacher here
            loss = self.hidden * hidden_distance(leaf, guide.hidden) / counted
            loss.backward()
            total += float(loss.detach())
        if learner.requires_grad:  # not where the head alone is trained
            learner.backward(leaf.grad)
        return total

    def flush(self) -> None:
        self.teacher.flush()


class Say:
    """Cross-entropy of the counted tokens themselves: supervised fine-tuning."""

    def backward(self, student: PreTrainedModel, piece: Sequence[Sample], counted: int) -> float:
        import torch

        learner, targets = learner_of(student, piece)
        leaf = learner.detach().requires_grad_()
        total = 0.0
        for part in parts(len(leaf), student.config.vocab_size):
            with mixed(leaf.device):
                logits = student.lm_head(leaf[part])
            loss = torch.nn.functional.cross_entropy(logits.float(), targets[part], reduction="sum") / counted
            loss.backward()
            total += float(loss.detach())
        if learner.requires_grad:  # not where the head alone is trained
            learner.backward(leaf.grad)
        return total

    def flush(self) -> None:
        """Nothing is kept."""


def learner_of(student: PreTrainedModel, piece: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states [positions, hidden] where the next token counts, and that token [positions]."""

    ids, counted = pad(piece, str(student.device))
    with mixed(ids.device):
        hidden = student.model(input_ids=ids, use_cache=False).last_hidden_state[counted]
    return hidden, ids.roll(-1, dims=1)[counted]


def hidden_distance(learner: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """Squared error of [positions, hidden] over the teacher's mean square, mean over width, summed over positions."""
    if learner.shape[-1] != guide.shape[-1]:
        raise Infeasible(
            f"a hidden-state loss needs equal widths; the student has {learner.shape[-1]}, its base {guide.shape[-1]}"
        )
    guide = guide.float()
    return ((learner.float() - guide) ** 2).mean(dim=-1).sum() / (guide**2).mean()
