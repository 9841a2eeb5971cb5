"""Predictions of a model whose vocabulary was trimmed, told in the ids of the model before the first trim.

A trimmed model's folder holds kept_tokens.json: those ids, in the order of its own. Knows nothing of how it came to be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from evaluation.engine import ScoredText

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

    Before and behind each token that both have in the same place they have read the same text: there the model's row
    stands for the base's; where none does, nothing agrees. The log-probability of all the model's tokens between two
    such places is that of the base's tokens there, in equal parts. A text of which the model, needing more tokens,
    saw less within the limit is charged at its own mean for the rest.
    """
    if model.tokens == base.tokens:
        return model
    blocks = SequenceMatcher(None, base.tokens, model.tokens, autojunk=False).get_matching_blocks()
    # numbers of rows: row k speaks after token k, and the one before a block after what the two cut otherwise
    shared = [(one.a + k, one.b + k) for one in blocks for k in range(-1, one.size) if one.size]
    shared = sorted({(theirs, mine) for theirs, mine in shared if theirs >= 0 and mine >= 0})
    rows = len(base.actual)
    top_ids: list[list[int]] = [[-1] for _ in range(rows)]  # no token's id
    top_logprobs = [[0.0] for _ in range(rows)]
    mean = sum(model.actual) / len(model.actual)
    actual = [mean] * rows
    before, place = shared[0] if shared and shared[0][0] == 0 else (0, 0)  # a first token cut finer is not predicted
    for theirs, mine in shared:
        if theirs < rows and mine < len(model.actual):
            top_ids[theirs], top_logprobs[theirs] = model.top_ids[mine], model.top_logprobs[mine]
        if theirs > before:
            actual[before:theirs] = [sum(model.actual[place:mine]) / (theirs - before)] * (theirs - before)
            before, place = theirs, mine
    return ScoredText(tokens=base.tokens, actual=actual, top_ids=top_ids, top_logprobs=top_logprobs)
