"""What a search teaches, in lines for people: the front, the bests, what mattered, what it cost, what to try next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evaluation.devices import DeviceName, known_device
from search.costs import costs_of
from search.errors import BadInput
from search.insight import bests, front, mattered, next_recipes
from search.job import Job
from search.ledger import TrialRecord, ranked
from search.recipe import Recipe

LEAST_SECONDS = 0.5  # of a stage that is told: refusing a recipe takes less
LEAST_SHARE = 0.02  # of the variance: choices below are not told one by one


def findings(job: Job, trials: Sequence[TrialRecord]) -> list[str]:
    """Lines for a report; none before a trial was measured in full."""
    if not bests(trials, job.last_rung):
        return []
    return [
        *_bests(job, trials),
        *_front(job, trials),
        *_mattered(job, trials),
        *_costs(job, trials),
        *_next(job, trials),
    ]


def _bests(job: Job, trials: Sequence[TrialRecord]) -> Iterator[str]:
    number = len(ranked(trials, job.last_rung))
    yield f"of {number} trial{'s' * (number != 1)} measured in full:"
    for how, trial in bests(trials, job.last_rung).items():
        line = trial.line
        told = {
            "score": f"{line['score']:.4f} [{line['score_low']:.4f}, {line['score_high']:.4f}]"
            + (f", judged as {trial.judged:.4f}" if trial.judged is not None else ""),
            "quality": f"PerfNorm {line['perf_norm']:.3f}{_interval(line, 'perf', '.3f')}",
            "size": f"{line['size_bytes'] / 1e6:.1f} MB",
            "speed": f"SpeedNorm {line['speed_norm']:+.3f} [{line['speed_low']:+.3f}, {line['speed_high']:+.3f}]",
        }[how]
        yield f"best by {how}: {trial.name}, {told}: {Recipe.of(trial.recipe)}"


def _interval(line: dict[str, object], name: str, form: str) -> str:
    """Of ledgers that tell it."""
    low, high = line.get(f"{name}_low"), line.get(f"{name}_high")
    return f" [{low:{form}}, {high:{form}}]" if low is not None and high is not None else ""


def _front(job: Job, trials: Sequence[TrialRecord]) -> Iterator[str]:
    names = [trial.name for trial in front(trials, job.last_rung)]
    yield f"no other beats these in quality, speed and size at once: {', '.join(names)}"


def _mattered(job: Job, trials: Sequence[TrialRecord]) -> Iterator[str]:
    found = mattered(job.space, trials)
    if found is None:
        yield "what mattered: too few recipes at one rung to say"
        return
    shares = [f"{name} {share:.0%}" for name, share in found.shares.items() if share >= LEAST_SHARE]
    yield (
        f"of the differences between {found.trials} scores at rung {found.rung + 1}, what explains how much (fANOVA): "
        f"{', '.join(shares)}"
    )


def _costs(job: Job, trials: Sequence[TrialRecord]) -> Iterator[str]:
    unit = "GPU" if job.device == "cuda" else "machine"
    spent = costs_of(trials, job.space.price, job.devices)
    told = [
        f"{one.stage} {one.seconds:.0f} s in {one.times}" + (f" ({one.money:.2f})" if one.money is not None else "")
        for one in spent
        if one.seconds >= LEAST_SECONDS
    ]
    whole = sum(one.seconds for one in spent)
    money = f", {whole / 3600 * job.space.price:.2f} in money" if job.space.price is not None else ""
    left_out = "without the start of Ray and its workers, what an interrupt cut short, and verification"
    yield f"it took {whole:.0f} {unit} seconds{money}, {left_out}: {', '.join(told)}"


def _next(job: Job, trials: Sequence[TrialRecord]) -> Iterator[str]:
    from search.driver import feasible_for, worth_of
    from search.prospects import prospects_for

    if not (job.base / "config.json").exists():
        return
    try:
        prospects = prospects_for(job.space, job.base, _devices(trials))
        found = next_recipes(job.space, trials, job.seed, feasible_for(job), prospects, worth_of(job, trials).of_line)
    except BadInput as fault:  # the run's engine is elsewhere, or its space holds its recipes no more
        yield f"what to try next cannot be told here: {fault}"
        return
    for recipe in found:
        yield f"{job.space.searcher} would try next: {recipe}"


def _devices(trials: Sequence[TrialRecord]) -> set[DeviceName | None]:
    """What trials were measured on; None stands for what nobody knows."""
    return {known_device(trial.line["device"]) for trial in trials if trial.last is not None}
