"""What the leaderboard would say of a recipe: a calibration learned from recorded submissions.

The server has two moods: a run it takes longer for scores about 0.1 less, whatever the recipe. So a forecast is a
score in the fast mood with an interval, and the chance and size of the slow mood's loss. `python -m
evaluation.leaderboard CSV` prints how far off it is on rows it has not seen, beside what needs no model.

It cannot tell apart recipes that its features do not, nor say more than its priors of what no row shows (no public row
with a server score has layers removed or a trimmed vocabulary). An effect is what went along with a score, not its
cause: people report their best, and nobody has said why the server is slow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from evaluation.moods import FREEDOM, Fit, fit
from evaluation.submissions import Submission, read_submissions

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.9  # of the interval
SLOW_FROM = 11.7  # minutes; no run is known between 11.1 and 12.3
WHOLE = 30  # decoder layers of EXAONE-4.0-1.2B


@dataclass(frozen=True)
class Feature:
    """A number read off a submission; unknown (None) counts as `usual`, and so as no news."""

    name: str
    of: Callable[[Submission], float | None]
    spread: float  # of its effect's normal prior, a unit of the feature
    usual: float = 0.0
    expected: float = 0.0  # middle of that prior

    def value(self, row: Submission) -> float:
        found = self.of(row)
        return 0.0 if found is None else float(found) - self.usual


def _rounded(row: Submission) -> bool:
    return row.scheme == "W8A8" and row.algorithm == "rtn"


# What the score in the fast mood may depend on; spreads in points of score.
FEATURES: tuple[Feature, ...] = (
    Feature("W8A8", lambda row: row.scheme == "W8A8", 0.05),
    Feature("W8A8 by rounding alone, besides", _rounded, 0.03),
    Feature("FP8", lambda row: row.scheme == "FP8", 0.05),
    Feature("W4A16", lambda row: row.scheme == "W4A16", 0.05),
    # the base scores 0.5 by the formula, where a recipe nobody describes scores about 0.6
    Feature("not quantized", lambda row: row.scheme == "none", 0.02, expected=-0.1),
    Feature("another scheme", lambda row: row.scheme == "other", 0.1),
    Feature("some layers in 16 bits", lambda row: row.kept, 0.03),
    Feature("weights trained before", lambda row: row.trained, 0.2),
    Feature("a layer removed", lambda row: None if row.layers is None else WHOLE - row.layers, 0.05),
    Feature("vocabulary trimmed", lambda row: row.trimmed, 0.1),
    Feature("local PerfNorm, a unit above 1", lambda row: row.local_perf_norm, 0.5, usual=1.0),
)
# What the chance of the slow mood may depend on; spreads in log odds.
ODDS: tuple[Feature, ...] = (
    Feature("weights trained before", lambda row: row.trained, 2.0),
    Feature("W8A8 by rounding alone", _rounded, 2.0),
    Feature("FP8", lambda row: row.scheme == "FP8", 2.0),
    Feature("recipe not stated", lambda row: row.scheme is None, 2.0),
)
UNSETTLED = 5.0  # how much wider scores spread where weights were trained or the scheme is a rare one


class Forecast(BaseModel):
    """What the server would say; nothing was submitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted: Literal[True] = True
    fast: float = Field(description="score in the fast mood")
    fast_low: float = Field(description="lower end of its 90 % interval")
    fast_high: float = Field(description="upper end of its 90 % interval")
    slow_chance: float = Field(description="probability of the slow mood")
    loss: float = Field(description="what the slow mood costs")
    middle: float = Field(description="median over both moods: as likely above as below")
    unseen: tuple[str, ...] = Field(description="what the recipe has that no submission showed: taken to cost nothing")


class Calibration:
    """Learned from scored submissions; forecasts others. Raises `ValueError` for rows without a score."""

    def __init__(self, rows: Sequence[Submission]) -> None:
        import numpy as np

        unscored = [row.row for row in rows if row.score is None]
        if unscored or not rows:
            raise ValueError(f"nothing can be learned from rows {unscored}: give rows with a server_score")
        self._unseen = [feature for feature in FEATURES if not any(feature.value(row) for row in rows)]
        self.fit: Fit = fit(
            features=_table(FEATURES, rows),
            scores=np.array([row.score for row in rows], dtype=float),
            mood=np.array([mood(row) for row in rows]),
            indicators=_table(ODDS, rows),
            scales=_scales(rows),
            expected=np.array([feature.expected for feature in FEATURES]),
            spreads=np.array([feature.spread for feature in FEATURES]),
            odds_spreads=np.array([feature.spread for feature in ODDS]),
        )

    def forecasts(self, rows: Sequence[Submission]) -> list[Forecast]:
        """One a row; scores and minutes of `rows` are not looked at."""
        from scipy.stats import t

        features = _table(FEATURES, rows)
        chances = self.fit.slow_chance(_table(ODDS, rows))
        wide = float(t.ppf((1 + LEVEL) / 2, FREEDOM))
        spreads = self.fit.spread(features, _scales(rows))
        told = []
        for row, fast, spread, chance in zip(rows, self.fit.fast(features), spreads, chances, strict=True):
            told.append(
                Forecast(
                    fast=fast,
                    fast_low=fast - wide * spread,
                    fast_high=fast + wide * spread,
                    slow_chance=chance,
                    loss=self.fit.loss,
                    middle=_middle(fast, spread, chance, self.fit.loss),
                    unseen=tuple(feature.name for feature in self._unseen if feature.value(row)),
                )
            )
        return told


def mood(row: Submission) -> float:
    """1 slow, 0 fast, NaN unknown."""
    return float("nan") if row.minutes is None else float(row.minutes >= SLOW_FROM)


def _table(features: Sequence[Feature], rows: Sequence[Submission]) -> np.ndarray:
    """Shape (rows, features)."""
    import numpy as np

    return np.array([[feature.value(row) for feature in features] for row in rows])


def _scales(rows: Sequence[Submission]) -> np.ndarray:
    """How much wider than others each row's score may spread."""
    import numpy as np

    return np.array([UNSETTLED if row.trained or row.scheme == "other" else 1.0 for row in rows])


def _middle(fast: float, spread: float, chance: float, loss: float) -> float:
    """Median of the mixture of both moods."""
    from scipy.optimize import brentq
    from scipy.stats import t

    def below(score: float) -> float:
        both = t.cdf([(score - fast) / spread, (score - fast + loss) / spread], FREEDOM)
        return float((1 - chance) * both[0] + chance * both[1] - 0.5)

    return float(brentq(below, fast - loss, fast)) if loss > 0 else fast


USAGE = """usage: python -m evaluation.leaderboard CSV

Learns from a CSV of recorded submissions what the contest's server says of a recipe, and prints how far off that is on
rows that were not seen. The CSV's columns, units and allowed values: docs/leaderboard.md."""


def main() -> None:
    """Print the table for the CSV named on the command line; bad input ends in one line and exit 2."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        return
    from evaluation.leaderboard_table import report

    try:
        if len(sys.argv) != 2:
            raise ValueError("give one CSV of submissions: python -m evaluation.leaderboard CSV")
        lines = report(read_submissions(Path(sys.argv[1])))
    except ValueError as fault:
        print(f"leaderboard: {' '.join(str(fault).split())}", file=sys.stderr)
        raise SystemExit(2) from fault
    print("\n".join(lines))


if __name__ == "__main__":
    main()
