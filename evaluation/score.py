"""The contest's score with its confidence interval.

    score = max(0.5·PerfNorm + 0.5·SpeedNorm, 0)
    PerfNorm = perf / perf_base,  SpeedNorm = 1 - (seconds/token) / (base's seconds/token)

Knows nothing of models or engines: it reads two measurements of the same items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from evaluation.measurement import Measurement
from evaluation.roofline import Prediction
from evaluation.speed import LEVEL, RESAMPLES, Speed, ratio_draws, seconds_per_token, speed

if TYPE_CHECKING:
    import numpy as np


class Score(BaseModel):
    """A candidate against its baseline; `*_low` and `*_high` bound the 95 % confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    perf: float
    perf_base: float
    perf_norm: float
    perf_low: float | None = Field(None, description="of PerfNorm; None in ledgers of earlier versions")
    perf_high: float | None = None
    sec_per_token: float = Field(description="the base's times the ratio to it, see `seconds_per_token`; or predicted")
    sec_per_token_base: float
    speed_norm: float
    speed_low: float
    speed_high: float
    score: float
    score_low: float
    score_high: float
    length_ratio: float = Field(
        description="tokens generated over the base's: time a token depends on how much is said"
    )
    fixed_norm: float | None = Field(
        None, description="SpeedNorm with every answer as long as the base's; None where that was not timed"
    )
    fixed_low: float | None = None
    fixed_high: float | None = None
    perf_by: Literal["answers", "likelihood"] = Field(
        "answers", description="likelihood: perf is how near the model's predictions are to the base's, exp(-KL)"
    )
    speed_by: Literal["timing", "roofline"] = Field("timing", description="roofline: SpeedNorm is predicted")


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
    in_turns = model.turns and base.turns
    mine, theirs = seconds_per_token(model.passes, base.passes, in_turns)
    perf_norm, speed_norm = model.perf / base.perf, 1 - mine / theirs
    perf_draws = _perf_draws(model, base, random)
    speed_draws = 1 - ratio_draws(model.passes, base.passes, in_turns, random)
    score_draws = np.maximum(0.5 * perf_draws + 0.5 * speed_draws, 0)
    tail = 100 * (1 - LEVEL) / 2
    perf_low, perf_high = np.percentile(perf_draws, [tail, 100 - tail])
    speed_low, speed_high = np.percentile(speed_draws, [tail, 100 - tail])
    score_low, score_high = np.percentile(score_draws, [tail, 100 - tail])
    value = combine(perf_norm, speed_norm)
    return Score(
        perf=model.perf,
        perf_base=base.perf,
        perf_norm=perf_norm,
        perf_low=min(float(perf_low), perf_norm),
        perf_high=max(float(perf_high), perf_norm),
        sec_per_token=mine,
        sec_per_token_base=theirs,
        speed_norm=speed_norm,
        speed_low=min(float(speed_low), speed_norm),
        speed_high=max(float(speed_high), speed_norm),
        score=value,
        score_low=min(float(score_low), value),
        score_high=max(float(score_high), value),
        length_ratio=model.tokens / base.tokens,
        **_fixed(model, base, in_turns, random),
    )


ONE_PASS = 0.3  # half of the interval of a SpeedNorm that was timed once, which does not tell how well it repeats


def near(model: Measurement, base: Measurement, predicted: Prediction | None, error: float, seed: int = 0) -> Score:
    """The score of a model compared with its base by likelihood: never a final one.

    Where SpeedNorm is `predicted`, its interval is that ± `error`, what the roofline may be off; else it was timed
    once, and its interval is wide. Raises as `score` does.
    """
    import numpy as np

    _check_comparable(model, base)
    if predicted is None:
        own, other = seconds_per_token(model.passes, base.passes, model.turns and base.turns)
        speed_norm, error, length_ratio = 1 - own / other, ONE_PASS, model.tokens / base.tokens
    else:
        own, other = predicted.sec_per_token, predicted.sec_per_token_base
        speed_norm, length_ratio = predicted.speed_norm, 1.0
    draws = _perf_draws(model, base, np.random.default_rng(seed))
    tail = 100 * (1 - LEVEL) / 2
    perf_norm = model.perf / base.perf
    perf_low, perf_high = (float(end) for end in np.percentile(draws, [tail, 100 - tail]))
    perf_low, perf_high = min(perf_low, perf_norm), max(perf_high, perf_norm)
    return Score(
        perf=model.perf,
        perf_base=base.perf,
        perf_norm=perf_norm,
        perf_low=perf_low,
        perf_high=perf_high,
        sec_per_token=own,
        sec_per_token_base=other,
        speed_norm=speed_norm,
        speed_low=speed_norm - error,
        speed_high=speed_norm + error,
        score=combine(perf_norm, speed_norm),
        score_low=combine(perf_low, speed_norm - error),
        score_high=combine(perf_high, speed_norm + error),
        length_ratio=length_ratio,
        perf_by="likelihood",
        speed_by="timing" if predicted is None else "roofline",
    )


def _fixed(model: Measurement, base: Measurement, in_turns: bool, random: np.random.Generator) -> dict[str, float]:
    """Fields of a score at fixed output lengths, over the slices that were timed so."""
    # Pass k of either met one mood of the machine; what the base was timed after that belongs to later passes.
    slices = [(own, other[: len(own)]) for own, other in zip(model.fixed, base.passes, strict=False) if own]
    if not slices:
        return {}
    told: Speed = speed([own for own, _ in slices], [other for _, other in slices], in_turns, random)
    return {"fixed_norm": told.norm, "fixed_low": told.low, "fixed_high": told.high}


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
