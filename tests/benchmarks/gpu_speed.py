"""How fast variants are beside the base at EXAONE-4.0-1.2B's shape: `python -m tests.benchmarks.gpu_speed FOLDER ROWS`.

FOLDER holds the model's own config and tokenizer, ROWS conversations; weights are random, for time does not depend on
them. Each variant and the base take turns (B A A B) through the engine that squeeze measures with, each answer exactly
as long as its workload says, and the base sleeps while the variant works. Prints a JSON line a variant and workload:
seconds of every pass, clocks, tokens; `--only` takes variants by number, so that a long table is made in parts.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from compressors.build import build
from compressors.data import read_conversations
from compressors.store import Store
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.protocol import EngineFault, EngineSettings
from evaluation.workload import Requests
from search.recipe import Recipe
from tests.benchmarks.exaone_shape import random_model

WORKLOADS = (
    Requests(name="long", prompts=32, prompt_tokens=8000, output_tokens=32),
    Requests(name="choice", prompts=512, prompt_tokens=400, output_tokens=8),
    Requests(name="chat", prompts=80, prompt_tokens=180, output_tokens=300),
)
VARIANTS = (
    '[{"step":"quantize","scheme":"W8A8"}]',
    '[{"step":"quantize","scheme":"FP8_DYNAMIC"}]',
    '[{"step":"quantize","scheme":"W4A16"}]',
    '[{"step":"quantize","scheme":"W8A8","head":"int8"}]',
    '[{"step":"drop_layers","count":3,"by":"last"}]',
    '[{"step":"drop_layers","count":3,"by":"last"},{"step":"quantize","scheme":"W8A8"}]',
    '[{"step":"drop_layers","count":6,"by":"last"},{"step":"quantize","scheme":"W8A8"}]',
    '[{"step":"quantize","scheme":"W8A8","kv_cache":"fp8"}]',
    '[{"step":"prune_ffn","width":3072}]',
    '[{"step":"prune_ffn","width":3072},{"step":"quantize","scheme":"W8A8"}]',
    '[{"step":"prune_heads","kv_heads":6}]',
    '[{"step":"prune_hidden","hidden":1536}]',
    '[{"step":"quantize","scheme":"W8A16"}]',
)
Chat = list[dict[str, str]]


def chats_of(folder: Path, rows: Path, requests: Requests) -> list[Chat]:
    """Prompts of about `prompt_tokens` tokens, each other words: running text of the rows, cut."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "\n".join(turn["content"] for row in json.loads(rows.read_text()) for turn in row["conversations"])
    ids = tokenizer.encode(text, add_special_tokens=False)
    length = requests.prompt_tokens - 20  # the template's part
    starts = itertools.count(0, 997)  # a prime: no two prompts begin alike
    return [
        [{"role": "user", "content": tokenizer.decode((ids[at % (len(ids) - length) :])[:length])}]
        for at in itertools.islice(starts, requests.prompts)
    ]


def timed(engine: Engine, chats: dict[str, list[Chat]]) -> dict[str, dict[str, float | int | None]]:
    """One pass over each workload."""
    told: dict[str, dict[str, float | int | None]] = {}
    for requests in WORKLOADS:
        decoding = Decoding(max_tokens=requests.output_tokens).as_long(requests.output_tokens)
        done = engine.generate(chats[requests.name], [decoding] * requests.prompts)
        told[requests.name] = {
            "seconds": done.seconds,
            "mhz": done.mhz,
            "prompt_tokens": sum(one.prompt_tokens for one in done.answers),
            "tokens": sum(one.tokens for one in done.answers),
        }
    return told


def beside(engine: Engine, base: Engine, rounds: int, chats: dict[str, list[Chat]]) -> list[dict[str, object]]:
    """Rows of base and variant, by workload, the seconds of all passes; B A A B."""
    passes: dict[str, list[dict[str, dict[str, float | int | None]]]] = {"base": [], "own": []}
    for number in range(rounds):
        order = [("base", base, engine), ("own", engine, base)]
        for name, works, rests in order if number % 2 == 0 else reversed(order):
            rests.sleep()
            works.wake()
            works.generate(chats["chat"][:4], [Decoding(max_tokens=8)] * 4)  # as squeeze does before it times
            passes[name].append(timed(works, chats))
    rows: list[dict[str, object]] = []
    for requests in WORKLOADS:
        row: dict[str, object] = {"workload": requests.name}
        for name, all_told in passes.items():
            told = [one[requests.name] for one in all_told]
            row |= {name: [round(float(one["seconds"] or 0), 4) for one in told], f"{name}_mhz": told[-1]["mhz"]}
            row |= {"tokens": told[0]["tokens"], "prompt_tokens": told[0]["prompt_tokens"]}
        rows.append(row)
    return rows


def main(
    folder: Path,
    rows: Path,
    only: Annotated[str, typer.Option(help="numbers of variants, from 0, such as 0,3,5")] = "",
    rounds: Annotated[int, typer.Option(help="turns of each")] = 2,
    seconds: Annotated[float, typer.Option(help="no variant is begun after these")] = 3600.0,
    repeats: Annotated[int, typer.Option(help="passes of the base alone, in a row, before the variants")] = 0,
    logs: Annotated[Path | None, typer.Option(help="where the engines' logs are kept")] = None,
) -> None:
    begin = time.monotonic()
    chosen = [int(number) for number in only.split(",")] if only else list(range(len(VARIANTS)))
    chats = {requests.name: chats_of(folder, rows, requests) for requests in WORKLOADS}
    data = read_conversations(rows, limit=16)
    settings = EngineSettings(device="cuda", sleeps=True, max_model_len=16384)
    with tempfile.TemporaryDirectory() as scratch:
        base_folder, store = Path(scratch) / "base", Store(Path(scratch) / "store")
        random_model(folder, base_folder)
        folders = {VARIANTS[one]: build(Recipe.of(json.loads(VARIANTS[one])).steps, base_folder, store, data,
                                        device="cuda", furthest=0).artifact.folder for one in chosen}  # fmt: skip
        print(f"# built after {time.monotonic() - begin:.0f} s", flush=True)
        kept = logs if logs is not None else Path(scratch)
        with Engine(settings, kept / "base.log") as base, Engine(settings, kept / "engine.log") as engine:
            engine.launch()
            at = time.monotonic()
            base.load(base_folder)
            print(f"# base loaded in {time.monotonic() - at:.0f} s", flush=True)
            for _ in range(1 + repeats):  # the first warms up
                told = timed(base, chats)
                print(
                    "# base",
                    {name: (round(one["seconds"] or 0, 4), one["mhz"]) for name, one in told.items()},
                    flush=True,
                )
            for name, model in folders.items():
                if time.monotonic() - begin > seconds:
                    print(json.dumps({"variant": name, "fault": f"not begun: {seconds:.0f} s are over"}), flush=True)
                    continue
                try:
                    base.sleep()
                    engine.start()
                    at = time.monotonic()
                    engine.load(model)
                    load = time.monotonic() - at
                    timed(engine, chats)
                    for row in beside(engine, base, rounds, chats):
                        print(json.dumps({"variant": name, "load": round(load, 1), **row}), flush=True)
                except EngineFault as fault:
                    print(json.dumps({"variant": name, "fault": str(fault)[:300]}), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    typer.run(main)
