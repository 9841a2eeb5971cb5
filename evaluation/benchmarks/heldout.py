"""Held-out text: how far has a compressed model's prediction of the next token moved from the base model's?

Works on log-probabilities that an engine reported; knows nothing of the engine. No labels are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Scored(Protocol):
    """A text of n tokens seen by a model: n - 1 rows."""

    @property
    def tokens(self) -> list[int]: ...
    @property
    def actual(self) -> list[float]: ...
    @property
    def top_ids(self) -> list[list[int]]: ...
    @property
    def top_logprobs(self) -> list[list[float]]: ...


class TextFigures(NamedTuple):
    """Per text: what it adds to the means."""

    agreement: float  # share of positions whose likeliest token is the base's
    kl: float  # nats a token compared, KL(base || model) over the base's likeliest tokens and the rest as one
    nll: float  # nats a token, of the text itself under the model
    positions: int
    compared: int  # positions at which the model told its likeliest tokens; a trimmed one that cuts finer may not


def compare(model: Scored, base: Scored) -> TextFigures:
    """Figures of one text. Raises `ValueError` when the two models cut it into different tokens."""
    if model.tokens != base.tokens:
        raise ValueError("model and base tokenize the held-out text differently: their predictions cannot be compared")
    positions = len(base.actual)
    same = sum(mine[:1] == theirs[:1] for mine, theirs in zip(model.top_ids, base.top_ids, strict=True))
    divergences = [
        coarse_kl(base.top_ids[i], base.top_logprobs[i], model.top_ids[i], model.top_logprobs[i])
        for i in range(positions)
        if model.top_ids[i]
    ]
    divergence = sum(divergences) / max(1, len(divergences))
    return TextFigures(same / positions, divergence, -sum(model.actual) / positions, positions, len(divergences))


def coarse_kl(
    base_ids: Sequence[int], base_logprobs: Sequence[float], ids: Sequence[int], logprobs: Sequence[float]
) -> float:
    """KL(base || model) in nats over {each token the base reports, everything else as one outcome}.

    A token that the model does not report is at most as likely to it as the least it does. Merging outcomes can only
    lower a KL divergence (log-sum inequality), as a probability put too high does, so this is a lower bound of the KL
    over the whole vocabulary, close to it when the reported tokens hold nearly all of the mass.
    """
    reported = dict(zip(ids, logprobs, strict=True))
    least = min(logprobs)
    total, rest_base, rest_model = 0.0, 1.0, 1.0
    for token, log_p in zip(base_ids, base_logprobs, strict=True):
        log_q = reported.get(token)
        p = math.exp(log_p)
        total += p * (log_p - (least if log_q is None else log_q))
        rest_base -= p
        rest_model -= math.exp(log_q) if log_q is not None else 0.0
    if rest_base > 1e-9:
        total += rest_base * (math.log(rest_base) - math.log(max(rest_model, 1e-9)))
    return max(total, 0.0)


def likelihood_kept(model: TextFigures, base: TextFigures) -> float:
    """The base's perplexity of a text over the model's, at most 1: what of the base's certainty is left."""
    return min(1.0, math.exp(base.nll - model.nll))


def perplexity(figures: Sequence[TextFigures]) -> float:
    """exp of the mean negative log-likelihood over all tokens of all texts."""
    positions = sum(figure.positions for figure in figures)
    return math.exp(sum(figure.nll * figure.positions for figure in figures) / positions)
