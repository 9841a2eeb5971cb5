"""A recipe's steps, run in order through the store: what was built before is not built again."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from compressors.artifact import (
    Artifact,
    Provenance,
    artifact_key,
    base_artifact,
    code_hash,
    family_key,
    libraries,
)
from compressors.quiet import no_bars
from compressors.step import Conversations, Infeasible, Step, StepContext, say_nothing
from compressors.store import Store


@dataclass(frozen=True)
class Stage:
    """What one step cost this time: wall seconds, and GPU bytes at the peak (0 on a CPU or if cached)."""

    step: Step
    key: str
    cached: bool
    seconds: float
    peak_gpu_bytes: int


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
) -> Built:
    """Run `steps` on the model in `base`; no steps give the base itself.

    `before_work` is called before a step that has to be built: whoever holds the device can give it back there.
    Raises `Infeasible` (remembered in the store) or `StepFault` (never remembered) of the step concerned.
    """
    artifact = base_artifact(base)
    stages = []
    for step in steps:
        artifact, stage = _stage(step, artifact, base, store, data, device, progress, seed, before_work)
        stages.append(stage)
    return Built(artifact=artifact, stages=stages)


def _stage(
    step: Step,
    source: Artifact,
    base: Path,
    store: Store,
    data: Conversations,
    device: str,
    progress: Callable[[str], None],
    seed: int,
    before_work: Callable[[], None],
) -> tuple[Artifact, Stage]:
    started = time.monotonic()
    key = artifact_key(step, source.key, data.fingerprint, seed)
    artifact = store.get(key)
    if artifact is None:
        with store.lock(key):
            artifact = store.get(key)  # another process may have built it while we waited
            if artifact is None:
                progress(f"{step.step}: building {key}")
                before_work()
                family = family_key(step, source.key, data.fingerprint, seed) if step.continues else None
                # Those who go on from the same training state take turns: each gives up the state it went on from.
                with store.lock(family) if family is not None else nullcontext():
                    artifact = _build(step, key, family, source, base, store, data, device, progress, seed)
                assert artifact.provenance is not None
                return artifact, Stage(step, key, False, time.monotonic() - started, artifact.provenance.peak_gpu_bytes)
    progress(f"{step.step}: {key} is in the store")
    return artifact, Stage(step, key, True, time.monotonic() - started, 0)


def _build(
    step: Step,
    key: str,
    family: str | None,
    source: Artifact,
    base: Path,
    store: Store,
    data: Conversations,
    device: str,
    progress: Callable[[str], None],
    seed: int,
) -> Artifact:
    refusal = store.refusal(key)
    if refusal is not None:
        raise Infeasible(refusal)
    earlier = None
    if step.continues is not None and family is not None:
        earlier = store.largest_below(family, getattr(step, step.continues))
    context = StepContext(
        base=base,
        data=data,
        device=device,
        seed=seed,
        progress=progress,
        continue_from=earlier.folder if earlier is not None else None,
    )
    started = time.monotonic()
    with store.draft() as draft:
        try:
            _begin(device, seed)
            with no_bars():
                step.run(source.folder, draft, context)
            peak = _peak(device)
        except Infeasible as refused:
            store.remember_refusal(key, str(refused))
            raise
        except Exception as fault:
            # The frames of the failed step still hold its tensors, and would keep them from the engine.
            traceback.clear_frames(fault.__traceback__)
            raise
        finally:
            if step.changes_weights:
                _release(device)
        provenance = Provenance(
            key=key,
            step=step.model_dump(mode="json"),
            source=source.key,
            data=data.fingerprint if step.takes_data() else None,
            seed=seed,
            code=code_hash(step),
            libraries=libraries(),
            device=device,
            continued_from=earlier.key if earlier is not None else None,
            seconds=round(time.monotonic() - started, 3),
            peak_gpu_bytes=peak,
            notes=context.notes,
            files={},
        )
        artifact = store.put(draft, provenance)
    if step.continues is not None and family is not None:
        store.enter_family(family, getattr(step, step.continues), key)
        if earlier is not None:
            store.forget_training(earlier.key)  # the new artifact holds the state that any later one goes on from
    return artifact


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
