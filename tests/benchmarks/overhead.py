"""What an evaluation takes beside a bare vLLM `generate`: `python -m tests.benchmarks.overhead MODEL SPACE`.

Both have the model loaded and warm. The evaluation renders, asks, grades and stores every item of the space's
benchmarks; the other process (`bare_generate.py`) knows nothing but token ids. They take turns, A B B A; printed are
the wall seconds of each and their ratio.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.answers import AnswerStore
from evaluation.engine import Engine
from evaluation.measure import Measurer
from evaluation.protocol import EngineSettings
from evaluation.record import Subject
from evaluation.suite import Suite
from search.bases import find_base
from search.serving import engine_settings
from search.space_file import load_space

BARE = Path(__file__).with_name("bare_generate.py")


class Told(Engine):
    """An engine that remembers what it was asked: the bare process is asked the same."""

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        super().__init__(settings, log)
        self.batches: list[dict[str, Any]] = []

    def _ask(self, op: str, timeout: float, **request: Any) -> dict[str, Any]:
        if op == "generate":
            asked = {key: request[key] for key in ("conversations", "sampling")}
            self.batches.append(json.loads(json.dumps(asked)))  # as it is now: the caller goes on with its chats
        return super()._ask(op, timeout, **request)


@contextlib.contextmanager
def bare(settings: EngineSettings, engine: Engine, scratch: Path) -> Iterator[Callable[[], float]]:
    """vLLM alone with the model loaded and warm: a call is one pass, in seconds."""
    with (scratch / "bare.log").open("w") as log, subprocess.Popen(
        [settings.python, str(BARE), str(scratch / "asked.json")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=log, text=True, env=engine._environment(),
    ) as process:  # fmt: skip

        def alone() -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the bare process ended: {(scratch / 'bare.log').read_text()[-600:]}")
            return float(json.loads(line)["seconds"])

        alone()
        yield alone
        process.stdin.close()


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
        asked = [batch for batch in engine.batches[1:] if len(batch["conversations"])]  # the first is the warm-up
        (scratch / "asked.json").write_text(
            json.dumps({"model": str(folder), "settings": engine._llm_settings(folder), "batches": asked})
        )
        if settings.device == "cuda":  # one GPU has no room for both at once
            own = [evaluation(number) for number in range(rounds)]
            engine.close()
            with bare(settings, engine, scratch) as alone:
                pairs = list(zip(own, [alone() for _ in range(rounds)], strict=True))
        else:
            with bare(settings, engine, scratch) as alone:
                pairs = []
                for number in range(rounds):
                    turns = [lambda number=number: evaluation(number), alone]
                    first, second = [one() for one in (turns if number % 2 else reversed(turns))]
                    pairs.append((first, second) if number % 2 else (second, first))
        for own_seconds, bare_seconds in pairs:
            print(f"evaluation {own_seconds:.3f} s, bare {bare_seconds:.3f} s: {own_seconds / bare_seconds:.3f}")
        items = sum(len(part.items) for part in suite.up_to(0))
        print(f"{items} items on {engine.about['device_name']}, {engine.about['engine']}: median ratio "
              f"{statistics.median(own / other for own, other in pairs):.3f}")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
