"""What held-out text says of a model beside its base: agreement, KL divergence, perplexity. Asks nobody anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmarks.heldout import TextFigures, compare, likelihood_kept, perplexity
from evaluation.measurement import BenchmarkFigures
from evaluation.protocol import ScoredText
from evaluation.trimmed import kept_tokens, recut


def predictions(mine: Sequence[ScoredText], theirs: Sequence[ScoredText], model: Path) -> dict[str, BenchmarkFigures]:
    """The benchmarks `agreement` and `perplexity` of the model in `model` on texts that the base scored too."""
    figures: list[TextFigures] = []
    kept: list[float] = []
    for one, other in zip(mine, theirs, strict=True):
        figures.append(compare(recut(one, other) if kept_tokens(model) is not None else one, other))
        kept.append(likelihood_kept(figures[-1], compare(other, other)))
    positions = sum(figure.positions for figure in figures)
    compared = sum(figure.compared for figure in figures)
    divergence = sum(figure.kl * figure.compared for figure in figures) / max(1, compared)
    return {
        "agreement": BenchmarkFigures(
            grades={f"text-{number}": figure.agreement for number, figure in enumerate(figures)},
            passes=[],
            details={"kl": divergence, "positions": float(positions), "compared": float(compared)},
        ),
        "perplexity": BenchmarkFigures(
            grades={f"text-{number}": value for number, value in enumerate(kept)},
            passes=[],
            details={"perplexity": perplexity(figures)},
        ),
    }
