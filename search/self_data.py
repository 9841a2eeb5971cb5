"""Conversations that the base model writes itself: calibration and training data where none are given.

A model's own words lie where its own distribution lies, and keep more of it than other people's data do (facts in
docs/steps.md). The user's turn is written too: the template up to where a user would begin is all it is given (Magpie,
Xu et al., 2024). Knows nothing of steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from compressors.data import read_conversations
from compressors.step import Conversations, Infeasible
from compressors.store import Store
from evaluation.engine import Engine

SENTINEL = "\ue000"  # a private-use character that no template holds
QUESTION_TOKENS, ANSWER_TOKENS = 256, 512
DRAWS = 3  # times as many questions as rows at most: some are empty or written twice
LEAST = 8  # rows below which there is nothing to calibrate on


class WroteNothing(Infeasible):
    """The base did not write enough that can be used, and from the same seed never will."""


def self_written(engine: Engine, base: Path, base_key: str, rows: int, store: Store, seed: int = 0) -> Conversations:
    """`rows` conversations of one question and answer, drawn at temperature 1; written once and kept in the store.

    Raises `WroteNothing` when fewer than 8 come about, and remembers it.
    """
    engine.start()
    parts = [base_key, rows, seed, engine.about["engine"], engine.about["device"]]
    parts += [engine.settings.max_model_len, QUESTION_TOKENS, ANSWER_TOKENS]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    path = store.cache / "self" / f"{name}.jsonl"
    with store.lock(f"self-{name}"):
        if (refusal := store.refusal(f"self-{name}")) is not None:
            raise WroteNothing(refusal)
        if not path.exists():
            engine.load(base)
            written = write(engine, opening_of(base), rows, seed)
            if len(written) < LEAST:
                told = (
                    f"calibration self: {base} wrote {len(written)} usable conversations of {rows}; give data instead"
                )
                store.remember_refusal(f"self-{name}", told)
                raise WroteNothing(told)
            path.parent.mkdir(exist_ok=True)
            aside = path.with_suffix(".part")
            lines = [json.dumps({"conversations": row}, ensure_ascii=False) + "\n" for row in written]
            aside.write_text("".join(lines), encoding="utf-8")
            aside.rename(path)
    return read_conversations(path)


def opening_of(base: Path) -> str:
    """What stands before a user's first word, by the model's own template; its first token where it has none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    if not tokenizer.chat_template:
        return str(tokenizer.bos_token or tokenizer.eos_token or "\n")
    text = tokenizer.apply_chat_template([{"role": "user", "content": SENTINEL}], tokenize=False)
    return str(text).partition(SENTINEL)[0]


def write(engine: Engine, opening: str, rows: int, seed: int) -> list[list[dict[str, str]]]:
    """Questions drawn after `opening`, each once, and the model's answers to them."""
    questions: list[str] = []
    for draw in range(DRAWS):
        drawn = engine.complete([opening] * rows, QUESTION_TOKENS, 1.0, seed + draw * rows)
        questions = list(dict.fromkeys([*questions, *(answer.text.strip() for answer in drawn)]))
        questions = [question for question in questions if question]
        if len(questions) >= rows:
            break
    asked = questions[:rows]
    return [row for row in _answered(engine, asked) if row[1]["content"]]


def _answered(engine: Engine, questions: Sequence[str]) -> list[list[dict[str, str]]]:
    from evaluation.benchmarks.base import Decoding

    chats = [[{"role": "user", "content": question}] for question in questions]
    decoding = Decoding(max_tokens=ANSWER_TOKENS, temperature=1.0)
    answers = engine.generate(chats, [decoding] * len(chats)).answers if chats else []
    return [
        [*chat, {"role": "assistant", "content": answer.text.strip()}]
        for chat, answer in zip(chats, answers, strict=True)
    ]
