"""The work of one rung: build the recipe's artifact, measure it beside the base, and say so in one ledger line.

Knows nothing of Ray, of schedulers or of other trials. Holds a warm engine between recipes.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.storage import Remote
from compressors.artifact import Artifact, base_artifact
from compressors.build import Stage, build
from compressors.data import load_conversations
from compressors.files import model_files
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, say_nothing
from evaluation.answers import AnswerStore
from evaluation.devices import DeviceName, known_device
from evaluation.engine import Engine
from evaluation.judge import Judge
from evaluation.measure import Measurer
from evaluation.measurement import Measurement
from evaluation.protocol import EngineFault
from evaluation.record import Subject
from evaluation.score import Score, near, score
from evaluation.suite import Suite
from search.advice import advice_of
from search.finals import ANSWERS_AGAIN
from search.forms import steps_of
from search.job import Job
from search.recipe import Recipe
from search.self_data import self_written
from search.serving import engine_settings, traits
from search.space import SELF, Space
from search.stores import open_store
from search.target import base_described, device_of, speed_on

ANSWERS = "answers"  # in the run folder: what models said
NO_DATA = Conversations(rows=(), fingerprint="none")  # for recipes that read none: it is not written for them either


class Bench:
    """Builds and measures recipes of one job. Close it: it owns engine processes."""

    def __init__(self, job: Job, progress: Callable[[str], None] = say_nothing) -> None:
        self.job = job
        self.progress = progress
        self.store = open_store(job)
        settings = engine_settings(job.device, job.space.max_model_len, job.space.engine, job.space.gpus)
        # Engines read what they said in their logs: workers of one run folder, on a node or on several, write apart.
        logs, mine = job.run / "logs", f"{platform.node()}-{os.getpid()}.log"
        self.engine = Engine(settings, logs / f"engine-{mine}")
        # The base stays at hand: on a CPU beside the candidate, on a GPU asleep while the candidate works.
        self.base_engine = Engine(settings, logs / f"base-engine-{mine}")
        spec = job.space.evaluation
        judge = Judge(spec.judge, self._kept(self.store.cache / "judge")) if spec.judge is not None else None
        suite = Suite(spec, [rung.items for rung in job.space.rungs], judge, job.left_out)
        self.measurer = Measurer(
            self.engine,
            self.base_engine,
            Subject(key=job.base_key, folder=job.base),
            suite,
            self._kept(job.run / ANSWERS),
            job.space.passes,
            job.space.thinking,
            job.space.within,
            job.space.timing_seconds,
        )
        self._leave_no_answers_of_another_run()
        self._data: Conversations | None = None
        self._furthest = furthest(job.space)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.close()
        self.base_engine.close()

    def keep_answers(self, folder: str = ANSWERS) -> None:
        """From here on in `folder` of the run folder; what other folders hold is not read. The engines stay."""
        self.measurer.asker.store = self._kept(self.job.run / folder)

    def _leave_no_answers_of_another_run(self) -> None:
        """This machine's copy may be of an earlier run that was kept at the same URI."""
        mark = self.job.run / "id"
        if not self.job.home or (mark.is_file() and mark.read_text(encoding="utf-8") == self.job.id):
            return
        for name in (ANSWERS, ANSWERS_AGAIN):
            shutil.rmtree(self.job.run / name, ignore_errors=True)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(self.job.id, encoding="utf-8")

    def _kept(self, folder: Path) -> AnswerStore:
        """Answers in a folder of the run or of the store; where that is kept at a URI, they are there, too."""
        for mine, home in ((self.job.run, self.job.home), (self.job.store, self.job.store_home)):
            if home and folder.is_relative_to(mine):
                return AnswerStore(folder, Remote(home).under(folder.relative_to(mine).as_posix()))
        return AnswerStore(folder)

    @property
    def data(self) -> Conversations:
        if self._data is None:
            spec = self.job.space
            if spec.calibration == SELF:
                if self.job.device != "cpu":
                    self.base_engine.unload()  # the same model, on the other engine: one GPU has no room for both
                self._data = self_written(self.engine, self.job.base, self.job.base_key, spec.self_rows, self.store)
            else:
                self._data = load_conversations(spec.calibration)
        return self._data

    def check(self, recipe: Recipe) -> None:
        """Raise `Infeasible` when the recipe makes no sense for this base or engine. Starts nothing."""
        spec = self.job.space
        check_recipe(recipe.steps, read_shape(self.job.base), traits(self.job.device, spec.engine, spec.gpus))

    def rung(self, recipe: Recipe, number: int) -> dict[str, Any]:
        """Bring `recipe` to rung `number` and return its ledger line, without the trial's name and the time.

        Raises `Infeasible`, `StepFault` or `EngineFault`.
        """
        self.check(recipe)
        for engine in (self.engine, self.base_engine):
            engine.launch()  # they import vLLM while the first steps are built
        fidelity = self.job.space.rungs[number]
        begin = time.monotonic()
        data = self.data if any(step.takes_data() for step in recipe.steps) else NO_DATA
        data_seconds = time.monotonic() - begin
        built = build(
            recipe.at(fidelity.tokens).steps,
            self.job.base,
            self.store,
            data,
            device=self.job.device,
            progress=self.progress,
            seed=self.job.space.training_seed,
            before_work=self._make_room,
            furthest=self._furthest,
        )
        begin = time.monotonic()
        if fidelity.by == "likelihood":
            measured, baseline, result = self._compare(built.artifact, recipe, number)
        else:
            measured, baseline, result = self.measure(built.artifact, number)
        self.progress("waiting until all of it is kept")
        self.store.flush()  # whoever goes on elsewhere finds what this rung was measured on
        return {
            "event": "rung",
            "recipe": recipe.to_list(),
            "recipe_hash": recipe.hash,
            "rung": number,
            "fidelity": fidelity.model_dump(),
            **result.model_dump(),
            "benchmarks": {
                name: {
                    "value": figures.value,
                    "n": len(figures.grades),
                    "tokens": figures.tokens,
                    "seconds": figures.seconds,
                    **figures.details,
                }
                for name, figures in measured.benchmarks.items()
            },
            "artifact": built.artifact.key,
            "size_bytes": size_of(built.artifact),
            "data_seconds": round(data_seconds, 3),
            "stages": [_stage_line(stage) for stage in built.stages],
            "measuring_seconds": round(time.monotonic() - begin, 3),
            "engine": measured.engine,
            "device": measured.device,
            "versions": measured.versions,
            "clock": measured.clock,
            "mhz": measured.mhz,
            "mhz_base": baseline.mhz,
            "health": {name: one.model_dump() for name, one in measured.health.items()},
            "health_base": {name: one.model_dump() for name, one in baseline.health.items()},
            "left_out": measured.left_out,
            "kernels": measured.kernels,
        }

    def _make_room(self) -> None:
        """On a GPU the engines hold nearly all of the memory: a step needs it first."""
        if self.job.device != "cpu":
            self.engine.unload()
            self.base_engine.unload()

    def measure(self, artifact: Artifact, number: int) -> tuple[Measurement, Measurement, Score]:
        """Measure `artifact`, and the base beside it: never against timings from the start of the run.

        Raises `EngineFault`, the engine and all it held being gone then: the next model is served by a fresh one.
        """
        self.progress(f"measuring {artifact.key}")
        try:
            measured, baseline = self.measurer.measure_pair(Subject(key=artifact.key, folder=artifact.folder), number)
            return measured, baseline, score(measured, baseline, seed=self.job.seed)
        except EngineFault:
            self.engine.close()
            raise

    def _compare(self, artifact: Artifact, recipe: Recipe, number: int) -> tuple[Measurement, Measurement, Score]:
        """`artifact` beside the base by likelihood; its speed as the roofline says where this is the space's target.

        Raises as `measure` does.
        """
        self.progress(f"comparing {artifact.key}")
        subject = Subject(key=artifact.key, folder=artifact.folder)
        try:
            here = self._target_at_hand()
            measured, baseline = self.measurer.compare(subject, number, timed=here is None)
            predicted = speed_on(here, recipe, self.job.base) if here is not None else None
            error = device_of(here).error if here is not None else 0.0
            return measured, baseline, near(measured, baseline, predicted, error, self.job.seed)
        except EngineFault:
            self.engine.close()
            raise

    def _target_at_hand(self) -> DeviceName | None:
        """The space's target, if this is one. Its roofline is that of the contest's workload on one GPU, so who names
        none, has several share a model, lets models think, or has a base that the roofline does not know, is timed."""
        spec = self.job.space
        here = known_device(self.measurer.asker.about(self.measurer.base)["device_name"])
        foretold = here == spec.foretold and not spec.thinking and base_described(self.job.base) is not None
        return here if foretold else None

    def measure_alone(self, number: int) -> Measurement:
        """The job's base alone. Raises `EngineFault`, the engine and all it held being gone then."""
        self.progress(f"measuring {self.job.base_key}")
        try:
            return self.measurer.measure_alone(number)
        except EngineFault:
            self.base_engine.close()
            raise


def furthest(space: Space) -> int:
    """The most tokens that any recipe of `space` trains."""
    return max((int(getattr(step, step.continues)) for step in steps_of(space) if step.continues), default=0)


def size_of(artifact: Artifact) -> int:
    """Bytes of the files that would be handed over."""
    return sum(path.stat().st_size for path in model_files(artifact.folder))


def base_of(folder: Path) -> Artifact:
    """The base model as an artifact."""
    return base_artifact(folder)


def _stage_line(stage: Stage) -> dict[str, Any]:
    return {
        "step": stage.step.step,
        "key": stage.key,
        "cached": stage.cached,
        "seconds": round(stage.seconds, 3),
        "peak_gpu_bytes": stage.peak_gpu_bytes,
        **{name: stage.notes[name] for name in ("kept",) if isinstance(stage.notes.get(name), str)},
        **({"advice": advice} if (advice := advice_of(stage.notes)) else {}),
    }
