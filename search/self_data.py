"""Conversations that the base model writes itself: calibration and training data where none are given.

A model's own words lie where its own distribution lies, and in one report kept 91 % of it where other people's data
kept 82 % (8B, 6 of 32 blocks pruned). The user's turn is written too: the template up to where a user would begin is
all it is given (Magpie, Xu et al., 2024). Knows nothing of steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from compressors.artifact import file_sha256
from compressors.data import read_conversations
from compressors.step import Conversations, Infeasible
from compressors.store import Store
from evaluation.engine import Engine

SENTINEL = "\ue000"  # a private-use character that no template holds
QUESTION_TOKENS, ANSWER_TOKENS = 256, 512
DRAWS = 3  # times as many questions as rows at most: some are empty or written twice
CUT = "length"  # why vLLM ended what met its limit
LEAST = 8  # rows below which there is nothing to calibrate on


class WroteNothing(Infeasible):
    """The base did not write enough that can be used, and from the same seed never will."""


def self_written(engine: Engine, base: Path, base_key: str, rows: int, store: Store, seed: int = 0) -> Conversations:
    """`rows` conversations of one question and answer, drawn at temperature 1; written once and kept in the store.

    Raises `WroteNothing` when fewer than 8 come about, and remembers it.
    """
    engine.start()
    parts = [base_key, rows, seed, engine.about["engine"], engine.about["device"]]
    parts += [engine.settings.max_model_len, file_sha256(Path(__file__))]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    path = store.cache / "self" / f"{name}.jsonl"
    with store.lock(f"self-{name}"):
        if (refusal := store.refusal(f"self-{name}")) is not None:
            raise WroteNothing(refusal)
        store.tables_in()
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
            store.agree(path)
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
    """Questions drawn after `opening`, each once, and the model's answers to them; what was cut off is left out.

    A model that learned from answers cut at a limit would learn to end in the middle of a sentence.
    """
    found: list[list[dict[str, str]]] = []
    seen: set[str] = set()
    for draw in range(DRAWS):
        drawn = engine.complete([opening] * rows, QUESTION_TOKENS, 1.0, seed + draw * rows)
        fresh = dict.fromkeys(one.text.strip() for one in drawn if one.finish != CUT)
        asked = [question for question in fresh if question and question not in seen]
        seen.update(asked)
        found += _answered(engine, asked)
        if len(found) >= rows:
            break
    return found[:rows]


def _answered(engine: Engine, questions: Sequence[str]) -> list[list[dict[str, str]]]:
    from evaluation.benchmarks.base import Decoding

    chats = [[{"role": "user", "content": question}] for question in questions]
    decoding = Decoding(max_tokens=ANSWER_TOKENS, temperature=1.0)
    answers = engine.generate(chats, [decoding] * len(chats)).answers if chats else []
    return [
        [*chat, {"role": "assistant", "content": answer.text.strip()}]
        for chat, answer in zip(chats, answers, strict=True)
        if answer.text.strip() and answer.finish != CUT
    ]
