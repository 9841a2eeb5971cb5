"""What lm-eval's tasks tell of a served model, by item; and whether both ends hold the same lm-eval.

Knows nothing of stores, passes or scores.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from evaluation.benchmarks.base import Item
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.engine import Engine
from evaluation.health import Health, ModelFault, health_of
from evaluation.measurement import Timing

NONE = "none"  # the version where there is none
TELL = (
    "from importlib.metadata import PackageNotFoundError, version\n"
    f"try: print(version('lm_eval'))\nexcept PackageNotFoundError: print('{NONE}')"
)


class Harnessing(NamedTuple):
    """Grades and generated tokens by the items' ids, and how the batch went."""

    grades: dict[str, float]
    tokens: dict[str, int]
    timing: Timing
    health: Health


def harnessed(engine: Engine, task: HarnessTask, items: Sequence[Item], thinking: bool) -> Harnessing:
    """Ask `items`, one or more, of the loaded model, lm-eval itself counts and grades. Raises `EngineFault`."""
    found = engine.harness(task.parts(items), thinking)
    if not all(math.isfinite(value) for values in found.values for value in values):
        raise ModelFault(f"lm-eval finds values that are not numbers for {task.name}")
    grades, counts = task.in_order(items, found.values), task.in_order(items, found.tokens)
    seconds = found.cpu_seconds if engine.settings.clock == "cpu" else found.seconds
    return Harnessing(
        grades={item.id: grade for item, grade in zip(items, grades, strict=True)},
        tokens={item.id: count for item, count in zip(items, counts, strict=True)},
        timing=Timing(seconds=seconds, tokens=sum(counts), mhz=found.mhz),
        health=health_of(answer for part in found.answers for said in part for answer in said),
    )


def differs(theirs: str, python: str) -> str:
    """Why the lm-eval of an engine's environment may not ask what ours read; nothing where it may.

    Another version words prompts, shows examples and grades in its own way.
    """
    ours = version("lm_eval")
    if theirs == ours:
        return ""
    holds = "no lm-eval" if theirs == NONE else f"lm-eval {theirs}"
    return (
        f"the engine's environment ({python}) holds {holds}, and lm-eval {ours} reads the documents here: install "
        f"lm-eval=={ours} there"
    )


def version_in(python: str) -> str:
    """lm-eval's version in the environment of an interpreter; `none` where there is none."""
    if python == sys.executable:
        return version("lm_eval")
    try:
        done = subprocess.run([python, "-c", TELL], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return NONE
    return done.stdout.strip()
