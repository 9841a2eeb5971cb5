"""What a search would cost, before it begins: how many trials come to each rung, and seconds a rung on the target.

Seconds are those of the roofline over the contest's workload and of training's arithmetic, none of them measured.
Left out: loading models, graphs and compilation, steps that do not train, and whatever waits for something else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import mean, median

from pydantic import BaseModel, ConfigDict, Field

from evaluation.description import Description
from evaluation.devices import Device
from evaluation.roofline import prefill_seconds, seconds
from evaluation.workload import CONTEST
from search.asha import Asha
from search.recipe import Recipe
from search.space import Space

DRAWN = 30  # searches
SIMULATED = 300  # trials of each at most: shares of more are as these, and take their square in time
FLOPS = {"distill": 8, "finetune": 6}  # a weight and token: forward and backward, and the teacher's forward


class RungCost(BaseModel):
    """One rung of a search that is yet to begin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: float
    tokens: float
    by: str = "answers"
    trials: float = Field(description="trials expected to come to it")
    seconds: float | None = Field(None, description="of one trial at it; None where no target is named")


class Cost(BaseModel):
    """The whole budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rungs: tuple[RungCost, ...]
    again: int = Field(description="finalists measured once more in full")
    hours: float | None = Field(None, description="of one GPU; None where no target is named, or several share a model")


def expected_trials(trials: int, eta: float, rungs: int) -> list[float]:
    """How many of `trials` come to each rung by the stopping scheduler, where scores come in no order.

    The n-th of equals to be judged is among the best ceil(n / eta) of n with that chance. What goes on to a later rung
    comes there in no order either.
    """
    expected = [float(trials)]
    while len(expected) < rungs:
        whole, part = int(expected[-1]), expected[-1] % 1
        going = sum(_chance(number, eta) for number in range(1, whole + 1))
        expected.append(going + part * _chance(whole + 1, eta))
    return expected


def expected_promotions(trials: int, eta: float, rungs: int) -> list[float]:
    """As `expected_trials`, by the promoting scheduler on one worker: the mean of searches whose scores are drawn."""
    if trials > SIMULATED:
        return [number * trials / SIMULATED for number in expected_promotions(SIMULATED, eta, rungs)]
    draw, counts = random.Random(0), [0] * rungs
    for _ in range(DRAWN):
        rule, waiting, begun = Asha(eta, rungs - 1), set[str](), 0
        while (name := rule.promotable(waiting)) is not None or begun < trials or not rule.seen.get(rungs - 1):
            if name is None and begun < trials:
                name, begun = str(begun), begun + 1
            name = name or rule.leader(waiting)
            assert name is not None  # of those begun some wait, until one has come to the end
            rung = rule.rung_of(name) + 1 if name in waiting else 0
            counts[rung] += 1
            rule.see(name, rung, draw.random())
            waiting.add(name)
            if rung == rungs - 1:
                waiting.remove(name)
    return [count / DRAWN for count in counts]


def cost_of(
    space: Space, trials: int, recipes: Sequence[Recipe], models: Sequence[Description], base: Description | None,
    device: Device | None,
) -> Cost:  # fmt: skip
    """Of `trials` trials of recipes such as `recipes`, which make `models` of `base`."""
    coming = expected_promotions if space.scheduler == "promoting" else expected_trials
    expected = coming(trials, space.eta, len(space.rungs))
    asking = training = reading = 0.0
    if device is not None and base is not None and models:
        asking = space.passes * (
            median(seconds(one, CONTEST, device) for one in set(models)) + seconds(base, CONTEST, device)
        )
        reading = median(sum(prefill_seconds(one, part, device) for part in CONTEST) for one in set(models))
        rate = device.rate("bf16")
        training = mean(map(training_operations, recipes)) * base.parameters / rate
    rungs = []
    items = tokens = 0.0
    for rung, number in zip(space.rungs, expected, strict=True):
        took = training * (rung.tokens - tokens)
        if rung.by == "answers":
            took += asking * (rung.items - items)
            items = rung.items
        else:  # prompts are read and nothing is generated; of the base that is paid for once a run
            took += reading * rung.items
        tokens = rung.tokens
        rungs.append(RungCost(**rung.model_dump(), trials=number, seconds=took if asking else None))
    again = min(space.finalists, math.ceil(expected[-1]))
    hours = (sum(one.trials * (one.seconds or 0) for one in rungs) + again * asking) / 3600
    return Cost(rungs=tuple(rungs), again=again, hours=hours if asking else None)


def training_operations(recipe: Recipe) -> float:
    """Operations a weight that the training steps of a recipe take."""
    return float(sum(FLOPS.get(step.step, 0) * getattr(step, "tokens", 0) for step in recipe.steps))


def _chance(number: int, eta: float) -> float:
    return math.ceil(number / eta) / number
