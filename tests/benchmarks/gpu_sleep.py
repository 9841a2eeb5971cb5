"""Two engines on one GPU, or `--gpus 2`, in turns: `python -m tests.benchmarks.gpu_sleep FOLDER`.

FOLDER holds a config and tokenizer. Prints each GPU's memory in use after each move: loading, falling asleep, waking,
unloading, and whether a woken engine answers as it did before.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.protocol import EngineSettings
from tests.benchmarks.exaone_shape import CHAT, random_model


def main(folder: Path, gpus: Annotated[int, typer.Option(help="that share a model")] = 1) -> None:
    begin = time.monotonic()

    def say(what: str) -> None:
        asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"]
        used = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        used = ", ".join(used.split("\n")[:gpus])
        print(f"{time.monotonic() - begin:6.1f} s  {used:>12}  {what}", flush=True)

    def answers(engine: Engine) -> list[str]:
        return [one.text for one in engine.generate([CHAT] * 8, [Decoding(max_tokens=32)] * 8).answers]

    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        settings = EngineSettings(device="cuda", sleeps=True, max_model_len=16384, tensor_parallel_size=gpus)
        random_model(folder, model)
        say("model written")
        with Engine(settings, Path(scratch) / "a.log") as one, Engine(settings, Path(scratch) / "b.log") as other:
            one.load(model)
            say("first loaded")
            said = answers(one)
            one.sleep()
            say("first asleep")
            other.load(model)
            say("second loaded")
            for _ in range(2):
                other.sleep()
                say("second asleep")
                one.wake()
                say(f"first awake, answers as before: {answers(one) == said}")
                one.sleep()
                other.wake()
                say("second awake")
            other.unload()
            say("second unloaded")
            other.load(model)
            say("second loaded again in its process")
        say("both closed")


if __name__ == "__main__":
    typer.run(main)
