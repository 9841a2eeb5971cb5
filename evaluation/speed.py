"""SpeedNorm and its interval, from two models' passes over the same slices. Knows nothing of engines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from evaluation.measurement import Timing
from evaluation.protocol import EngineFault

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
RESAMPLES = 2000

Passes = Sequence[Sequence[Timing]]  # by slice, then by pass


class Speed(NamedTuple):
    """1 - (seconds a token) / (the base's), and the ends of its 95 % interval."""

    norm: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def sec_per_token(passes: Passes) -> float:
    """Seconds of the median pass of each slice, over the tokens of all. Raises `EngineFault` for no token."""
    tokens = sum(one[0].tokens for one in passes)
    if tokens == 0:
        raise EngineFault("the model generated no token: there is no time per token")
    return sum(statistics.median(timing.seconds for timing in one) for one in passes) / tokens


def speed(mine: Passes, base: Passes, in_turns: bool, random: np.random.Generator) -> Speed:
    """SpeedNorm of `mine` against `base`, slice by slice the same questions; `in_turns` as in `seconds_per_token`."""
    import numpy as np

    own, other = seconds_per_token(mine, base, in_turns)
    norm = 1 - own / other
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(1 - ratio_draws(mine, base, in_turns, random), [tail, 100 - tail])
    return Speed(norm, min(float(low), norm), max(float(high), norm))


def seconds_per_token(mine: Passes, base: Passes, in_turns: bool) -> tuple[float, float]:
    """Of `mine` and of `base`, over the same slices.

    Where the two took turns, pass k of either met the same mood of the machine, which may take half as long again: the
    seconds of `mine` are then the base's, slice by slice, times the median of its passes' ratios to the base's. That
    repeated better than the ratio of two medians, mostly (docs/measurements.md). Raises `EngineFault` for no token.
    """
    sec_per_token(mine)
    other = sec_per_token(base)
    seconds = sum(
        statistics.median(one.seconds for one in theirs) * statistics.median(_ratios(own, theirs))
        if _paired(own, theirs, in_turns)
        else statistics.median(one.seconds for one in own)
        for own, theirs in zip(mine, base, strict=True)
    )
    return seconds / sum(one[0].tokens for one in mine), other


def ratio_draws(mine: Passes, base: Passes, in_turns: bool, random: np.random.Generator) -> np.ndarray:
    """Bootstrap draws of the ratio of seconds per token, shape (RESAMPLES,).

    Passes are redrawn slice by slice, in pairs where the two took turns. Draws are spread as Student's t is beside the
    normal distribution, with as many degrees of freedom as passes tell of noise: a percentile of few passes' draws
    lies too near.
    """
    import numpy as np
    from scipy.stats import norm, t

    own_seconds, base_seconds = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for own, other in zip(mine, base, strict=True):
        picks = random.integers(0, len(own), size=(RESAMPLES, len(own)))
        if _paired(own, other, in_turns):
            theirs = _medians([one.seconds for one in other], picks)
            own_seconds += theirs * _medians(_ratios(own, other), picks)
        else:
            own_seconds += _medians([one.seconds for one in own], picks)
            theirs = _medians(
                [one.seconds for one in other], random.integers(0, len(other), size=(RESAMPLES, len(other)))
            )
        base_seconds += theirs
    tokens = [sum(one[0].tokens for one in passes) for passes in (mine, base)]
    draws = (own_seconds / tokens[0]) / (base_seconds / tokens[1])
    freedom = sum(len(own) - 1 for own in mine)
    upper = (1 + LEVEL) / 2
    wider = float(t.ppf(upper, freedom) / norm.ppf(upper)) if freedom else 1.0
    centre = np.median(draws)
    return np.asarray(centre + (draws - centre) * wider)


def _paired(own: Sequence[Timing], other: Sequence[Timing], in_turns: bool) -> bool:
    """Not where nothing is timed: lm-eval's parts that only weigh."""
    return in_turns and len(own) == len(other) and all(one.seconds > 0 for one in other)


def _ratios(own: Sequence[Timing], other: Sequence[Timing]) -> list[float]:
    """Seconds of each pass over those of the base's pass beside it."""
    return [one.seconds / theirs.seconds for one, theirs in zip(own, other, strict=True)]


def _medians(values: Sequence[float], picks: np.ndarray) -> np.ndarray:
    """The median of each draw of values, shape (RESAMPLES,).

    Few values look less spread than they are: a bootstrap of n values shows n - 1 over n of their variance.
    """
    import numpy as np

    known = np.array(values)
    widen = np.sqrt(len(known) / (len(known) - 1)) if len(known) > 1 else 1.0
    centre = np.median(known)
    return np.asarray(centre + (np.median(known[picks], axis=1) - centre) * widen)
