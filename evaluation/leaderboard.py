"""What the leaderboard would say of a recipe: a calibration learned from recorded submissions.

The server has two moods: a run it takes longer for scores about 0.1 less, whatever the recipe. So a forecast is a
score in the fast mood with an interval, and the chance and size of the slow mood's loss. `python -m
evaluation.leaderboard CSV` prints how far off it is on rows it has not seen, beside what needs no model.

It cannot tell apart recipes that its features do not, nor what no row shows (layers removed and trimmed vocabularies
have no server score in what was public); an effect is what went along with a score, not its cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from evaluation.moods import FREEDOM, Fit, fit
from evaluation.submissions import Submission

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.9  # of the interval
SLOW_FROM = 11.7  # minutes; no run is known between 11.0 and 12.3
WHOLE = 30  # decoder layers of EXAONE-4.0-1.2B


@dataclass(frozen=True)
class Feature:
    """A number read off a submission; None, where it is unknown, counts as `usual`."""

    name: str
    of: Callable[[Submission], float | bool | None]
    spread: float  # of its effect's prior, in points of score a unit
    usual: float = 0.0

    def value(self, row: Submission) -> float:
        found = self.of(row)
        return (self.usual if found is None else float(found)) - self.usual


FEATURES: tuple[Feature, ...] = (
    Feature("W8A8", lambda row: row.scheme == "W8A8", 0.05),
    Feature("W8A8 by rounding alone", lambda row: row.scheme == "W8A8" and row.algorithm == "rtn", 0.03),
    Feature("FP8", lambda row: row.scheme == "FP8", 0.05),
    Feature("W4A16", lambda row: row.scheme == "W4A16", 0.05),
    Feature("not quantized", lambda row: row.scheme == "none", 0.1),
    Feature("another scheme", lambda row: row.scheme == "other", 0.1),
    Feature("some layers in 16 bits", lambda row: row.kept, 0.03),
    Feature("weights trained before", lambda row: row.trained, 0.1),
    Feature("a layer removed", lambda row: None if row.layers is None else WHOLE - row.layers, 0.05),
    Feature("vocabulary trimmed", lambda row: row.trimmed, 0.1),
    Feature("local PerfNorm, a unit", lambda row: row.local_perf_norm, 0.5, usual=1.0),
)
TRAINED_ODDS, SOURCE_ODDS = 1.0, 1.5  # spreads of the priors of log odds of the slow mood


class Forecast(BaseModel):
    """What the server would say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted: bool = True
    fast: float = Field(description="score in the fast mood")
    fast_low: float = Field(description="lower end of its 90 % interval")
    fast_high: float = Field(description="upper end of its 90 % interval")
    slow_chance: float = Field(description="probability of the slow mood")
    loss: float = Field(description="what the slow mood costs")
    middle: float = Field(description="median over both moods: as likely above as below")
    mean: float = Field(description="mean over both moods")


class Calibration:
    """Learned from scored submissions; forecasts others."""

    def __init__(self, rows: Sequence[Submission]) -> None:
        import numpy as np

        self.sources = sorted({row.source for row in rows})
        self.fit: Fit = fit(
            _features(rows),
            np.array([row.score for row in rows], dtype=float),
            np.array([mood(row) for row in rows]),
            self._indicators(rows),
            np.array([feature.spread for feature in FEATURES]),
            np.array([TRAINED_ODDS] + [SOURCE_ODDS] * len(self.sources)),
        )

    def forecasts(self, rows: Sequence[Submission]) -> list[Forecast]:
        """One a row; scores and minutes of `rows` are not looked at."""
        from scipy.stats import t

        features = _features(rows)
        chances = self.fit.slow_chance(self._indicators(rows))
        wide = float(t.ppf((1 + LEVEL) / 2, FREEDOM))
        told = []
        for fast, spread, chance in zip(self.fit.fast(features), self.fit.spread(features), chances, strict=True):
            told.append(
                Forecast(
                    fast=fast, fast_low=fast - wide * spread, fast_high=fast + wide * spread, slow_chance=chance,
                    loss=self.fit.loss, middle=_middle(fast, spread, chance, self.fit.loss),
                    mean=fast - chance * self.fit.loss,
                )
            )  # fmt: skip
        return told

    def _indicators(self, rows: Sequence[Submission]) -> np.ndarray:
        """What the chance of the slow mood may depend on, (rows, 1 + sources); a source never seen has none."""
        import numpy as np

        return np.array([[float(bool(row.trained)), *(row.source == one for one in self.sources)] for row in rows])


def mood(row: Submission) -> float:
    """1 slow, 0 fast, NaN unknown."""
    return float("nan") if row.minutes is None else float(row.minutes >= SLOW_FROM)


def _features(rows: Sequence[Submission]) -> np.ndarray:
    import numpy as np

    return np.array([[feature.value(row) for feature in FEATURES] for row in rows])


def _middle(fast: float, spread: float, chance: float, loss: float) -> float:
    """Median of the mixture of both moods."""
    from scipy.optimize import brentq
    from scipy.stats import t

    def below(score: float) -> float:
        both = t.cdf([(score - fast) / spread, (score - fast + loss) / spread], FREEDOM)
        return float((1 - chance) * both[0] + chance * both[1] - 0.5)

    return float(brentq(below, fast - loss, fast)) if loss > 0 else fast
