"""Rows of the reference model's training: conversations and texts as tokens, in a few fixed lengths.

Short rows teach facts and instructions, longer ones to look things up. Knows nothing of weights, nor of the scored
items, which `corpus` keeps apart.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.reference import MODEL
from evaluation.reference.tokenizer import PAD, pieces

if TYPE_CHECKING:
    from evaluation.reference.train import Training

LENGTHS = (128, 256, 512, 704)  # of rows, in tokens
SAID, TEXT, GIVEN, PADDING = 3, 2, 1, 0  # what a token is, for its weight in the loss

Pool = dict[int, tuple[np.ndarray, np.ndarray]]  # by length: ids and kinds, both (rows, length)


def _row(source: Any, tokenizer: Any, length: int) -> tuple[list[int], list[int]]:
    """Token ids and their kinds for one row of at most `length` tokens."""
    rng = source.rng
    while True:
        parts: list[tuple[str, int]] = []
        if length == LENGTHS[0] and rng.random() < 0.12:
            parts = [(source.text(), TEXT)]
        else:
            if length == LENGTHS[0]:
                kind = rng.choices(("choice", "recall", "instructions", "lookup"), (55, 12, 26, 7))[0]
                turns = source.conversation(kind, 1)
            else:
                turns = source.conversation("lookup", {256: 2, 512: rng.randint(3, 4), 704: rng.randint(5, 6)}[length])
            if length == LENGTHS[0] and kind != "lookup":
                turns = turns + source.conversation(kind)
            parts = [(text, SAID if said else GIVEN) for text, said in pieces(turns)]
        ids: list[int] = []
        kinds: list[int] = []
        for (_, kind_of), encoded in zip(parts, tokenizer.encode_batch([text for text, _ in parts]), strict=True):
            ids += encoded.ids
            kinds += [kind_of] * len(encoded.ids)
        if len(ids) > length and len(parts) > 3 and sum(kind == SAID for kind in kinds[:length]) > 3:
            return ids[:length], kinds[:length]
        if len(ids) <= length:
            return ids, kinds


def _draw(job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """`count` rows of one length: ids and kinds, padded."""
    seed, length, count = job
    from tokenizers import Tokenizer

    from evaluation.reference.corpus import Source
    from evaluation.reference.world import World

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    world = World()
    source = Source(world, 1000 * (world.seed + 10) + seed)
    ids = np.full((count, length), PAD, np.int16)
    kinds = np.full((count, length), PADDING, np.uint8)
    for number in range(count):
        row, kind = _row(source, tokenizer, length)
        ids[number, : len(row)], kinds[number, : len(row)] = row, kind
    return ids, kinds


def draw_pool(training: Training) -> Pool:
    """Rows of every length, shuffled; the same for the same settings."""
    share = {128: 0.48, 256: 0.14, 512: 0.20, 704: 0.18}
    chunks = 4 * training.workers
    jobs = [
        (
            training.seed * 10_000 + 100 * place + chunk,
            length,
            max(1, int(training.pool * share[length] / length / chunks)),
        )
        for place, length in enumerate(LENGTHS)
        for chunk in range(chunks)
    ]
    with multiprocessing.get_context("spawn").Pool(training.workers) as pool:
        drawn = pool.map(_draw, jobs, chunksize=1)
    return {
        length: tuple(
            np.concatenate([part[which] for job, part in zip(jobs, drawn, strict=True) if job[1] == length])
            for which in (0, 1)
        )
        for length in LENGTHS
    }


def mix(progress: float) -> list[float]:
    """Shares of the row lengths (128, 256, 512, 704) at a point of training from 0 to 1."""
    if progress < 0.15:
        return [0.50, 0.50, 0.0, 0.0]
    if progress < 0.45:
        return [0.50, 0.20, 0.30, 0.0]
    return [0.50, 0.05, 0.15, 0.30]


def batches(pool: Pool, training: Training) -> Generator[Any, float, None]:
    """Endless (ids, kinds); send the progress of training before each."""
    rng = np.random.default_rng(training.seed)
    at = dict.fromkeys(LENGTHS, 0)
    progress: float = yield None
    while True:
        length = int(rng.choice(LENGTHS, p=mix(training.begin + (1 - training.begin) * progress)))
        ids, kinds = pool[length]
        rows = min(len(ids), max(1, training.batch // length))
        if at[length] + rows > len(ids):
            at[length] = 0
            order = rng.permutation(len(ids))
            ids[:], kinds[:] = ids[order], kinds[order]
        taken = slice(at[length], at[length] + rows)
        at[length] += rows
        progress = yield ids[taken], kinds[taken]
