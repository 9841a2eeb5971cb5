"""The order of training: whole epochs, the same from any place, little padding, held-out rows kept out."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from compressors import batches
from compressors.batches import Place, Stream
from compressors.step import Conversations


def stream(base: Path, data: Conversations, **changes: object) -> Stream:
    from transformers import AutoTokenizer

    settings = {"batch_tokens": 256, "max_length": 512, "answers_only": True, "seed": 0, **changes}
    return Stream(data, AutoTokenizer.from_pretrained(str(base)), **settings)  # type: ignore[arg-type] - a mixture


def test_an_epoch_has_every_row_once_and_no_held_out_row(
    base: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW", 20)
    one = stream(base, data)
    epoch = []
    for batch in one.batches(Place()):
        epoch.append(batch)
        if batch.after.epoch:
            break
    seen = [sample.ids for batch in epoch for sample in batch.samples]
    held = [sample.ids for sample in one.held_out()]
    assert len(seen) == 54 and len(held) == 6
    assert sorted(seen + held) == sorted(s.ids for s in one._samples(data.rows))
    assert all(batch.tokens <= 256 for batch in epoch)


def test_any_place_gives_the_same_rest(base: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WINDOW", 20)
    whole = list(islice(stream(base, data).batches(Place()), 30))
    assert whole[-1].after.epoch >= 1
    for cut in range(1, 25):
        rest = list(islice(stream(base, data).batches(whole[cut - 1].after), 30 - cut))
        assert rest == whole[cut:]


def test_another_seed_is_another_order(base: Path, data: Conversations) -> None:
    one, two = (next(stream(base, data, seed=seed).batches(Place())) for seed in (0, 1))
    assert one != two


def test_there_is_little_padding(base: Path, data: Conversations) -> None:
    tokens = padded = 0
    for batch in islice(stream(base, data).batches(Place()), 12):
        tokens += batch.tokens
        padded += len(batch.samples) * max(len(sample.ids) for sample in batch.samples)
    assert padded < 1.15 * tokens


def test_padding_and_what_counts() -> None:
    from compressors.data import Sample

    ids, counted = batches.pad([Sample((5, 6, 7), (False, True, True)), Sample((8, 9), (True, False))], "cpu")
    assert ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert counted.tolist() == [[True, True, False], [False, False, False]]
