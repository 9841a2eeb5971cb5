"""The page on steps is what the code says, and the step it shows works."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from compressors.build import build
from compressors.data import conversations
from compressors.store import Store
from evaluation.reference import MODEL
from search.steps_page import NEW_STEP, page

DOCS = Path(__file__).parents[2] / "docs" / "steps.md"


def test_the_page_is_current():
    assert DOCS.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_the_step_it_shows_is_short_and_works(tmp_path, monkeypatch):
    assert len([line for line in NEW_STEP.splitlines() if line.strip()]) < 20
    path = tmp_path / "noise_step.py"
    path.write_text(NEW_STEP)
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.find_spec("noise_step")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = conversations([[{"role": "user", "content": "1"}]])
    built = build([module.Noise(scale=0.1)], MODEL, Store(tmp_path / "store"), rows)
    assert (built.artifact.folder / "model.safetensors").read_bytes() != (MODEL / "model.safetensors").read_bytes()
