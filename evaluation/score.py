"""The contest's score with its confidence interval.

    score = max(0.5·PerfNorm + 0.5·SpeedNorm, 0)
    PerfNorm = perf / perf_base,  SpeedNorm = 1 - (seconds/token) / (base's seconds/token)

Knows nothing of models or engines: it reads two measurements of the same items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from evaluation.measurement import Measurement, Timing

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
RESAMPLES = 2000


class Score(BaseModel):
    """A candidate against its baseline; `*_low` and `*_high` bound the 95 % confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    perf: float
    perf_base: float
    perf_norm: float
    sec_per_token: float
    sec_per_token_base: float
    speed_norm: float
    speed_low: float
    speed_high: float
    score: float
    score_low: float
    score_high: float
    length_ratio: float


def combine(perf_norm: float, speed_norm: float) -> float:
    """The contest's formula."""
    return max(0.5 * perf_norm + 0.5 * speed_norm, 0.0)


def score(model: Measurement, base: Measurement, seed: int = 0) -> Score:
    """Score `model` against `base`.

    PerfNorm varies by paired bootstrap over items (the same draw of items for both, benchmark by benchmark),
    SpeedNorm by bootstrap over timing passes. Raises `ValueError` when the two answered different items or ran on
    different engines or devices.
    """
    import numpy as np

    _check_comparable(model, base)
    random = np.random.default_rng(seed)
    perf_norm, speed_norm = model.perf / base.perf, 1 - model.sec_per_token / base.sec_per_token
    perf_draws = _perf_draws(model, base, random)
    speed_draws = 1 - _time_ratio_draws(model, base, random)
    score_draws = np.maximum(0.5 * perf_draws + 0.5 * speed_draws, 0)
    tail = 100 * (1 - LEVEL) / 2
    speed_low, speed_high = np.percentile(speed_draws, [tail, 100 - tail])
    score_low, score_high = np.percentile(score_draws, [tail, 100 - tail])
    value = combine(perf_norm, speed_norm)
    return Score(
        perf=model.perf,
        perf_base=base.perf,
        perf_norm=perf_norm,
        sec_per_token=model.sec_per_token,
        sec_per_token_base=base.sec_per_token,
        speed_norm=speed_norm,
        speed_low=min(float(speed_low), speed_norm),
        speed_high=max(float(speed_high), speed_norm),
        score=value,
        score_low=min(float(score_low), value),
        score_high=max(float(score_high), value),
        length_ratio=model.tokens / base.tokens,
    )


def _check_comparable(model: Measurement, base: Measurement) -> None:
    if (model.engine, model.device, model.clock) != (base.engine, base.device, base.clock):
        raise ValueError(
            f"measured on {model.engine}, {model.device}; the baseline on {base.engine}, {base.device}: "
            "measure the baseline again there"
        )
    if base.perf <= 0:
        raise ValueError(f"the baseline's perf is {base.perf}: nothing can be compared with it")
    for name, figures in base.benchmarks.items():
        if name not in model.benchmarks or model.benchmarks[name].grades.keys() != figures.grades.keys():
            raise ValueError(f"model and baseline answered different items of {name}")


def _perf_draws(model: Measurement, base: Measurement, random: np.random.Generator) -> np.ndarray:
    """Bootstrap draws of PerfNorm, shape (RESAMPLES,)."""
    import numpy as np

    mine, theirs = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for name, figures in base.benchmarks.items():
        ids = list(figures.grades)
        grades = np.array([[model.benchmarks[name].grades[one], figures.grades[one]] for one in ids])
        picks = random.integers(0, len(ids), size=(RESAMPLES, len(ids)))
        means = grades[picks].mean(axis=1)
        mine += means[:, 0]
        theirs += means[:, 1]
    return mine / np.maximum(theirs, 1e-12)


def _time_ratio_draws(model: Measurement, base: Measurement, random: np.random.Generator) -> np.ndarray:
    """Bootstrap draws of the ratio of seconds per token, shape (RESAMPLES,).

    For each slice the median of its passes redrawn; the same draw for both where the two took turns, since pass k
    then met the same mood of the machine. Draws are spread as Student's t is beside the normal distribution, with as
    many degrees of freedom as passes tell of noise: a percentile of few passes' draws lies too near.
    """
    import numpy as np
    from scipy.stats import norm, t

    mine, theirs = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for own, other in zip(model.passes, base.passes, strict=True):
        picks = random.integers(0, len(own), size=(RESAMPLES, len(own)))
        mine += _medians(own, picks)
        if not (model.turns and base.turns and len(own) == len(other)):
            picks = random.integers(0, len(other), size=(RESAMPLES, len(other)))
        theirs += _medians(other, picks)
    draws = (mine / model.tokens) / (theirs / base.tokens)
    freedom = sum(len(own) - 1 for own in model.passes)
    upper = (1 + LEVEL) / 2
    wider = float(t.ppf(upper, freedom) / norm.ppf(upper)) if freedom else 1.0
    centre = np.median(draws)
    return np.asarray(centre + (draws - centre) * wider)


def _medians(passes: list[Timing], picks: np.ndarray) -> np.ndarray:
    """Median seconds of each draw of passes, shape (RESAMPLES,).

    Few passes look less spread than they are: a bootstrap of n values shows n - 1 over n of their variance.
    """
    import numpy as np

    times = np.array([timing.seconds for timing in passes])
    widen = np.sqrt(len(times) / (len(times) - 1)) if len(times) > 1 else 1.0
    centre = np.median(times)
    return centre + (np.median(times[picks], axis=1) - centre) * widen
