"""One worker of a recording: `python -m tests.benchmarks.record_worker FOLDER NUMBER BASE`, started by `record`.

Builds and measures with `search.bench.Bench`, as a trial does, on the cores it was started on. Libraries are imported
and engines started before the first recipe: in a search, too, only the first trial of many pays for that.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compressors.artifact import Provenance
from compressors.build import build
from compressors.step import Infeasible, StepFault
from compressors.store import Store
from evaluation.judge import JudgeFault
from evaluation.protocol import EngineFault
from search.bench import Bench
from search.job import Job
from search.ledger import FAILED, INFEASIBLE, Ledger
from search.recipe import Recipe
from search.start import new_job
from tests.benchmarks.recorded import Recording

WARM = 0.01  # of the training tokens of the recipe that is built to have everything imported


def job_of(recording: Recording, number: int, base: str) -> Job:
    """The worker's job: a run folder of its own, one store for all."""
    run = recording.folder / f"worker-{number}"
    if (run / "run.json").exists():
        return Job.load(run)
    return new_job(str(recording.space_path), base, run, store=recording.folder / "store")


def warm_up(bench: Bench, recording: Recording) -> None:
    """Have libraries imported, engines started and a model loaded once."""
    for engine in (bench.engine, bench.base_engine):
        engine.launch()
    longest = max(recording.recipes, key=lambda recipe: len(recipe.steps))
    with tempfile.TemporaryDirectory(dir=recording.folder) as aside:
        build(longest.at(WARM).steps, bench.job.base, Store(Path(aside)), bench.data, device=bench.job.device)
    for engine in (bench.engine, bench.base_engine):
        engine.load(bench.job.base)


def record(recording: Recording, number: int, base: str) -> None:
    """Take recipes nobody has until none is left."""
    bench = Bench(job_of(recording, number, base))
    bench.keep_answers(str(recording.folder.resolve() / "answers"))
    ledger = Ledger(recording.folder / f"worker-{number}.jsonl")
    with bench:
        warm_up(bench, recording)
        for recipe in left(recording):
            for rung in range(recording.rungs):
                if recording.next_rung(recording.known().get(recipe.hash, {})) != rung:
                    continue
                ledger.append(line_of(bench, recipe, rung) | {"cores": len(os.sched_getaffinity(0))})


def left(recording: Recording) -> Iterator[Recipe]:
    """Recipes to be measured, each held while it is: whole groups first, then what others have not come to."""
    for name, group in recording.groups().items():
        with recording.claim(name) as mine:
            if mine:
                for recipe in group:
                    yield from _if_free(recording, recipe)
    for recipe in reversed(recording.recipes):
        yield from _if_free(recording, recipe)


def _if_free(recording: Recording, recipe: Recipe) -> Iterator[Recipe]:
    with recording.claim(recipe.hash) as mine:
        if mine and recording.next_rung(recording.known().get(recipe.hash, {})) is not None:
            yield recipe


def line_of(bench: Bench, recipe: Recipe, rung: int) -> dict[str, Any]:
    """The ledger's line of this rung, or how it ended instead, with the wall seconds it took."""
    begin = time.monotonic()
    end = {"event": "end", "recipe": recipe.to_list(), "recipe_hash": recipe.hash, "rung": rung}
    try:
        line = bench.rung(recipe, rung)
        line["stages"] = [stage | made(bench.store, stage["key"], recipe) for stage in line["stages"]]
    except Infeasible as refusal:
        line = end | {"status": INFEASIBLE, "reason": str(refusal)}
    except (StepFault, EngineFault, JudgeFault) as fault:
        line = end | {"status": FAILED, "reason": f"{type(fault).__name__}: {fault}"}
    except Exception as fault:  # as in a trial: this recipe ends, others go on
        traceback.print_exc()
        line = end | {"status": FAILED, "reason": f"{type(fault).__name__}: {' '.join(str(fault).split())[:500]}"}
    wall = round(time.monotonic() - begin, 3)
    told = line["score"] if line["event"] == "rung" else f"{line['status']}: {line['reason']}"
    print(f"{time.strftime('%H:%M:%S')} {recipe} rung {rung}: {told}, {wall:.1f} s", flush=True)
    return line | {"wall": wall}


def made(store: Store, key: str, recipe: Recipe) -> dict[str, Any]:
    """What a stage took whoever built it, and how far it brought a training: `paid` tokens of `reached`."""
    provenance = _provenance(store, key)
    continues = next((step.continues for step in recipe.steps if step.step == provenance.step["step"]), None)
    told: dict[str, Any] = {"made_seconds": provenance.seconds, "reached": None, "paid": None}
    if continues is None:
        return told
    reached = provenance.step[continues]
    earlier = provenance.continued_from
    before = _provenance(store, earlier).step[continues] if earlier is not None else 0
    return told | {"reached": reached, "paid": reached - before}


def _provenance(store: Store, key: str) -> Provenance:
    artifact = store.get(key)
    assert artifact is not None and artifact.provenance is not None  # it was just built or read
    return artifact.provenance


def end_with(parent: int) -> None:
    """End as soon as the process that started this one is gone, however it ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    folder, number, base = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what is not finished is begun again in another sitting
    end_with(os.getppid())
    record(Recording(folder), number, base)


if __name__ == "__main__":
    main()
