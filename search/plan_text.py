"""A plan in words, for people. All of it, and more, is in the plan's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from search.space import Space
from search.target import in_words

MOST = 5  # predictions and reasons that are shown


def lines_of(spec: Space, told: dict[str, Any]) -> Iterator[str]:
    """What `search.plan.plan` found."""
    yield _count(told)
    yield from _here(told)
    yield from _rungs(spec, told)
    if (left := len(told["seeds"]) - told["trials"]) > 0:
        yield f"of the seeds the last {left} are not begun: {told['trials']} trials are fewer"
    for seed in told["seeds"][: told["trials"]]:
        why = told["infeasible"].get(seed)
        yield f"tried first: {seed}" + (f" (infeasible, and a trial all the same: {why})" if why is not None else "")
    for one in told["reasons"][:MOST]:
        yield f"infeasible, {one['recipes']}: {one['reason']} (such as {one['example']})"
    if len(told["reasons"]) > MOST:
        yield f"infeasible for {len(told['reasons']) - MOST} more reasons: --json tells them"
    yield from _predictions(spec, told["predicted"], told["base_known"])
    yield from _sizes(told["size_bytes"])
    yield from _store(told)
    yield from (f"left out of perf: {name}, since {why}" for name, why in told["left_out"].items())
    for why in told["unread"]:
        yield f"not read, so neither counted nor checked for length, and refused by a search: {why}"


def _count(told: dict[str, Any]) -> str:
    number, feasible = told["recipes"], len(told["feasible"])
    count = f"{number:,} recipe{'s' * (number != 1)}"
    if told["at_least"]:
        count = f"at least {count} (at the ends of its ranges, more between)"
    if told["sampled"]:
        count += f", too many to go through: {told['looked_at']:,} drawn by chance stand for them"
    return f"{count}; {feasible:,} feasible on {told['engine']}; {told['trials']} trials"


def _here(told: dict[str, Any]) -> Iterator[str]:
    if (found := told["here"]) is None:
        return
    if found["engine"] is None:
        yield f"planned for the target; this machine cannot search it: {found['why']}"
    else:
        yield f"planned for the target; here, on {found['engine']}, {found['feasible']:,} of them are feasible"


def _rungs(spec: Space, told: dict[str, Any]) -> Iterator[str]:
    for number, rung in enumerate(told["cost"]["rungs"], start=1):
        on = f"the best 1/{spec.eta:g} go on" if number < len(spec.rungs) else "everything"
        took = f", about {_time(rung['seconds'])} each" if rung["seconds"] is not None else ""
        yield (
            f"rung {number}: {rung['items']:.0%} of the items{' by likelihood' * (rung['by'] == 'likelihood')}, "
            f"{rung['tokens']:.0%} of the training tokens; {on}; "
            f"about {rung['trials']:.0f} trial{'s' * (round(rung['trials']) != 1)}{took}"
        )
    cost = told["cost"]
    if cost["hours"] is None:
        yield f"no hours told: {_no_roofline(spec, told['base_known'])}, by whose roofline they could be estimated"
    else:
        hours = f"{cost['hours']:.1f}" if cost["hours"] >= 1 else f"{cost['hours']:.2g}"
        yield (
            f"estimated, not measured: {hours} hours of one {spec.target} for asking the contest's "
            f"workload {spec.passes} times beside the base, training, and {cost['again']} finalists once more; "
            "loading models and other steps come on top"
        )
        if spec.price is not None:
            yield f"at {spec.price:g} an hour: {cost['hours'] * spec.price:.2f}"
    yield from _budgets(spec, told["trials"])


def _budgets(spec: Space, trials: int) -> Iterator[str]:
    """What ends a search besides the number of its trials."""
    if spec.hours is not None:
        yield f"after {spec.hours:g} hours trials are cut short; finalists once more and verification come on top"
    if spec.device_hours is not None:
        yield f"no trial is begun after {spec.device_hours:g} device hours; finalists once more come on top"
    if spec.patience is not None:
        gain = f" of more than {spec.patience.gain:g}" if spec.patience.gain else ""
        yield f"no trial is begun after {spec.patience.trials} in a row that brought no gain{gain}"
        if spec.patience.trials >= trials:
            yield f"that is never, with {trials} trials in all: give patience fewer"


def _predictions(spec: Space, predicted: dict[str, dict[str, Any]], base_known: bool) -> Iterator[str]:
    """Best and median SpeedNorm, and lines of the best by it and by what the contest's server would say."""
    speeds = sorted(one["speed_norm"] for one in predicted.values() if "speed_norm" in one)
    if speeds:
        yield (
            f"predicted by a roofline, not measured: SpeedNorm on {spec.target} {speeds[-1]:+.3f} at best, "
            f"{median(speeds):+.3f} in the middle"
        )
    else:
        yield f"no SpeedNorm told: {_no_roofline(spec, base_known)}"
    orders = {"speed_norm": lambda one: -one["speed_norm"], "server": lambda one: -one["server"]["middle"]}
    for key, order in orders.items():
        best = sorted((name for name, one in predicted.items() if key in one), key=lambda name: order(predicted[name]))
        for name in best[:MOST]:
            yield from (f"{line}: {name}" for line in in_words(spec, {key: predicted[name][key]}))


def _no_roofline(spec: Space, base_known: bool) -> str:
    """Why nothing is predicted."""
    if not base_known:
        return "the roofline does not know the base's numbers, such as another tool's quantization"
    if spec.target is None:
        return "the space names no target"
    return f"trials take {spec.gpus} GPUs, and what is known is one {spec.target}"


def _sizes(found: dict[str, Any]) -> Iterator[str]:
    if "smallest" in found:
        least, most = found["smallest"], found["largest"]
        yield (
            f"estimated bytes of the weights: {_size(least['bytes'])} ({least['recipe']}) to {_size(most['bytes'])} "
            f"({most['recipe']}); the base {_size(found['base'])}"
        )


def _store(told: dict[str, Any]) -> Iterator[str]:
    found = told["store"]
    if found is None:
        return
    if found["why"] is not None:
        yield f"in the store: not told, since {found['why']}"
        return
    whole, feasible = len(found["whole"]), len(told["feasible"])
    yield f"in the store: {whole:,} of {feasible:,} recipes whole, the first steps of {found['begun']:,} more"


def _size(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
