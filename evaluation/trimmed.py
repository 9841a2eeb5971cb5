"""Predictions of a model whose vocabulary was trimmed, told in the ids of the model before the first trim.

A trimmed model's folder holds kept_tokens.json: those ids, in the order of its own. Knows nothing of how it came to be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from evaluation.protocol import ScoredText

KEPT = "kept_tokens.json"


def kept_tokens(folder: Path) -> list[int] | None:
    """The original id of each of the model's tokens; None for a model never trimmed."""
    path = folder / KEPT
    return [int(number) for number in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else None


def in_original_ids(text: ScoredText, kept: Sequence[int]) -> ScoredText:
    """`text` with every token id replaced by the original one."""
    return text.model_copy(
        update={
            "tokens": [kept[token] for token in text.tokens],
            "top_ids": [[kept[token] for token in row] for row in text.top_ids],
        }
    )


def recut(model: ScoredText, base: ScoredText) -> ScoredText:
    """`model` told in the base's tokens, where the two cut a text differently: a row for each row of the base.

    After a character that is the end of a token for both, they have read the same: there the model's row stands for
    the base's; where none does, no token is told, and nothing agrees. The log-probability of all the model's tokens
    between two such places is that of the base's tokens there, in equal parts. A text of which the model, needing more
    tokens, saw less within the limit is charged at its own mean for the rest. Raises `ValueError` where a tokenizer
    does not tell its ends.
    """
    if model.tokens == base.tokens:
        return model
    if not (model.ends and base.ends):
        raise ValueError("two tokenizers cut a text differently, and one of them, not a fast one, does not tell where")
    after = {end: k for k, end in enumerate(model.ends)}  # of tokens that share a character's end, the last has read it
    # numbers of rows: row k speaks after token k
    shared = sorted((k, after[end]) for end, k in {e: k for k, e in enumerate(base.ends)}.items() if end in after)
    rows = len(base.actual)
    top_ids: list[list[int]] = [[] for _ in range(rows)]
    top_logprobs: list[list[float]] = [[] for _ in range(rows)]
    mean = sum(model.actual) / len(model.actual)
    actual = [mean] * rows
    # the base's first token is not predicted: nor is the model's, or the several that it needs for it
    before, place = shared[0] if shared and shared[0][0] == 0 else (0, 0)
    for theirs, mine in shared:
        if theirs < rows and mine < len(model.actual):
            top_ids[theirs], top_logprobs[theirs] = model.top_ids[mine], model.top_logprobs[mine]
        if theirs > before:
            actual[before:theirs] = [sum(model.actual[place:mine]) / (theirs - before)] * (theirs - before)
            before, place = theirs, mine
    return ScoredText(tokens=base.tokens, actual=actual, top_ids=top_ids, top_logprobs=top_logprobs)
