"""How fast variants are beside the base at EXAONE-4.0-1.2B's shape: `python -m tests.benchmarks.gpu_speed FOLDER ROWS`.

FOLDER holds the model's own config and tokenizer, ROWS conversations; weights are random, for time does not depend on
them. Each variant and the base take turns (B A A B) through the engine that squeeze measures with, each answer exactly
as long as its workload says, and the base sleeps while the variant works. Prints a JSON line a variant and workload:
seconds of every pass, clocks, tokens; `--only` takes variants by number, so that a long table is made in parts.
Loading takes a minute and more, mostly of one core, so `--at-once` engines load together, each with the same KV cache.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

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
KV_CACHE_GIB = 16  # all 32 long prompts at once
Chat = list[dict[str, str]]


class Pinned(Engine):
    """An engine whose KV cache is of one size, whatever others hold of the GPU as it loads."""

    def _llm_settings(self, folder: Path) -> dict[str, Any]:
        return super()._llm_settings(folder) | {"kv_cache_memory_bytes": KV_CACHE_GIB * 2**30}


def chats_of(folder: Path, rows: Path, requests: Requests) -> list[Chat]:
    """Prompts of about `prompt_tokens` tokens, each other words: running text of the rows, cut."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "\n".join(turn["content"] for row in json.loads(rows.read_text()) for turn in row["conversations"])
    ids = tokenizer.encode(text, add_special_tokens=False)
    length = requests.prompt_tokens - 20  # the template's part
    starts = itertools.count(0, 997)  # a prime: no two prompts begin alike
    return [
        [{"role": "user", "content": str(tokenizer.decode((ids[at % (len(ids) - length) :])[:length]))}]
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
    at_once: Annotated[int, typer.Option(help="engines that load at the same time; their caches must fit")] = 3,
    logs: Annotated[Path | None, typer.Option(help="where the engines' logs are kept")] = None,
) -> None:
    begin = time.monotonic()
    chosen = [int(number) for number in only.split(",")] if only else list(range(len(VARIANTS)))
    chats = {requests.name: chats_of(folder, rows, requests) for requests in WORKLOADS}
    data = read_conversations(rows, limit=16)
    settings = EngineSettings(device="cuda", sleeps=True, max_model_len=16384, gpu_memory_utilization=0.25)
    with tempfile.TemporaryDirectory() as scratch:
        base_folder, store = Path(scratch) / "base", Store(Path(scratch) / "store")
        random_model(folder, base_folder)
        folders = {VARIANTS[one]: build(Recipe.of(json.loads(VARIANTS[one])).steps, base_folder, store, data,
                                        device="cuda", furthest=0).artifact.folder for one in chosen}  # fmt: skip
        print(f"# built after {time.monotonic() - begin:.0f} s", flush=True)
        kept = logs if logs is not None else Path(scratch)
        waiting = list(folders.items())
        with Pinned(settings, kept / "base.log") as base:
            while waiting and time.monotonic() - begin < seconds:
                room = at_once if base.loaded else at_once - 1
                group, waiting = waiting[:room], waiting[room:]
                with ExitStack() as stack:
                    engines = [
                        stack.enter_context(Pinned(settings, kept / f"engine-{len(waiting) + number}.log"))
                        for number in range(len(group))
                    ]
                    wanted = [(engine, folder) for engine, (_, folder) in zip(engines, group, strict=True)]
                    loaded(([] if base.loaded else [(base, base_folder)]) + wanted)
                    print(f"# {len(group)} loaded after {time.monotonic() - begin:.0f} s", flush=True)
                    for engine, (name, _) in zip(engines, group, strict=True):
                        compare(name, engine, base, rounds, chats)
            for name, _ in waiting:
                print(json.dumps({"variant": name, "fault": f"not begun: {seconds:.0f} s are over"}), flush=True)


def loaded(wanted: list[tuple[Engine, Path]]) -> None:
    """Load all together, and leave all asleep; one that cannot is left as it is, and its first pass says why."""

    def load(one: tuple[Engine, Path]) -> None:
        engine, folder = one
        engine.load(folder)

    with ThreadPoolExecutor(len(wanted)) as pool:
        for (_, folder), future in [(one, pool.submit(load, one)) for one in wanted]:
            try:
                future.result()
            except EngineFault as fault:
                print(json.dumps({"folder": folder.name, "fault": str(fault)[:300]}), flush=True)
    for engine, _ in wanted:
        engine.sleep()


def compare(name: str, engine: Engine, base: Engine, rounds: int, chats: dict[str, list[Chat]]) -> None:
    """Print the rows of one variant, each engine warmed up first; one that cannot be timed says why."""
    try:
        for warmed, rests in ((base, engine), (engine, base)):
            rests.sleep()
            warmed.wake()
            timed(warmed, chats)
        for row in beside(engine, base, rounds, chats):
            print(json.dumps({"variant": name, **row}), flush=True)
    except EngineFault as fault:
        print(json.dumps({"variant": name, "fault": str(fault)[:300]}), flush=True)
    finally:
        engine.sleep()


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    typer.run(main)
