"""Conversations: read, rendered, tokenized, what the assistant said marked. Knows nothing of models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.step import Conversations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMN = "conversations"
ROWS = (".jsonl", ".json", ".parquet")  # kinds of files that hold rows
KINDS = (".txt", ".md", *ROWS)  # and those that are one text
HUB = "hub:"  # prefix of a data set's id on the hub, such as hub:LGAI-EXAONE/MANTA-1M
HUB_ROWS = 5_000  # rows taken of a data set from the hub, its first
SENTINEL = "\ue000"  # a private-use character that no text holds

Row = tuple[dict[str, str], ...]


class OutOfReach(ValueError):
    """The hub does not give a data set: gated, unknown there, or no network."""


@dataclass(frozen=True)
class Sample:
    """One tokenized conversation: token ids, and for each whether the assistant said it."""

    ids: tuple[int, ...]
    answer: tuple[bool, ...]


def read_conversations(path: Path, limit: int | None = None) -> Conversations:
    """Read the column `conversations` (list of {role, content}) of a .jsonl, .json or .parquet file.

    `limit` keeps the first rows only. Raises `ValueError` naming the file when it is of another kind, cannot be
    read, lacks the column, holds a row of another form, or has no rows.
    """
    if path.suffix not in ROWS:
        raise ValueError(f"{path} is neither .jsonl, .json nor .parquet")
    records = read_records(path, COLUMN)
    return conversations([_row(record, path, number) for number, record in enumerate(records[:limit])])


def read_records(path: Path, column: str | None = None) -> list[Any]:
    """Rows of a .jsonl, .json or .parquet file; the whole of a .txt or .md file as one row.

    A .json file that holds no list is one row. Of Parquet, `column` alone is read where it is given.
    Raises `ValueError` naming the file when it is absent, of another kind, unreadable or empty, or Parquet without
    that column.
    """
    if path.suffix not in KINDS:
        raise ValueError(f"{path} is none of {', '.join(KINDS)}")
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        if path.suffix == ".parquet":
            records = _parquet(path, column)
        elif path.suffix == ".jsonl":
            records = _lines(path)
        elif path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            records = content if isinstance(content, list) else [content]
        else:
            records = [path.read_text(encoding="utf-8")]
    except (ValueError, OSError) as fault:  # what json, UTF-8 and pyarrow raise
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {' '.join(str(fault).split())}") from fault
    if not records:
        raise ValueError(f"{path} has no rows")
    return records


def _parquet(path: Path, column: str | None) -> list[Any]:
    import pyarrow.parquet as parquet

    have = parquet.read_schema(path).names
    if column is not None and column not in have:
        raise ValueError(f"no column '{column}' (it has: {', '.join(have)})")
    rows: list[Any] = parquet.read_table(path, columns=None if column is None else [column]).to_pylist()
    return rows


def _lines(path: Path) -> list[Any]:
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number + 1} is not JSON: {error}") from None
    return records


def load_conversations(source: str) -> Conversations:
    """From a file, or the first rows of a hub data set's train split (`hub:OWNER/NAME`, read as it streams).

    Raises `ValueError` as `read_conversations`, and when the hub does not give the data set.
    """
    if not source.startswith(HUB):
        return read_conversations(Path(source))
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name = source.removeprefix(HUB)
    try:
        records = list(load_dataset(name, split="train", streaming=True).take(HUB_ROWS))
    except (OSError, ValueError, DatasetNotFoundError) as fault:
        reason = " ".join(str(fault).split())[:200]
        told = f"the hub does not give {name} ({reason}); download it elsewhere and name its file"
        raise OutOfReach(told) from fault
    if not records:
        raise ValueError(f"the hub's {name} has no rows in its train split: name another data set or a file")
    return conversations([_row(record, Path(name), number) for number, record in enumerate(records)])


def conversations(rows: Iterable[Sequence[Mapping[str, str]]]) -> Conversations:
    """Rows already in memory, with their fingerprint (sha256 of their canonical JSON)."""
    frozen = tuple(tuple({"role": t["role"], "content": t["content"]} for t in row) for row in rows)
    digest = hashlib.sha256()
    for row in frozen:
        digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode("utf-8"))
        digest.update(b"\n")
    return Conversations(rows=frozen, fingerprint=digest.hexdigest())


def tokenize(tokenizer: PreTrainedTokenizerBase, row: Row, max_length: int) -> Sample:
    """Render `row` through the chat template and tokenize it, cut to `max_length` tokens.

    A turn's answer tokens are those of its content as rendered plus the end-of-turn token behind it (without
    which a student never learns to stop). Where they lie is found by rendering once more with that content
    replaced by a character no text holds: what both renderings share before and after is not the answer.
    That works for templates that rewrite earlier turns, where prefixes of the conversation do not.
    """
    text, spans = _render(tokenizer, row)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"][:max_length], encoded["offset_mapping"][:max_length]
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    said = [any(start < b and a < end for start, end in spans) for a, b in offsets]
    ends = [i > 0 and said[i - 1] and not said[i] and ids[i] in special for i in range(len(ids))]
    answer = [content or end for content, end in zip(said, ends, strict=True)]
    return Sample(ids=tuple(ids), answer=tuple(answer))


def _render(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[str, list[tuple[int, int]]]:
    """The text of a row and the character spans of its assistant contents.

    A tokenizer without a chat template gets the contents joined by newlines.
    """
    if not tokenizer.chat_template:
        return _plain(row)
    text = _apply(tokenizer, row)
    spans = []
    for index, turn in enumerate(row):
        if turn["role"] != "assistant" or not turn["content"]:
            continue
        marked = (*row[:index], {"role": "assistant", "content": SENTINEL}, *row[index + 1 :])
        before, found, after = _apply(tokenizer, marked).partition(SENTINEL)
        if found and text.startswith(before) and text.endswith(after):
            spans.append((len(before), len(text) - len(after)))
    return text, spans


def _apply(tokenizer: PreTrainedTokenizerBase, row: Row) -> str:
    return str(tokenizer.apply_chat_template(list(row), tokenize=False))


def _plain(row: Row) -> tuple[str, list[tuple[int, int]]]:
    text, spans = "", []
    for turn in row:
        if turn["role"] == "assistant":
            spans.append((len(text), len(text) + len(turn["content"])))
        text += turn["content"] + "\n"
    return text, spans


def _row(record: Any, path: Path, number: int) -> Row:
    turns = record.get(COLUMN) if isinstance(record, Mapping) else None
    if turns is None:
        have = ", ".join(sorted(record)) if isinstance(record, Mapping) else type(record).__name__
        raise ValueError(f"{path} row {number + 1} has no column '{COLUMN}' (it has: {have})")
    good = isinstance(turns, list) and turns
    if not good or not all(isinstance(t, Mapping) and {"role", "content"} <= set(t) for t in turns):
        raise ValueError(f"{path} row {number + 1}: '{COLUMN}' must be a list of {{role, content}}")
    for turn in turns:
        for name in ("role", "content"):
            if not isinstance(turn[name], str):
                given = f"{path} row {number + 1}: {name} {repr(turn[name])[:80]}"
                raise ValueError(f"{given} is no text; make it one or leave the row out")
    return tuple({"role": t["role"], "content": t["content"]} for t in turns)
