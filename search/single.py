"""Commands that handle one recipe or one model without a search: compress, evaluate."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.resources import find_device
from compressors.build import Stage, build
from compressors.data import read_conversations
from compressors.files import model_files
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, Infeasible, StepFault
from compressors.store import Store
from compressors.tokens import KEPT
from search.bases import find_base
from search.errors import BadInput, RunFailed
from search.recipe import Recipe
from search.serving import traits
from search.space_file import REFERENCE, resolve_path
from search.start import check_base, check_weights


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
