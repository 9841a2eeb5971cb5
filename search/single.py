"""Commands that handle one recipe or one model without a search: compress, evaluate."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.engines import EngineName
from cluster.resources import find_device
from compressors.artifact import base_artifact
from compressors.build import Stage, build
from compressors.data import read_conversations
from compressors.files import model_files
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, Infeasible, StepFault
from compressors.store import Store
from compressors.tokens import KEPT
from evaluation.health import Health
from evaluation.judge import JudgeFault
from evaluation.protocol import EngineFault
from search.bases import find_base
from search.bench import Bench, base_of, traits
from search.errors import BadInput, RunFailed
from search.job import Job
from search.recipe import Recipe
from search.space_file import REFERENCE, load_space, resolve_path
from search.start import check_base, check_questions, check_template, check_weights


def compress(recipe_text: str, base: str, output: Path, data: Path | None) -> dict[str, Any]:
    """Apply one recipe and write a plain model folder."""
    recipe = read_recipe(recipe_text)
    folder = find_base(base)
    check_base(folder)
    try:
        check_recipe(recipe.steps, read_shape(folder), traits(find_device()))
        for step in recipe.steps:
            step.preflight(folder)
        rows = read_conversations(
            data if data is not None else Path(resolve_path(f"{REFERENCE}text/calibration.jsonl", Path()))
        )
    except (Infeasible, ValueError) as fault:
        raise BadInput(str(fault)) from fault
    if not recipe.steps:
        raise BadInput("a recipe needs at least one step")
    check_weights(folder)
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise BadInput(f"{output} is there already: give a new folder")
        output.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise BadInput(f"cannot write {str(output)[:100]}: {fault.strerror}") from fault
    try:
        return _compress(recipe, folder, output, rows)
    except RunFailed:
        output.rmdir()  # nothing is written there before all steps are done
        raise


def _compress(recipe: Recipe, folder: Path, output: Path, rows: Conversations) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="squeeze-compress-") as scratch:
        try:
            built = build(recipe.steps, folder, Store(Path(scratch)), rows, device=find_device(), furthest=0)
        except (Infeasible, StepFault) as fault:
            raise RunFailed(str(fault)) from fault
        except Exception as fault:  # a defect of ours or of a library: one line here, the whole beside the output
            told = output.with_name(f"{output.name}.traceback.txt")
            told.write_text(traceback.format_exc(), encoding="utf-8")
            words = " ".join(str(fault).split())[:300]
            raise RunFailed(f"{recipe}: {type(fault).__name__}: {words} (all of it in {told})") from fault
        kept = [path for path in (built.artifact.folder / KEPT,) if path.is_file()]  # what a trimmed model's ids mean
        for path in [*model_files(built.artifact.folder), *kept]:
            shutil.copy2(path, output / path.name)
    stages = [{"step": one.step.step, "seconds": round(one.seconds, 2), "notes": one.notes} for one in built.stages]
    lines = [f"wrote {output}: {recipe}", *(said for one in built.stages for said in _worth_saying(one))]
    return {"recipe": str(recipe), "output": str(output), "stages": stages, "text": "\n".join(lines)}


def _worth_saying(stage: Stage) -> Iterator[str]:
    """What a person should know of a step's work without looking for it."""
    if stage.notes.get("kept") == "input":
        yield (
            f"{stage.step.step}: training did no good (held-out KL {stage.notes['before']['kl']:.4f} before it, "
            f"{stage.notes['after']['kl']:.4f} after), so the model is what it was before this step"
        )
    if stage.step.step == "trim_vocab":
        yield f"trim_vocab: {stage.notes['gone']:,} of {stage.notes['gone'] + stage.notes['kept']:,} tokens are gone"


def read_recipe(text: str) -> Recipe:
    """From a file, or from JSON text itself. Raises `BadInput`."""
    try:
        path = Path(text)
        content = yaml.safe_load(path.read_text(encoding="utf-8") if not text.lstrip().startswith(("[", "{")) else text)
        if not isinstance(content, list):
            raise BadInput(f"a recipe is a list of steps; {text} holds {type(content).__name__}")
        return Recipe.of(content)
    except OSError as fault:
        raise BadInput(f"no recipe at {text}: {fault.strerror}") from fault
    except (yaml.YAMLError, ValueError) as fault:
        raise BadInput(f"recipe {text}: {' '.join(str(fault).split())}") from fault


def evaluate(model: str, baseline: str | None, space: str, engine: EngineName | None = None) -> dict[str, Any]:
    """Measure `model` by the benchmarks of `space`, all items, on `engine` or the space's own."""
    spec, folder = load_space(space), find_base(model)
    if engine is not None:
        spec = spec.model_copy(update={"engine": engine})
    base = find_base(baseline) if baseline is not None else folder
    check_questions(spec, base)
    if folder != base:
        check_template(folder, turns=1)
    with tempfile.TemporaryDirectory(prefix="squeeze-evaluate-") as scratch:
        job = Job(
            base=base, base_key=base_artifact(base).key, run=Path(scratch), store=Path(scratch) / "store", space=spec,
            device=find_device(), trials=1,
        )  # fmt: skip
        with Bench(job) as bench:
            try:
                measured, _, score = bench.measure(base_of(folder), job.last_rung)
            except (EngineFault, JudgeFault, ValueError) as fault:
                raise RunFailed(str(fault)) from fault
    told: dict[str, Any] = {
        "model": str(folder),
        "perf": measured.perf,
        "sec_per_token": score.sec_per_token,
        "benchmarks": {
            name: {
                "value": one.value,
                "n": len(one.grades),
                "tokens": one.tokens,
                "seconds": one.seconds,
                **one.details,
            }
            for name, one in measured.benchmarks.items()
        },
        "left_out": measured.left_out,
        "health": {name: one.model_dump() for name, one in measured.health.items()},
        "engine": measured.engine,
        "device": measured.device,
        "versions": measured.versions,
        "mhz": measured.mhz,
        "kernels": measured.kernels,
    }
    wide = max(14, *map(len, told["benchmarks"]))
    lines = [f"{name:{wide}} {one['value']:.4f}  ({one['n']} items)" for name, one in told["benchmarks"].items()]
    lines.append(f"{'perf':14} {measured.perf:.4f}   {1000 * score.sec_per_token:.3f} ms a token   {measured.engine}")
    lines += [f"{name:14} left out of perf, since {why}" for name, why in measured.left_out.items()]
    lines.append(f"{'answers':14} {sum(measured.health.values(), Health())}")
    if baseline is not None:
        told["score"] = score.model_dump()
        if score.fixed_norm is not None:
            lines.append(
                f"{'SpeedNorm':14} {score.speed_norm:+.4f}; {score.fixed_norm:+.4f} with answers as long as the base's "
                f"(it says {score.length_ratio:.2f} times as much)"
            )
        lines.append(f"{'score':14} {score.score:.4f} [{score.score_low:.4f}, {score.score_high:.4f}] against {base}")
    return told | {"text": "\n".join(lines)}
