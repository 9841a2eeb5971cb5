"""A made-up table of a space: what the replay is tried on where nothing is recorded. Its figures mean nothing.

Every figure is a function of the recipe and the rung: what steps cost and win is written below, recovery wins back what
pruning lost as far as tokens go, lower rungs are noisier. Never kept as a file: a table on disk is a recorded one.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from search.forms import recipes_of
from search.recipe import Recipe
from search.space_file import load_space
from tests.benchmarks.recorded import SPACE
from tests.benchmarks.table import Row, Stage, Table

PRECISE = 0.004  # half of SpeedNorm's interval
NOISE = 0.01  # of a score on the first rung; it shrinks with the items' share


def synthetic(space: Path = SPACE) -> Table:
    """The space's recipes with figures that nobody measured."""
    spec = load_space(str(space))
    rows = [_row(recipe, number, rung.items, rung.tokens) for recipe in recipes_of(spec)
            for number, rung in enumerate(spec.rungs)]  # fmt: skip
    return Table.of(rows, {"space": space.read_text(encoding="utf-8"), "machine": "none: made up"})


def _row(recipe: Recipe, number: int, items: float, tokens: float) -> Row:
    perf, speed = _figures(recipe, tokens)
    score = 0.5 * perf + 0.5 * speed + _chance(recipe, number).gauss(0, NOISE) * (1 - items + 0.05)
    return Row(
        recipe=recipe.canonical,
        recipe_hash=recipe.hash,
        rung=number,
        status="ok",
        score=max(score, 0.0),
        perf_norm=perf,
        speed_norm=speed,
        speed_low=speed - PRECISE,
        speed_high=speed + PRECISE,
        size_bytes=round(13e6 * (1 - speed)),
        measuring_seconds=3 + 15 * items,
        stages=_stages(recipe.at(tokens)),
    )


def _figures(recipe: Recipe, tokens: float) -> tuple[float, float]:
    """PerfNorm and SpeedNorm."""
    lost, speed = 0.0, 0.0
    for step in recipe.steps:
        fields = step.model_dump()
        if step.step == "drop_layers":
            lost += {1: 0.05, 2: 0.15, 3: 0.40}[fields["count"]] * (0.85 if fields["by"] == "greedy_kl" else 1)
            speed += 0.08 * fields["count"]
        elif step.step == "prune_ffn":
            lost += {384: 0.04, 256: 0.15}[fields["width"]]
            speed += {384: 0.03, 256: 0.05}[fields["width"]]
        elif step.step == "distill":
            won = 0.75 * (1 - 2 ** (-tokens * fields["tokens"] / 8_000))
            lost *= 1 - won * (1.1 if fields["lr"] == 1e-3 else 0.9)
        elif step.step == "quantize":
            four = fields["scheme"] == "W4A16"
            lost += (0.03 if fields["method"] == "gptq" else 0.08) * (1 + lost) if four else 0.01
            speed += -0.04 if four else 0.07
    return max(1 - lost, 0.0), speed


def _stages(recipe: Recipe) -> tuple[Stage, ...]:
    found: list[Stage] = []
    for end, step in enumerate(recipe.steps, start=1):
        fields = step.model_dump()
        reached = int(getattr(step, step.continues)) if step.continues else None
        seconds = 2.0 + 18 * ("greedy_kl" in fields.values()) + 12 * ("gptq" in fields.values())
        found.append(
            Stage(
                step=step.step,
                key=Recipe(recipe.steps[:end]).hash,
                seconds=seconds if reached is None else 15 + reached / 1100,
                reached=reached,
                paid=reached,
            )
        )
    return tuple(found)


def _chance(recipe: Recipe, number: int) -> random.Random:
    return random.Random(int(hashlib.sha256(f"{recipe.canonical}{number}".encode()).hexdigest(), 16))
