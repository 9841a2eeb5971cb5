"""How far off the calibration is on rows it has not seen, beside what needs no model.

A row is predicted from all others but its near duplicates: rows of its source whose recipe reads the same. A row that
does not state its recipe has no known duplicate, and is left out alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from statistics import median
from typing import TypeVar

from evaluation.leaderboard import FEATURES, ODDS, Calibration, Forecast, mood
from evaluation.submissions import Submission

Rows = Sequence[Submission]
Told = TypeVar("Told")
RESAMPLES = 2000


def forecasts_left_out(rows: Rows) -> list[Forecast]:
    """Each row's forecast by a calibration that saw neither it nor its near duplicates."""
    return _left_out(rows, lambda rest, those: Calibration(rest).forecasts(those))


def medians_left_out(rows: Rows) -> list[float]:
    """Each row's forecast by the median of the same others."""
    return _left_out(rows, lambda rest, those: [median(_scores(rest))] * len(those))


def scheme_medians_left_out(rows: Rows) -> list[float]:
    """Each row's forecast by the median of those others that have its scheme; of all where none has."""
    return _medians_of(rows, lambda other, row: other.scheme == row.scheme)


def mood_medians_left_out(rows: Rows) -> list[float]:
    """Each row's forecast by the median of those others known to have met its mood; of all where its own is unknown."""
    return _medians_of(rows, lambda other, row: mood(other) == mood(row))


def unit(row: Submission) -> Hashable:
    """What is left out together."""
    return row.group if row.scheme is not None else row.row


def report(rows: Rows) -> list[str]:
    """Markdown lines: errors of everything that predicts, and what was fitted."""
    told = forecasts_left_out(rows)
    middles, fast_scores = [one.middle for one in told], [one.fast for one in told]
    medians, by_scheme = medians_left_out(rows), scheme_medians_left_out(rows)
    timed = [number for number, row in enumerate(rows) if row.minutes is not None]
    in_mood = {number: told[number].fast - mood(rows[number]) * told[number].loss for number in timed}
    locals_ = [number for number, row in enumerate(rows) if row.local_score is not None]
    everyone = range(len(rows))
    units = len({unit(row) for row in rows})
    lines = [
        f"{len(rows)} scored rows, each predicted from all others but its near duplicates ({units} kinds of rows):",
        "",
        "| predictor | rows | mean absolute error | median | Spearman |",
        "| --- | --- | --- | --- | --- |",
        _line("calibration", rows, everyone, middles),
        _line("calibration, its score in the fast mood", rows, everyone, fast_scores),
        _line("median by scheme", rows, everyone, by_scheme),
        _line("median", rows, everyone, medians),
        _line("calibration, told the mood", rows, timed, [in_mood.get(number, 0.0) for number in everyone]),
        _line("median of its mood, told the mood", rows, timed, mood_medians_left_out(rows)),
        _line("calibration", rows, timed, middles),
        _line("median by scheme", rows, timed, by_scheme),
    ]
    if len(locals_) > 2:
        lines.append(_line("raw local score", rows, locals_, [row.local_score or 0.0 for row in rows]))
        lines.append(_line("calibration", rows, locals_, middles))
        lines.append(_line("calibration, its score in the fast mood", rows, locals_, fast_scores))
    fast = [number for number in timed if mood(rows[number]) == 0]
    within = sum(told[number].fast_low <= (rows[number].score or 0) <= told[number].fast_high for number in fast)
    covered = f"The 90 % interval of the fast mood held {within} of {len(fast)} runs known to be fast."
    return [*lines, "", _difference(rows, middles, by_scheme), covered, "", *_effects(rows)]


def _difference(rows: Rows, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """How sure it is that the calibration errs less than the median by scheme: a paired bootstrap over rows."""
    import numpy as np

    scores = np.array(_scores(rows))
    less = np.abs(np.array(ours) - scores) - np.abs(np.array(theirs) - scores)
    draws = less[np.random.default_rng(0).integers(0, len(less), size=(RESAMPLES, len(less)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"Calibration's mean error less that of the median by scheme: {less.mean():+.4f} [{low:+.4f}, {high:+.4f}]."


def _effects(rows: Rows) -> list[str]:
    """Markdown lines: what was fitted to all rows."""
    import numpy as np

    calibration = Calibration(rows)
    found = calibration.fit
    spreads = np.sqrt(np.diag(found.covariance))
    lines = [
        "| fitted to all rows | effect | ± | rows |",
        "| --- | --- | --- | --- |",
        f"| score in the fast mood, recipe unknown | {found.constant:.4f} | {spreads[0]:.4f} | {len(rows)} |",
    ]
    for feature, effect, spread in zip(FEATURES, found.effects, spreads[1:-1], strict=True):
        shown = sum(feature.value(row) != 0 for row in rows)
        lines.append(f"| {feature.name} | {effect:+.4f} | {spread:.4f} | {shown} |")
    lines.append(f"| loss in the slow mood | {-found.loss:+.4f} | {spreads[-1]:.4f} | {found.slow.sum():.0f} |")
    chances = found.slow_chance(np.vstack([np.zeros(len(ODDS)), np.eye(len(ODDS))]))
    names = ["otherwise", *(feature.name for feature in ODDS)]
    moods = ", ".join(f"{name} {chance:.0%}" for name, chance in zip(names, chances, strict=True))
    return [*lines, "", f"Chance of the slow mood: {moods}. Noise in the fast mood: {found.noise:.4f}."]


def _medians_of(rows: Rows, alike: Callable[[Submission, Submission], bool]) -> list[float]:
    """Each row's forecast by the median of those others that are `alike`; of all where none is."""

    def one(rest: Rows, row: Submission) -> float:
        return median(_scores([other for other in rest if alike(other, row)] or rest))

    return _left_out(rows, lambda rest, those: [one(rest, row) for row in those])


def _left_out(rows: Rows, predict: Callable[[Rows, Rows], Sequence[Told]]) -> list[Told]:
    """What `predict` says of each unit of rows from all others, in the order of `rows`."""
    units: dict[Hashable, list[int]] = {}
    for number, row in enumerate(rows):
        units.setdefault(unit(row), []).append(number)
    told: dict[int, Told] = {}
    for numbers in units.values():
        rest = [row for number, row in enumerate(rows) if number not in numbers]
        if not rest:
            raise ValueError(f"all {len(rows)} scored rows are one recipe of one source: add rows of others")
        told |= dict(zip(numbers, predict(rest, [rows[number] for number in numbers]), strict=True))
    return [told[number] for number in range(len(rows))]


def _line(name: str, rows: Rows, numbers: Sequence[int], predicted: Sequence[float]) -> str:
    mean, middle, rank = errors(
        [predicted[number] for number in numbers], _scores([rows[number] for number in numbers])
    )
    return f"| {name} | {len(numbers)} | {mean:.4f} | {middle:.4f} | {rank:+.2f} |"


def errors(predicted: Sequence[float], scores: Sequence[float]) -> tuple[float, float, float]:
    """Mean and median absolute error, and Spearman's rank correlation (0 where all predictions are one)."""
    import numpy as np
    from scipy.stats import spearmanr

    apart = np.abs(np.subtract(predicted, scores))
    rank = float(spearmanr(predicted, scores).statistic) if np.ptp(predicted) > 0 else 0.0
    return float(apart.mean()), float(np.median(apart)), rank


def _scores(rows: Rows) -> list[float]:
    return [row.score for row in rows if row.score is not None]
