"""The order in which conversations are trained on: decided by data, seed and sizes, never by the budget."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressors.data import Sample, tokenize
from compressors.step import Conversations

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ACTIVATIONS = 2**29  # values kept for the backward pass at once (2 to 4 bytes each)
PADDING = 1.25  # padded tokens a token, at most, in what goes through the models together
WINDOW = 256  # rows sorted by length together: enough for little padding, few enough to start at once
HELD_OUT = 64  # rows never trained on, at most a tenth of all


@dataclass(frozen=True)
class Place:
    """Where in the stream of batches one stands: the next batch to come."""

    epoch: int = 0
    window: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Batch:
    """Samples of similar length that one optimizer step sees, and the place behind them."""

    samples: tuple[Sample, ...]
    after: Place

    @property
    def tokens(self) -> int:
        return sum(len(sample.ids) for sample in self.samples)


class Stream:
    """Endless batches of about `batch_tokens` tokens from `data`, from any `Place` on."""

    def __init__(
        self,
        data: Conversations,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int,
        max_length: int,
        answers_only: bool,
        seed: int,
    ) -> None:
        self.tokenizer, self.max_length, self.batch_tokens = tokenizer, max_length, batch_tokens
        self.answers_only, self.seed = answers_only, seed
        order = list(range(len(data.rows)))
        random.Random(seed).shuffle(order)
        held = min(HELD_OUT, len(order) // 10)
        self.rows = [data.rows[i] for i in order[held:]]
        self._held = [data.rows[i] for i in order[:held]] or self.rows[:1]  # too few rows to spare any

    def held_out(self) -> list[Sample]:
        """Samples kept from training; the first one trained on where there are too few rows, or those say nothing."""
        return self._samples(self._held) or self._samples(self.rows)[:1]

    def batches(self, start: Place) -> Iterator[Batch]:
        """Batches from `start` on, without end; none at all when no row has anything to learn from."""
        epoch, window, skip = start.epoch, start.window, start.batch
        fruitless = 0  # windows in a row without a batch
        windows = -(-len(self.rows) // WINDOW)
        while fruitless <= windows:
            fruitless += 1
            groups = self._window(epoch, window)
            after_window = Place(epoch, window + 1) if window + 1 < windows else Place(epoch + 1)
            for index in range(skip, len(groups)):
                last = index + 1 == len(groups)
                yield Batch(tuple(groups[index]), after_window if last else Place(epoch, window, index + 1))
                fruitless = 0
            epoch, window, skip = after_window.epoch, after_window.window, 0

    def _window(self, epoch: int, window: int) -> list[list[Sample]]:
        """The batches of one window of rows: grouped by length, the groups in random order."""
        order = list(range(len(self.rows)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        chosen = [self.rows[i] for i in order[window * WINDOW : (window + 1) * WINDOW]]
        groups: list[list[Sample]] = []
        room = 0
        for sample in sorted(self._samples(chosen), key=lambda sample: len(sample.ids)):
            if not groups or len(sample.ids) > room:
                groups.append([])
                room = self.batch_tokens
            groups[-1].append(sample)
            room -= len(sample.ids)
        random.Random(f"{self.seed}/{epoch}/{window}").shuffle(groups)
        return groups

    def _samples(self, rows: Sequence[tuple[dict[str, str], ...]]) -> list[Sample]:
        samples = [tokenize(self.tokenizer, row, self.max_length) for row in rows]
        if not self.answers_only:
            samples = [Sample(sample.ids, (True,) * len(sample.ids)) for sample in samples]
        return [sample for sample in samples if any(sample.answer[1:])]  # the first token is predicted by nothing


def pad(samples: Sequence[Sample], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the right, and where the *next* token counts in the loss; both [rows, longest].

    Padding needs no attention mask: causal attention keeps it from whatever stands before it.
    """
    import torch

    longest = max(len(sample.ids) for sample in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    counted = torch.zeros(len(samples), longest, dtype=torch.bool)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        counted[row, : len(sample.ids) - 1] = torch.tensor(sample.answer[1:])
    return ids.to(device), counted.to(device)


def pieces(samples: Sequence[Sample], model: PreTrainedModel) -> Iterator[Sequence[Sample]]:
    """Split samples into runs of like length whose activations fit `ACTIVATIONS`."""
    config = model.config
    a_token = config.num_hidden_layers * (8 * config.hidden_size + 3 * config.intermediate_size)
    limit = ACTIVATIONS // a_token
    ordered = sorted(samples, key=lambda sample: len(sample.ids))
    start = tokens = 0
    for end, sample in enumerate(ordered):
        padded = (end + 1 - start) * len(sample.ids)
        tokens += len(sample.ids)
        if end > start and (padded > limit or padded > PADDING * tokens):
            yield ordered[start:end]
            start, tokens = end, len(sample.ids)
    yield ordered[start:]
