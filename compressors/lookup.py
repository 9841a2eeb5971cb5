"""What a store holds of a recipe already. Builds nothing and writes nothing; knows nothing of how steps work."""

from __future__ import annotations

from collections.abc import Sequence

from compressors.artifact import Artifact, artifact_key
from compressors.build import fingerprint
from compressors.step import Conversations, Step
from compressors.store import Store


class Lookup:
    """Steps by the keys under which `build` would keep them; recipes that begin alike are looked up once."""

    def __init__(self, store: Store, base: Artifact, data: Conversations, device: str, seed: int = 0) -> None:
        self.store = store
        self.base = base
        self.data = data
        self.device = device
        self.seed = seed
        self._known: dict[tuple[str, str], str | None] = {}

    def steps_there(self, steps: Sequence[Step]) -> int:
        """How many of `steps`, from the first on, need not be built. Raises `Infeasible` for data it cannot read."""
        source = self.base.key
        for count, step in enumerate(steps):
            key = self._key(step, source)
            if key is None:
                return count
            source = key
        return len(steps)

    def _key(self, step: Step, source: str) -> str | None:
        """The key of what `step` makes of `source`, or None where it is not in the store."""
        asked = source, step.model_dump_json()
        if asked not in self._known:
            key = artifact_key(step, source, fingerprint(step, self.data), self.seed, self.device)
            self._known[asked] = key if self.store.get(key) is not None else None
        return self._known[asked]
