"""What an evaluation takes beside a bare vLLM `generate`: `python -m tests.benchmarks.overhead MODEL SPACE`.

Both have the model loaded and warm. The evaluation renders, asks, grades and stores every item of the space's
benchmarks; the other process (`bare_generate.py`) knows nothing but token ids. They take turns, A B B A; printed are
the wall seconds of each and their ratio.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.answers import AnswerStore
from evaluation.asking import Subject
from evaluation.engine import Engine
from evaluation.measure import Measurer
from evaluation.protocol import EngineSettings
from evaluation.suite import Suite
from search.bases import find_base
from search.bench import engine_settings
from search.space_file import load_space

BARE = Path(__file__).with_name("bare_generate.py")


class Told(Engine):
    """An engine that remembers what it was asked: the bare process is asked the same."""

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        super().__init__(settings, log)
        self.batches: list[dict[str, Any]] = []

    def _ask(self, op: str, timeout: float, **request: Any) -> dict[str, Any]:
        if op == "generate":
            self.batches.append({key: request[key] for key in ("conversations", "sampling")})
        return super()._ask(op, timeout, **request)


def main(
    model: str,
    space: str,
    rounds: Annotated[int, typer.Option(help="turns of each")] = 4,
) -> None:
    spec, folder = load_space(space), find_base(model)
    settings = engine_settings(max_model_len=spec.max_model_len)
    suite = Suite(spec.evaluation.model_copy(update={"heldout": None}), [1.0])
    subject = Subject(key="model", folder=folder)
    with tempfile.TemporaryDirectory() as name, Told(settings, Path(name) / "log") as engine:
        scratch = Path(name)

        def evaluation(number: int) -> float:
            begin = time.perf_counter()
            measurer = Measurer(engine, engine, subject, suite, AnswerStore(scratch / f"answers-{number}"), passes=1)
            measurer.measure(subject, 0)
            return time.perf_counter() - begin

        evaluation(-1)  # loads and warms up, and tells what is asked
        asked = engine.batches[1:]  # the first is the warm-up
        (scratch / "asked.json").write_text(
            json.dumps({"model": str(folder), "settings": engine._llm_settings(folder), "batches": asked})
        )
        with (scratch / "bare.log").open("w") as log, subprocess.Popen(
            [settings.python, str(BARE), str(scratch / "asked.json")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, env=engine._environment(),
        ) as bare:  # fmt: skip
            assert bare.stdin is not None
            assert bare.stdout is not None

            def alone() -> float:
                bare.stdin.write("go\n")
                bare.stdin.flush()
                return float(json.loads(bare.stdout.readline())["seconds"])

            alone()
            pairs = []
            for number in range(rounds):
                if number % 2:
                    own, other = evaluation(number), alone()
                else:
                    other, own = alone(), evaluation(number)
                pairs.append((own, other))
                print(f"evaluation {own:.3f} s, bare generate {other:.3f} s: {own / other:.3f}", flush=True)
            bare.stdin.close()
        items = sum(len(part.items) for part in suite.up_to(0))
        print(f"{items} items on {engine.about['device_name']}, {engine.about['engine']}: median ratio "
              f"{statistics.median(own / other for own, other in pairs):.3f}")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
