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
    """SpeedNorm of `mine` against `base`, slice by slice the same questions; `in_turns` as in `ratio_draws`."""
    import numpy as np

    norm = 1 - sec_per_token(mine) / sec_per_token(base)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(1 - ratio_draws(mine, base, in_turns, random), [tail, 100 - tail])
    return Speed(norm, min(float(low), norm), max(float(high), norm))


def ratio_draws(mine: Passes, base: Passes, in_turns: bool, random: np.random.Generator) -> np.ndarray:
    """Bootstrap draws of the ratio of seconds per token, shape (RESAMPLES,).

    For each slice the median of its passes redrawn; the same draw for both where the two took turns, since pass k
    then met the same mood of the machine. Draws are spread as Student's t is beside the normal distribution, with as
    many degrees of freedom as passes tell of noise: a percentile of few passes' draws lies too near.
    """
    import numpy as np
    from scipy.stats import norm, t

    own_seconds, base_seconds = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for own, other in zip(mine, base, strict=True):
        picks = random.integers(0, len(own), size=(RESAMPLES, len(own)))
        own_seconds += _medians(own, picks)
        if not (in_turns and len(own) == len(other)):
            picks = random.integers(0, len(other), size=(RESAMPLES, len(other)))
        base_seconds += _medians(other, picks)
    tokens = [sum(one[0].tokens for one in passes) for passes in (mine, base)]
    draws = (own_seconds / tokens[0]) / (base_seconds / tokens[1])
    freedom = sum(len(own) - 1 for own in mine)
    upper = (1 + LEVEL) / 2
    wider = float(t.ppf(upper, freedom) / norm.ppf(upper)) if freedom else 1.0
    centre = np.median(draws)
    return np.asarray(centre + (draws - centre) * wider)


def _medians(passes: Sequence[Timing], picks: np.ndarray) -> np.ndarray:
    """Median seconds of each draw of passes, shape (RESAMPLES,).

    Few passes look less spread than they are: a bootstrap of n values shows n - 1 over n of their variance.
    """
    import numpy as np

    times = np.array([timing.seconds for timing in passes])
    widen = np.sqrt(len(times) / (len(times) - 1)) if len(times) > 1 else 1.0
    centre = np.median(times)
    return centre + (np.median(times[picks], axis=1) - centre) * widen
