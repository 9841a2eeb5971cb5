"""What each step costs at EXAONE-4.0-1.2B's shape: `python -m tests.benchmarks.exaone_shape FOLDER ROWS`.

FOLDER holds the model's own config and tokenizer, ROWS conversations; weights are random, for time, memory and
formats do not depend on them. Every lane of the presets is built with at most `--tokens` tokens of training, on a GPU
capped to `--cap` GiB so that an L4 is enough; with `--serve`, vLLM loads each result and answers. A row a stage.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from cluster.resources import find_device
from compressors import checkpoint
from compressors.build import build
from compressors.data import read_conversations
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, Infeasible
from compressors.store import Store
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.protocol import EngineFault, EngineSettings
from search.recipe import Recipe
from search.serving import traits
from search.space_file import load_space

PRESETS = "reproduce,lanes,factorial,outlook"
CHAT = [{"role": "user", "content": "대한민국의 수도는 어디인가요?"}]


def random_model(source: Path, target: Path) -> None:
    """A model of `source`'s config with random weights, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(source)
    with torch.device(find_device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    target.mkdir()
    for path in source.iterdir():
        if path.is_file():
            shutil.copy2(path, target / path.name)
    checkpoint.save(model.cpu(), AutoTokenizer.from_pretrained(source), target, files_from=source)
    del model
    gc.collect()
    torch.cuda.empty_cache()


def recipes(presets: str, more: list[str], tokens: int) -> dict[str, Recipe]:
    """Every lane, and `more` recipes as JSON, once, by its text, with its training cut to `tokens`."""
    lanes = [lane for name in presets.split(",") if name for lane in load_space(name).seed_recipes()]
    found: dict[str, Recipe] = {}
    for recipe in [*lanes, *(Recipe.of(json.loads(text)) for text in more)]:
        most = max((getattr(step, "tokens", 0) for step in recipe.steps), default=0)
        found[str(recipe)] = recipe.at(min(1.0, tokens / most)) if most else recipe
    return found


def main(
    folder: Path,
    rows: Path,
    presets: Annotated[str, typer.Option()] = PRESETS,
    recipe: Annotated[list[str], typer.Option(help="one more, as JSON")] = [],  # noqa: B006 - typer's way
    skip: Annotated[str, typer.Option(help="no recipe whose text holds this")] = "none",
    tokens: Annotated[int, typer.Option()] = 8192,
    cap: Annotated[float, typer.Option(help="GiB of GPU memory")] = 22.4,
    serve: Annotated[bool, typer.Option()] = False,
    seconds: Annotated[float, typer.Option(help="no recipe is begun after these")] = 3600.0,
) -> None:
    device, begin = find_device(), time.monotonic()
    data = read_conversations(rows)
    with tempfile.TemporaryDirectory() as scratch:
        base, store = Path(scratch) / "base", Store(Path(scratch) / "store")
        random_model(folder, base)
        if device == "cuda":
            import torch

            total = torch.cuda.get_device_properties(0).total_memory / 2**30
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total))
        print("| recipe | stage | seconds | peak GiB | MB | left GiB | served |\n" + "| --- " * 7 + "|")
        with Engine(EngineSettings(device=device, eager=True, max_model_len=2048), Path(scratch) / "log") as engine:
            for name, one in recipes(presets, recipe, tokens).items():
                if skip in name:
                    continue
                if time.monotonic() - begin > seconds:
                    print(f"| {name} | not begun: {seconds:.0f} s are over | | | | | |")
                    continue
                _row(name, one, base, store, data, device, engine if serve else None)


def _row(
    name: str, recipe: Recipe, base: Path, store: Store, data: Conversations, device: str, engine: Engine | None
) -> None:
    import torch

    try:
        check_recipe(recipe.steps, read_shape(base), traits(device))
        built = build(recipe.steps, base, store, data, device=device, before_work=engine.unload if engine else _idle,
                      furthest=0)  # fmt: skip
    except Infeasible as refusal:
        print(f"| {name} | infeasible: {refusal} | | | | | |", flush=True)
        return
    except Exception as fault:  # a benchmark tells what failed and goes on with the rest
        print(f"| {name} | {type(fault).__name__}: {' '.join(str(fault).split())[:160]} | | | | | |", flush=True)
        return
    size = sum(path.stat().st_size for path in built.artifact.folder.glob("*.safetensors")) / 1e6
    left = torch.cuda.memory_allocated() / 2**30 if device == "cuda" else 0.0  # nothing of a step may stay
    told = _serve(built.artifact.folder, engine) if engine is not None else ""
    end = f"{size:.0f} | {left:.1f} | {told}"
    for stage in built.stages:
        last = stage is built.stages[-1]
        cost = "from the store | " if stage.cached else f"{stage.seconds:.1f} | {stage.peak_gpu_bytes / 2**30:.1f}"
        print(f"| {name} | {stage.step.step} | {cost} | {end if last else '| | '} |", flush=True)


def _serve(folder: Path, engine: Engine) -> str:
    """Kernels of the model in vLLM, once it has loaded and answered."""
    try:
        engine.load(folder)
        tokens = engine.generate([CHAT], [Decoding(max_tokens=8)]).answers[0].tokens
    except EngineFault as fault:
        return f"FAILED: {str(fault)[:160]}"
    return f"{tokens} tokens, {', '.join(name for name in engine.kernels if 'mbedding' not in name)}"


def _idle() -> None:
    """No engine holds the device."""


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    typer.run(main)
