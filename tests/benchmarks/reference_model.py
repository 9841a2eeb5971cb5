"""What compressing `tiny` costs and what distillation wins back: `python -m tests.benchmarks.reference_model`.

Builds each recipe with the project's own steps and measures it with vLLM on all items, on the device that is there.
Prints a row a recipe. `--distill 100000,1550000` names the token budgets, `--lr` the learning rate; about six minutes
on 2 cores with the default budgets.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.resources import find_device
from compressors.build import build
from compressors.data import read_conversations
from compressors.steps import parse_step
from compressors.store import Store
from evaluation.answers import AnswerStore
from evaluation.engine import Engine
from evaluation.measure import Measurer
from evaluation.protocol import EngineSettings
from evaluation.record import Subject
from evaluation.reference import CALIBRATION, ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec

NAMES = ("kmmlu_pro", "kmmlu_redux", "ko_longrag", "komt_bench")
DROP_2 = {"step": "drop_layers", "count": 2}


def main(
    distill: Annotated[str, typer.Option()] = "60000,120000",
    lr: Annotated[float, typer.Option()] = 3e-4,
    others: Annotated[bool, typer.Option(help="rows of the other steps too")] = True,
) -> None:
    budgets = [int(one) for one in distill.split(",") if one]
    recipes: dict[str, list[dict[str, Any]]] = {
        "base": [],
        **{f"{count} layers less": [{"step": "drop_layers", "count": count}] for count in (1, 2, 3)},
        **{scheme: [{"step": "quantize", "scheme": scheme}] for scheme in ("W8A8", "W4A16")},
        **{f"2 layers less, distilled {n // 1000}k": [DROP_2, {"step": "distill", "tokens": n, "lr": lr}]
           for n in budgets},
    }  # fmt: skip
    if not others:
        recipes = {name: steps for name, steps in recipes.items() if not steps or name.startswith("2 layers less")}
    device = find_device()
    suite = Suite(SuiteSpec(benchmarks={name: str(ITEMS / f"{name}.jsonl") for name in NAMES}), [1.0])
    data = read_conversations(CALIBRATION)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = Store(folder / "store")
        artifacts = {
            name: build([parse_step(s) for s in steps], MODEL, store, data, device=device).artifact
            for name, steps in recipes.items()
        }
        with Engine(EngineSettings(device=device, eager=True, max_model_len=2048), folder / "log") as engine:
            base = Subject(key=artifacts["base"].key, folder=MODEL)
            measurer = Measurer(engine, engine, base, suite, AnswerStore(folder / "answers"), passes=1)
            print(f"{engine.about['engine']} on {engine.about['device_name']}, lr {lr:g}")
            print(f"| | {' | '.join(NAMES)} | perf |\n| --- |{' --- |' * (len(NAMES) + 1)}")
            for name, artifact in artifacts.items():
                found = measurer.measure(Subject(key=artifact.key, folder=artifact.folder), 0)
                values = " | ".join(f"{found.benchmarks[one].value:.3f}" for one in NAMES)
                print(f"| {name} | {values} | {found.perf:.3f} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    typer.run(main)
