"""First, do no harm: what a model in training has become, on conversations it is not trained on, beside its base.

Of eight contest submissions trained before quantizing, six fell far below the untrained ones. So training is watched,
stops at its best point, and what ends worse than it began is not handed on. Knows nothing of optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from compressors.batches import pieces
from compressors.data import Sample
from compressors.divergence import divergence
from compressors.logits import parts
from compressors.objective import learner_of
from compressors.precision import mixed
from compressors.teacher import last_hidden

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Reading(BaseModel):
    """Means over the counted held-out tokens; of two kinds of text the worse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kl: float  # KL(base || student), nats
    agreement: float  # share of tokens whose likeliest next token is the base's
    loss: float  # cross-entropy of the data's own tokens, nats


class Watch:
    """Holds what the base says of `samples`, and of `general` text beside them: last hidden states and its head.

    The two are read apart: in one mean, many long rows of the one would hide what becomes of the other.
    """

    def __init__(
        self, base: PreTrainedModel, student: PreTrainedModel, samples: Sequence[Sample], general: Sequence[Sample] = ()
    ) -> None:
        kinds = [list(pieces(kind, student)) for kind in (samples, general) if kind]
        self.kinds = [[(piece, last_hidden(base, piece)) for piece in kind] for kind in kinds]
        self.head = base.lm_head

    def read(self, student: PreTrainedModel) -> Reading:
        """The worse KL and agreement of all kinds of text, and the cross-entropy of the first, which is trained on."""
        found = [self._read(student, kind) for kind in self.kinds]
        return Reading(
            kl=worst(*(one.kl for one in found)),
            agreement=min(one.agreement for one in found),
            loss=found[0].loss,
        )

    def _read(self, student: PreTrainedModel, kind: Sequence[tuple[Sequence[Sample], torch.Tensor]]) -> Reading:
        import torch

        kl = agreed = loss = counted = 0.0
        for piece, guide in kind:
            with torch.no_grad():
                hidden, targets = learner_of(student, piece)
                for part in parts(len(hidden), student.config.vocab_size):
                    with mixed(hidden.device):
                        given = torch.log_softmax(student.lm_head(hidden[part]).float(), dim=-1)
                        wanted = torch.log_softmax(self.head(guide[part]).float(), dim=-1)
                    kl += float(divergence("kl", given, wanted))
                    agreed += float((given.argmax(-1) == wanted.argmax(-1)).sum())
                    loss += float(torch.nn.functional.nll_loss(given, targets[part], reduction="sum"))
            counted += len(hidden)
        return Reading(kl=kl / counted, agreement=agreed / counted, loss=loss / counted)


def worst(*values: float) -> float:
    """The largest; what is no number is worse than any."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value)
