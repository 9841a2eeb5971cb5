"""A linear model of scores that a server in two moods gives: robust, shrunk, the mood latent where nobody noted it.

    score = constant + Σ features · effects - loss · slow + noise,    noise ~ Student's t

Every effect has a normal prior, so that what few rows show stays near what was expected, mostly nothing. Whether a row
was slow is Bernoulli, its log odds linear in indicators of their own, shrunk likewise; a mood that is known is given.
Fitted by EM (mood) around iterated reweighting (Student's t; Lange et al., 1989). Knows nothing of recipes or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FREEDOM = 4.0  # of Student's t
ROUNDS = 200
SETTLED = 1e-7
LOSS, LOSS_SPREAD = 0.1, 0.05  # prior of what the slow mood costs
CONSTANT_SPREAD = 1.0
NOISE_FLOOR = 0.003  # the same weights scored again differ by about this much
NOISE, NOISE_WEIGHT = 0.03, 4.0  # prior of the noise's scale, and how many rows it is worth


@dataclass(frozen=True)
class Fit:
    """What was learned. `covariance` is that of (constant, effects..., loss)."""

    constant: float
    effects: np.ndarray
    loss: float
    odds: np.ndarray  # log odds of the slow mood: constant, then one a mood indicator
    noise: float
    covariance: np.ndarray
    slow: np.ndarray  # (rows,) probability that each row was slow

    def fast(self, features: np.ndarray) -> np.ndarray:
        """Score in the fast mood, of rows (n, features)."""
        return self.constant + features @ self.effects

    def spread(self, features: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Scale of what a new row's fast score may be: the noise and what is not known of the effects."""
        import numpy as np

        rows = np.column_stack([np.ones(len(features)), features, np.zeros(len(features))])
        return np.sqrt((self.noise * scales) ** 2 + np.einsum("ij,jk,ik->i", rows, self.covariance, rows))

    def slow_chance(self, indicators: np.ndarray) -> np.ndarray:
        """Probability of the slow mood, of rows (n, indicators)."""
        return _sigmoid(self.odds[0] + indicators @ self.odds[1:])


def fit(
    features: np.ndarray,
    scores: np.ndarray,
    mood: np.ndarray,
    indicators: np.ndarray,
    scales: np.ndarray,
    expected: np.ndarray,
    spreads: np.ndarray,
    odds_spreads: np.ndarray,
) -> Fit:
    """Learn from `scores` (n,) with `features` (n, k), `mood` (n,) 1 slow, 0 fast, NaN unknown, `indicators` (n, m).

    `scales` (n,) says how much wider than others each row's score spreads; effects have priors around `expected` (k,)
    with standard deviations `spreads` (k,), log odds around 0 with `odds_spreads` (m,).
    """
    import numpy as np

    known = ~np.isnan(mood)
    slow = np.where(known, mood, (scores < np.median(scores)).astype(float))
    noise = NOISE
    prior = np.concatenate([[0.0], expected, [LOSS]])
    precision = 1 / np.concatenate([[CONSTANT_SPREAD], spreads, [LOSS_SPREAD]]) ** 2
    rows = np.column_stack([np.ones(len(scores)), features])
    # each row twice, as if fast and as if slow, weighed by how likely that is
    design = np.vstack([np.column_stack([rows, np.zeros(len(rows))]), np.column_stack([rows, -np.ones(len(rows))])])
    twice, both = np.concatenate([scores, scores]), np.concatenate([scales, scales])
    found = prior.copy()
    found[0] = np.quantile(scores, 0.75)
    odds = np.zeros(1 + indicators.shape[1])
    for _ in range(ROUNDS):
        odds = _logistic(indicators, slow, odds, odds_spreads)
        chances = _sigmoid(odds[0] + indicators @ odds[1:])
        apart = ((twice - design @ found) / (noise * both)).reshape(2, -1)
        likely = np.log([1 - chances, chances]) - (FREEDOM + 1) / 2 * np.log1p(apart**2 / FREEDOM)
        slow = np.where(known, slow, _sigmoid(likely[1] - likely[0]))
        weights = np.concatenate([1 - slow, slow]) * (FREEDOM + 1) / (FREEDOM + apart.ravel() ** 2) / both**2
        information = (design.T * (weights / noise**2)) @ design + np.diag(precision)
        before, found = found, np.linalg.solve(
            information, design.T @ (weights / noise**2 * twice) + precision * prior
        )  # fmt: skip
        squares = float(weights @ (twice - design @ found) ** 2)
        noise = max(NOISE_FLOOR, np.sqrt((squares + NOISE_WEIGHT * NOISE**2) / (len(scores) + NOISE_WEIGHT)))
        if np.abs(found - before).max() < SETTLED:
            break
    return Fit(float(found[0]), found[1:-1], float(found[-1]), odds, noise, np.linalg.inv(information), slow)


def _logistic(indicators: np.ndarray, slow: np.ndarray, start: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """Log odds of `slow` (probabilities) by Newton's method with normal priors; the constant's is wide."""
    import numpy as np

    rows = np.column_stack([np.ones(len(slow)), indicators])
    precision = 1 / np.concatenate([[2.0], spreads]) ** 2
    odds = start
    for _ in range(20):
        chances = _sigmoid(rows @ odds)
        slope = rows.T @ (slow - chances) - precision * odds
        step = np.linalg.solve((rows.T * (chances * (1 - chances))) @ rows + np.diag(precision), slope)
        odds = odds + step
        if np.abs(step).max() < SETTLED:
            break
    return np.asarray(odds)


def _sigmoid(value: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(value)
