"""What the base model predicts, asked as training goes, or kept on disk and asked once.

Knows nothing of students or losses. A guide tells, for the counted positions of a piece of samples, the teacher's
log-probabilities: over the whole vocabulary, or over its likeliest k tokens and all the rest together.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compressors.batches import pad
from compressors.data import Sample
from compressors.divergence import over_top, rest_of
from compressors.precision import mixed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHARD_TOKENS = 16_384  # predictions that one file of the store holds, about
PARTS = 1024  # predictions whose full logits exist at once while the store is filled


class Guide(Protocol):
    """The teacher's word on the counted positions of one piece."""

    hidden: torch.Tensor | None  # [positions, hidden], where the teacher itself is at hand

    def at(self, part: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities [n, categories] of a part, and the ids [n, k] they stand for; None: the vocabulary."""


class Teacher(Protocol):
    """Gives the guide of any piece."""

    def guide(self, piece: Sequence[Sample]) -> Guide: ...

    def flush(self) -> None:
        """Keep what was asked, where it is kept at all."""


class LiveTeacher:
    """The base model at hand: full distributions, computed anew each time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def guide(self, piece: Sequence[Sample]) -> LiveGuide:
        return LiveGuide(last_hidden(self.model, piece), self.model.lm_head)

    def flush(self) -> None:
        """Nothing is kept."""


class LiveGuide:
    """Hidden states of counted positions, and the head that reads them."""

    def __init__(self, hidden: torch.Tensor, head: torch.nn.Module) -> None:
        self.hidden: torch.Tensor | None = hidden
        self._states, self._head = hidden, head

    def at(self, part: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        with torch.no_grad():
            return torch.log_softmax(self._head(self._states[part]).float(), dim=-1), None


class StoredTeacher:
    """The likeliest `top` tokens of every counted position, each sample asked once and kept in `folder`.

    Files are Arrow, memory-mapped, of about `SHARD_TOKENS` positions, written whole or not at all. What was asked
    just now is read back in the stored precision (fp16), so that it makes no difference who asked first.
    """

    def __init__(self, model: PreTrainedModel, folder: Path, top: int) -> None:
        self.model, self.folder, self.top = model, folder, min(top, int(model.config.vocab_size))
        self._known: dict[bytes, tuple[Any, Any]] = {}  # sample to (ids, log-probabilities), both [n · k]
        self._fresh: list[bytes] = []
        self.asked = 0  # positions computed in this life
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.arrow")):
            self._read(path)

    def guide(self, piece: Sequence[Sample]) -> StoredGuide:
        import numpy as np
        import torch

        names = [name_of(sample) for sample in piece]
        lacking = [sample for name, sample in zip(names, piece, strict=True) if name not in self._known]
        if lacking:
            self._ask(lacking)
        found = [self._known[name] for name in names]
        ids = np.concatenate([ids for ids, _ in found]).reshape(-1, self.top)
        values = np.concatenate([values for _, values in found]).reshape(-1, self.top)
        device = self.model.device
        return StoredGuide(torch.from_numpy(ids.astype("int64")).to(device), torch.from_numpy(values).to(device))

    def flush(self) -> None:
        """Write what has been asked since the last file."""
        import pyarrow as pa

        if not self._fresh:
            return
        ids, values = zip(*(self._known[name] for name in self._fresh), strict=True)
        table = pa.table({
            "sample": pa.array(self._fresh, pa.binary(16)),
            "ids": pa.array(ids, pa.list_(pa.int32())),
            "log_probs": pa.array(values, pa.list_(pa.float16())),
        })  # fmt: skip
        aside = self.folder / f".{uuid.uuid4().hex}"
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        aside.rename(self.folder / f"{uuid.uuid4().hex}.arrow")
        self._fresh = []

    def _ask(self, samples: Sequence[Sample]) -> None:
        import torch

        hidden, start = last_hidden(self.model, samples), 0
        for sample in samples:
            n = sum(sample.answer[1:])
            tops, ids = [], []
            for begin in range(start, start + n, PARTS):
                with torch.no_grad():
                    logits = self.model.lm_head(hidden[begin : min(begin + PARTS, start + n)]).float()
                best = torch.log_softmax(logits, dim=-1).topk(self.top, dim=-1)
                tops.append(best.values.half().cpu())
                ids.append(best.indices.int().cpu())
            name = name_of(sample)
            self._known[name] = (torch.cat(ids).flatten().numpy(), torch.cat(tops).flatten().numpy())
            self._fresh.append(name)
            start += n
        self.asked += start
        if sum(len(self._known[name][0]) for name in self._fresh) >= SHARD_TOKENS * self.top:
            self.flush()

    def _read(self, path: Path) -> None:
        import pyarrow as pa

        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        for batch in table.to_batches():
            columns = [batch.column(name) for name in ("sample", "ids", "log_probs")]
            for sample, ids, values in zip(*columns, strict=True):
                self._known[sample.as_py()] = (ids.values.to_numpy(), values.values.to_numpy())


class StoredGuide:
    """Ids and log-probabilities, [positions, k] each, as they were stored."""

    hidden: torch.Tensor | None = None

    def __init__(self, ids: torch.Tensor, log_probs: torch.Tensor) -> None:
        self.ids, self.log_probs = ids, log_probs

    def at(self, part: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        top = self.log_probs[part].float()
        return torch.cat([top, rest_of(top)], dim=-1), self.ids[part]


def last_hidden(model: PreTrainedModel, piece: Sequence[Sample]) -> torch.Tensor:
    """Last hidden states where the next token counts, samples in their order: [positions, hidden]. No gradient."""
    import torch

    ids, counted = pad(piece, str(model.device))
    with torch.no_grad(), mixed(ids.device):
        found: torch.Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state[counted]
    return found


def same_categories(given: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
    """The student's log-probabilities [n, vocabulary] over the categories that a guide spoke of."""
    return given if ids is None else over_top(given, ids)


def name_of(sample: Sample) -> bytes:
    """16 bytes that tell a sample, tokens and counted positions, from others."""
    return hashlib.blake2b(f"{sample.ids}{sample.answer}".encode(), digest_size=16).digest()


def cache_name(parts: Iterable[object]) -> str:
    """A folder's name from all that decides what a teacher says: its weights, k, the code."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).hexdigest()
