"""What a store holds already of the recipes of a plan. Knows nothing of spaces but where their conversations are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressors.artifact import base_artifact
from compressors.data import load_conversations, read_conversations
from compressors.lookup import Lookup
from compressors.step import Conversations
from compressors.store import Store
from search.bench import NO_DATA
from search.recipe import Recipe
from search.space import SELF, Space


def hits(root: Path, spec: Space, recipes: Sequence[Recipe], base: Path, device: str) -> dict[str, Any]:
    """How many of `recipes` are there whole, as the last rung needs them, and of how many the first steps, at any rung.

    `device`: what they would be built on, which their names tell.
    `why` says, where it is given, why nothing can be looked up.
    """
    if not any(base.glob("*.safetensors")):
        return {"why": "the base has no weights here, by which artifacts are named", "whole": [], "begun": 0}
    store, original = Store(root, make=False), base_artifact(base)
    best: dict[str, Any] = {"why": None, "whole": [], "begun": 0}
    for data in _conversations(spec, store):
        lookup = Lookup(store, original, data, device, spec.training_seed)
        whole, begun = [], 0
        for recipe in recipes:
            if lookup.steps_there(recipe.steps) == len(recipe.steps):
                whole.append(str(recipe))
            elif any(lookup.steps_there(recipe.at(rung.tokens).steps) for rung in spec.rungs):
                begun += 1
        if (len(whole), begun) > (len(best["whole"]), best["begun"]):
            best = {"why": None, "whole": whole, "begun": begun}
    return best


def _conversations(spec: Space, store: Store) -> list[Conversations]:
    """What steps may have read: the space's conversations; where the base writes them, each that the store keeps."""
    if spec.calibration != SELF:
        try:
            return [load_conversations(spec.calibration)]
        except ValueError:  # out of reach, and told already: what reads none can still be found
            return [NO_DATA]
    return [NO_DATA, *(read_conversations(path) for path in sorted((store.cache / "self").glob("*.jsonl")))]
