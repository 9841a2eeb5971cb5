"""Conversations as batches of token ids for measurements on a model. Knows nothing of what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressors.step import StepContext, StepFault

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_LENGTH = 2048  # tokens of a calibration row; longer ones are cut
BATCH_TOKENS = 2048  # padded tokens of one forward pass; a longer row goes alone

Ids = tuple[int, ...]


@dataclass(frozen=True)
class CalibrationBatch:
    """Rows of like length, padded on the right: causal attention keeps padding from what stands before it."""

    ids: torch.Tensor  # [rows, longest]
    real: torch.Tensor  # [rows, longest], False at padding

    @property
    def tokens(self) -> int:
        return int(self.real.sum())


def calibration_rows(tokenizer: PreTrainedTokenizerBase, context: StepContext, rows: int, step: str) -> list[Ids]:
    """Token ids of the first `rows` conversations, rendered. Raises `StepFault` when none holds a token."""
    from compressors.data import tokenize

    samples = [tokenize(tokenizer, row, MAX_LENGTH) for row in context.data.rows[:rows]]
    found = [sample.ids for sample in samples if sample.ids]
    if not found:
        raise StepFault(f"{step} has no calibration rows")
    return found


def batched(rows: list[Ids], device: torch.device) -> list[CalibrationBatch]:
    """`rows` in batches of at most `BATCH_TOKENS` padded tokens, shortest first."""
    groups: list[list[Ids]] = []
    for row in sorted(rows, key=len):
        if not groups or (len(groups[-1]) + 1) * len(row) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(row)
    return [_padded(group, device) for group in groups]


def run_hidden(model: PreTrainedModel, batches: list[CalibrationBatch]) -> Iterator[torch.Tensor]:
    """What enters the head at every real token of each batch: [tokens, hidden]. Hooks see the padded batch."""
    import torch

    for batch in batches:
        with torch.no_grad():
            hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        yield hidden[batch.real]


def _padded(rows: list[Ids], device: torch.device) -> CalibrationBatch:
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        real[number, : len(row)] = True
    return CalibrationBatch(ids.to(device), real.to(device))
