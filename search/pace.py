"""How fast recipes are, learned from all that a search has timed: a low rung's own few seconds are too few to say.

SpeedNorm depends on a model's shape and numbers far more than on what it was taught, so every timing tells of all
recipes that look alike. A line through the trials' time ratios (Bayesian linear regression with the base as a point it
goes through) predicts a recipe's, and what its own timing says is weighed with that by how precise either is. A timing
that is precise, as those of a GPU soon are, stands nearly as it is. Knows nothing of quality.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.description import Description
from search.recipe import Recipe
from search.target import base_described, described

if TYPE_CHECKING:
    import numpy as np

# Shares of the base's time before anything was timed, and how far off they may be.
SHARES = {"step": 0.3, "layers": 0.3, "ffn": 0.3, "vocab": 0.1}
SHARE_SPREAD = 0.3
KIND_SPREAD = 0.3  # of what other numbers than bf16 change
BASE_SPREAD = 1e-3  # the base takes its own time
ALIKE = 0.02  # spread of models that look alike: they say more or less
ONE_PASS = 0.15  # spread of a timing that does not tell its own
PRECISE = 0.003  # no timing is better known
ODD = 4.0  # spreads that a timing may lie from the line before it speaks for itself: who rambles is slow indeed
ROUNDS = 3  # of fitting, each with less weight on what lies far from the line
Z = 1.96  # half of a 95 % interval, in standard deviations


class Timed(NamedTuple):
    """What a trial's highest rung says: features, 1 - SpeedNorm and its spread."""

    features: dict[str, float]
    ratio: float
    spread: float
    rung: int


class Pace:
    """Of recipes for the model in `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.original = base_described(base)
        self.timed: dict[str, Timed] = {}  # by trial
        self._shapes: dict[str, dict[str, float]] = {}  # features by recipe

    def learn(self, line: Mapping[str, Any]) -> None:
        """A ledger line of a finished rung; of a trial its highest counts. What was predicted teaches nothing."""
        before = self.timed.get(line["trial"])
        if line.get("speed_by") == "roofline" or (before is not None and before.rung >= line["rung"]):
            return
        if self.original is None:
            return
        features = self._features(line)
        self.timed[line["trial"]] = Timed(features, 1 - line["speed_norm"], spread_of(line), line["rung"])

    def speed(self, line: Mapping[str, Any]) -> float:
        """SpeedNorm as its own timing and all other trials' tell it."""
        own, spread = float(line["speed_norm"]), spread_of(line)
        others = [one for name, one in self.timed.items() if name != line["trial"]]
        if not others:
            return own
        told, doubt = self._predicted(self._features(line), others)
        if abs(own - told) > ODD * (spread**2 + doubt**2) ** 0.5:
            return own
        weight = doubt**2 / (doubt**2 + spread**2)
        return weight * own + (1 - weight) * told

    def _features(self, line: Mapping[str, Any]) -> dict[str, float]:
        assert self.original is not None  # `learn` asks first, and nobody is compared with nobody
        name = json.dumps(line["recipe"], sort_keys=True)
        if name not in self._shapes:
            self._shapes[name] = features_of(described(Recipe.of(line["recipe"]), self.base), self.original)
        return self._shapes[name]

    def _predicted(self, features: Mapping[str, float], others: list[Timed]) -> tuple[float, float]:
        """SpeedNorm by the line through `others`, and its spread."""
        import numpy as np

        names = sorted({name for one in (*others, Timed(dict(features), 0, 0, 0)) for name in one.features} | {*SHARES})
        prior = np.array([SHARES.get(name, 0.0) for name in names])
        precision = np.diag([1 / (SHARE_SPREAD if name in SHARES else KIND_SPREAD) ** 2 for name in names])
        rows = np.array([[one.features.get(name, 0.0) for name in names] for one in others])
        base = np.array([1.0 if name in SHARES else 0.0 for name in names])
        rows, ratios = np.vstack([rows, base]), np.array([*(one.ratio for one in others), 1.0])
        spreads = np.array([*((one.spread**2 + ALIKE**2) ** 0.5 for one in others), BASE_SPREAD])
        weights = 1 / spreads**2
        for _ in range(ROUNDS):
            covariance, line = _fit(rows, ratios, weights, prior, precision)
            away = np.abs(ratios - rows @ line) / spreads
            weights = np.minimum(1, 2 / np.maximum(away, 1e-9)) / spreads**2  # Huber's: a rambler bends no line
        asked = np.array([features.get(name, 0.0) for name in names])
        return float(1 - asked @ line), float((asked @ covariance @ asked + ALIKE**2) ** 0.5)


def features_of(model: Description, base: Description) -> dict[str, float]:
    """What the time of a token is made of, as shares of the base's: steps, layers, their FFN, vocabulary, numbers."""
    layers = model.layers / base.layers
    found = {
        "step": 1.0,
        "layers": layers,
        "ffn": layers * model.ffn / base.ffn,
        "vocab": model.vocab / base.vocab,
    }
    for part in model.linears:
        if part.rate != "bf16" or part.bits != 16:
            name = f"{part.rate} {part.bits:g}"
            found[name] = found.get(name, 0.0) + layers * part.share
    if model.head.bits != base.head.bits:
        found[f"head {model.head.bits:g}"] = 1.0
    if model.kv_bits != base.kv_bits:
        found[f"kv {model.kv_bits:g}"] = layers
    return found


def spread_of(line: Mapping[str, Any]) -> float:
    """Standard deviation of the line's SpeedNorm; a single pass does not know its own."""
    half = (line["speed_high"] - line["speed_low"]) / 2
    return max(half / Z, PRECISE) if half > 0 else ONE_PASS


def _fit(
    rows: np.ndarray, ratios: np.ndarray, weights: np.ndarray, prior: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance and mean of the line's coefficients."""
    import numpy as np

    covariance = np.linalg.inv(precision + (rows * weights[:, None]).T @ rows)
    return covariance, covariance @ (precision @ prior + rows.T @ (weights * ratios))
