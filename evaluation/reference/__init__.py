"""The reference model `tiny`: a small EXAONE-4-shaped model of a made-up world, its benchmark items and texts.

Only paths live here; what made them is in `corpus`, `tokenizer` and `train`.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

MODEL = _HERE / "model"  # a Hugging Face model folder
ITEMS = _HERE / "items"  # <benchmark>.jsonl, rows in the published schemas
CALIBRATION = _HERE / "text" / "calibration.jsonl"  # {"conversations": [{"role", "content"}, ...]}
HELDOUT = _HERE / "text" / "heldout.jsonl"  # {"text": ...}
