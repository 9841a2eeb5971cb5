"""Texts as a model will meet them: conversations and files, rendered through its chat template, with their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.data import read_records
from compressors.step import Conversations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def corpus_texts(
    tokenizer: PreTrainedTokenizerBase, data: Conversations, files: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """(name, text) of all that `data` and `files` hold.

    A conversation is rendered whole, and up to each of its user's turns with the answer still to come, thinking off
    and on: so engines ask. Any other string in a file counts as it stands and as a question put to the model.
    """
    for number, row in enumerate(data.rows):
        for text in _rendered(tokenizer, row):
            yield f"conversation {number + 1}", text
    for file in files:
        for number, record in enumerate(read_records(Path(file))):
            for text in _texts(tokenizer, record):
                yield f"{file} row {number + 1}", text


def _texts(tokenizer: PreTrainedTokenizerBase, record: Any) -> Iterator[str]:
    if _is_conversation(record):
        yield from _rendered(tokenizer, [{"role": turn["role"], "content": turn["content"]} for turn in record])
    elif isinstance(record, str):
        yield record
        if tokenizer.chat_template:
            yield from _rendered(tokenizer, [{"role": "user", "content": record}])
    elif isinstance(record, Mapping):
        for value in record.values():
            yield from _texts(tokenizer, value)
    elif isinstance(record, list | tuple):
        for value in record:
            yield from _texts(tokenizer, value)


def _is_conversation(record: Any) -> bool:
    return (
        isinstance(record, list | tuple)
        and bool(record)
        and all(
            isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
            for turn in record
        )
    )


def _rendered(tokenizer: PreTrainedTokenizerBase, row: Sequence[dict[str, str]]) -> Iterator[str]:
    if not tokenizer.chat_template:
        yield "".join(turn["content"] + "\n" for turn in row)
        return
    yield str(tokenizer.apply_chat_template(list(row), tokenize=False))
    for end, turn in enumerate(row):
        if turn["role"] == "user":
            for thinking in (False, True):
                yield str(
                    tokenizer.apply_chat_template(
                        list(row[: end + 1]), tokenize=False, add_generation_prompt=True, enable_thinking=thinking
                    )
                )
