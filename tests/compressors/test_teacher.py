"""A stored teacher: asked once, read back as it was written, whole files or none."""

from __future__ import annotations

from pathlib import Path

from compressors import checkpoint
from compressors.build import build
from compressors.data import Sample
from compressors.depth import DropLayers
from compressors.distill import Distill
from compressors.step import Conversations
from compressors.store import Store
from compressors.teacher import StoredTeacher

SAMPLES = [Sample(tuple(range(n, n + 12)), (False,) * 4 + (True,) * 8) for n in (10, 40, 90)]


def test_what_is_stored_is_what_was_asked(base: Path, tmp_path: Path) -> None:
    model, _ = checkpoint.load(base, "cpu")
    first = StoredTeacher(model, tmp_path, 16)
    told = first.guide(SAMPLES[:2]).at(slice(0, 16))
    first.guide(SAMPLES[1:])
    assert first.asked == 24
    first.flush()
    again = StoredTeacher(model, tmp_path, 16)
    values, ids = again.guide(SAMPLES[:2]).at(slice(0, 16))
    assert again.asked == 0
    assert values.equal(told[0]) and ids is not None and told[1] is not None and ids.equal(told[1])
    assert values.shape == (16, 17) and values.exp().sum(-1).allclose(values.new_ones(16), atol=2e-2)


def test_two_trials_ask_the_teacher_once(base: Path, tmp_path: Path, data: Conversations) -> None:
    store = Store(tmp_path)
    for count in (1, 2):
        step = Distill(tokens=600, batch_tokens=256, warmup_tokens=500, top=8)
        build([DropLayers(count=count, calibration_rows=8), step], base, store, data)
        files = sorted((store.cache / "teacher").glob("*/*"))
        stamps = {path: path.stat().st_mtime_ns for path in files}
        if count == 1:
            before = stamps
    assert before and stamps == before
