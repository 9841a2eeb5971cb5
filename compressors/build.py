"""A recipe's steps, run in order through the store: what was built before is not built again."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from compressors.artifact import (
    Artifact,
    Provenance,
    artifact_key,
    base_artifact,
    code_hash,
    family_key,
    libraries,
)
from compressors.data import HUB, load_conversations
from compressors.quiet import no_bars
from compressors.step import Conversations, Infeasible, Step, StepContext, StepFault, say_nothing
from compressors.store import Store


@dataclass(frozen=True)
class Stage:
    """What one step cost this time: wall seconds, and GPU bytes at the peak (0 on a CPU or if cached)."""

    step: Step
    key: str
    cached: bool
    seconds: float
    peak_gpu_bytes: int
    notes: dict[str, Any]  # what the step had to say of its work


@dataclass(frozen=True)
class Built:
    """The last artifact of a recipe and what each step cost."""

    artifact: Artifact
    stages: list[Stage]


def do_nothing() -> None:
    """Default of `before_work`."""


def build(
    steps: Sequence[Step],
    base: Path,
    store: Store,
    data: Conversations,
    device: str = "cpu",
    progress: Callable[[str], None] = say_nothing,
    seed: int = 0,
    before_work: Callable[[], None] = do_nothing,
    furthest: int | None = None,
) -> Built:
    """Run `steps` on the model in `base`; no steps give the base itself.

    `before_work` is called before a step that has to be built: whoever holds the device can give it back there.
    `furthest` is the most that any step will ever be asked to reach in the field it `continues`: an artifact that is
    there keeps no state to go on from, which is several times its size. Without it all keep theirs.
    Raises `Infeasible` (remembered in the store) or `StepFault` (never remembered) of the step concerned.
    """
    work = _Work(base, store, data, device, progress, seed, before_work, furthest)
    artifact, stages = base_artifact(base), []
    for step in steps:
        artifact, stage = work.stage(step, artifact)
        stages.append(stage)
    return Built(artifact=artifact, stages=stages)


@dataclass(frozen=True)
class _Work:
    """What the steps of one build share; the fields are `build`'s arguments."""

    base: Path
    store: Store
    data: Conversations
    device: str
    progress: Callable[[str], None]
    seed: int
    before_work: Callable[[], None]
    furthest: int | None

    def stage(self, step: Step, source: Artifact) -> tuple[Artifact, Stage]:
        """The artifact of `step` on `source`, from the store or built now."""
        started = time.monotonic()
        key = artifact_key(step, source.key, fingerprint(step, self.data), self.seed, self.device)
        artifact = self.store.get(key)
        if artifact is None:
            with self.store.lock(key):
                artifact = self.store.get(key)  # another process may have built it while we waited
                if artifact is None:
                    self.progress(f"{step.step}: building {key}")
                    self.before_work()
                    artifact = self._build(step, key, source)
                    assert artifact.provenance is not None
                    peak = artifact.provenance.peak_gpu_bytes
                    return artifact, Stage(step, key, False, time.monotonic() - started, peak, _notes(artifact))
        if step.continues is not None:  # its maker may have been killed before it said so
            family = family_key(step, source.key, fingerprint(step, self.data), self.seed, self.device)
            self.store.enter_family(family, getattr(step, step.continues), key)
        self.progress(f"{step.step}: {key} is in the store")
        return artifact, Stage(step, key, True, time.monotonic() - started, 0, _notes(artifact))

    def _build(self, step: Step, key: str, source: Artifact) -> Artifact:
        refusal = self.store.refusal(key)
        if refusal is not None:
            raise Infeasible(refusal)
        if step.continues is None:
            return self._run(step, key, source, None)
        family = family_key(step, source.key, fingerprint(step, self.data), self.seed, self.device)
        reach = getattr(step, step.continues)
        # Those who go on from the same training state take turns: each gives up the state it went on from.
        with self.store.lock(family):
            earlier = self.store.largest_below(family, reach)
            artifact = self._run(step, key, source, earlier)
            self.store.enter_family(family, reach, key)
            if earlier is not None:
                self.store.forget_training(earlier.key)  # the new artifact holds the state any later one goes on from
        return artifact

    def _run(self, step: Step, key: str, source: Artifact, earlier: Artifact | None) -> Artifact:
        own = own_data(step)
        context = StepContext(
            base=self.base,
            data=own if own is not None else self.data,
            general=self.data if own is not None else None,
            device=self.device,
            seed=self.seed,
            progress=self.progress,
            continue_from=earlier.folder if earlier is not None else None,
            goes_on=self.furthest is None or step.continues is None or getattr(step, step.continues) < self.furthest,
            cache=self.store.cache,
        )
        started = time.monotonic()
        self.store.tables_in()
        with self.store.draft() as draft:
            try:
                _begin(self.device, self.seed)
                with no_bars():
                    step.run(source.folder, draft, context)
                peak = _peak(self.device)
            except Infeasible as refused:
                self.store.remember_refusal(key, str(refused))
                raise
            except Exception as fault:
                # The frames of the failed step still hold its tensors, and would keep them from the engine.
                traceback.clear_frames(fault.__traceback__)
                if isinstance(fault, StepFault):
                    told = str(fault).removeprefix(f"{step.step} ")
                    raise StepFault(f"{step.step} on {_named(source)}: {told}") from fault
                raise
            finally:
                if step.changes_weights:
                    _release(self.device)
            provenance = Provenance(
                key=key,
                step=step.model_dump(mode="json"),
                source=source.key,
                data=fingerprint(step, self.data) if step.takes_data() else None,
                seed=self.seed,
                code=code_hash(step),
                libraries=libraries(),
                device=self.device,
                continued_from=earlier.key if earlier is not None else None,
                seconds=round(time.monotonic() - started, 3),
                peak_gpu_bytes=peak,
                notes=context.notes,
                files={},
            )
            self.store.tables_out()
            return self.store.put(draft, provenance)


def _notes(artifact: Artifact) -> dict[str, Any]:
    return artifact.provenance.notes if artifact.provenance is not None else {}


def _named(artifact: Artifact) -> str:
    """A base by its folder, what was made here by its key."""
    return artifact.key if artifact.provenance is not None else str(artifact.folder)


def fingerprint(step: Step, data: Conversations) -> str:
    """Of all conversations that a step may read: the run's, `data`, and its own where it names some."""
    own = own_data(step)
    return data.fingerprint if own is None else f"{own.fingerprint}+{data.fingerprint}"


def own_data(step: Step) -> Conversations | None:
    """Raises `Infeasible` when the file that a step names cannot be read."""
    named = step.own_data()
    if named is None:
        return None
    try:
        if named.startswith(HUB):
            return _read(named, 0, 0)
        status = Path(named).stat()
        return _read(named, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError) as fault:
        raise Infeasible(f"{step.step} data {named}: {fault}") from fault


@lru_cache(maxsize=8)
def _read(source: str, size: int, changed: int) -> Conversations:
    """`size` and `changed` are there so that a file that was written anew is read anew."""
    return load_conversations(source)


def _begin(device: str, seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int:
    import torch

    return int(torch.cuda.max_memory_allocated(device)) if device.startswith("cuda") else 0


def _release(device: str) -> None:
    """Free what a step left behind, also after it failed, so that the engine finds the GPU empty."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
