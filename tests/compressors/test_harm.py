"""First, do no harm: when a training is read, by what it is judged, and what is handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.distill import Distill
from compressors.finetune import Finetune
from compressors.step import Conversations
from compressors.store import Store
from tests.compressors.test_recover import DROP, SMALL


def test_training_stops_at_its_best_point(
    base: Path, tmp_path: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings that rise from the second on: training ends after `patience` more, and the first one's weights stay."""
    from compressors.harm import Reading, Watch

    honest, said = Watch.read, []

    def rising(self: Watch, student: Any) -> Reading:
        """Half of what it was before training, then twice as much each time."""
        reading = honest(self, student)
        kl = said[0].kl * 2.0 ** (len(said) - 2) if said else reading.kl
        said.append(reading.model_copy(update={"kl": kl}))
        return said[-1]

    monkeypatch.setattr(Watch, "read", rising)
    step = Distill(tokens=50_000, check_every=512, patience=2, **SMALL)
    artifact = build([DROP, step], base, Store(tmp_path), data).artifact
    assert artifact.provenance is not None
    notes = artifact.provenance.notes
    assert notes["stopped_early"] and notes["trained_tokens"] < 3 * 512 + 2 * 256
    assert notes["best_seen"]["kl"] == said[1].kl


def test_a_reading_that_is_no_number_is_never_the_best(
    base: Path, tmp_path: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressors.harm import Reading, Watch

    honest, said = Watch.read, []

    def third_alone(self: Watch, student: Any) -> Reading:
        """Before training, then a reading that is none, then a good one, then none any more."""
        reading = honest(self, student)
        kl = {0: reading.kl, 2: said[0].kl / 2 if said else 0.0}.get(len(said), float("nan"))
        said.append(reading.model_copy(update={"kl": kl}))
        return said[-1]

    monkeypatch.setattr(Watch, "read", third_alone)
    step = Distill(tokens=2_000, check_every=512, **SMALL)
    artifact = build([DROP, step], base, Store(tmp_path), data).artifact
    assert artifact.provenance is not None
    notes = artifact.provenance.notes
    assert notes["best_seen"]["kl"] == said[2].kl
    assert notes["kept"] == "input"  # the last reading, of what would be written, is no number


def test_sft_that_leaves_its_base_is_not_handed_on(base: Path, tmp_path: Path, data: Conversations) -> None:
    """On the base itself, KL before is 0: what is learned may cost `harm` nats and no more."""
    store = Store(tmp_path)
    free, bound = (
        build([Finetune(tokens=3_000, harm=harm, check_every=500, **SMALL)], base, store, data).artifact
        for harm in (100.0, 1e-6)
    )
    assert free.provenance is not None and bound.provenance is not None
    assert free.provenance.notes["kept"] == "trained"
    assert free.provenance.notes["after"]["loss"] < free.provenance.notes["before"]["loss"]
    assert free.provenance.notes["before"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert bound.provenance.notes["kept"] == "input"


def test_readings_are_due_early_and_then_evenly() -> None:
    step = Distill(tokens=9, check_every=16_000)
    places = [position for position in range(1, 50_000) if step.due(position) > step.due(position - 1)]
    assert places == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 48_000]


def test_of_two_kinds_of_text_the_worse_counts(base: Path, data: Conversations) -> None:
    import torch

    from compressors.batches import Stream
    from compressors.harm import Watch, worst

    model, tokenizer = checkpoint.load(base, "cpu")
    student, _ = checkpoint.load(base, "cpu")
    with torch.no_grad():
        student.model.layers[0].mlp.down_proj.weight.mul_(3)
    stream = Stream(data, tokenizer, batch_tokens=512, max_length=512, answers_only=True, seed=0)
    samples = stream.held_out()
    apart = [Watch(model, student, kind).read(student) for kind in (samples[:1], samples[1:])]
    both = Watch(model, student, samples[:1], samples[1:]).read(student)
    assert both.kl == pytest.approx(max(one.kl for one in apart))
    assert both.agreement == pytest.approx(min(one.agreement for one in apart))
    assert both.loss == pytest.approx(apart[0].loss)
    assert str(worst(1.0, float("nan"), 2.0)) == "nan"
