"""KoMT-Bench as its authors grade it: a judge rates each turn from 1 to 10 (single-answer grading).

Four templates: plain and with reference answers (math, reasoning, coding), for the first turn and the second. An answer
that is not Korean counts as the root of its rating, but where the question asks for another language (138 and 140).
Knows of the judge only that it rates prompts.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from evaluation.benchmarks.base import BadData, Decoding, Item, read_rows
from evaluation.benchmarks.choice_reader import after_thinking

TEMPLATES = ("single-v1", "single-v1-multi-turn", "single-math-v1", "single-math-v1-multi-turn")
WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
OTHER_LANGUAGE = frozenset({"138", "140"})
# Code, formulas and links are in no language.
NO_LANGUAGE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|https?://\S+", re.DOTALL
)
KOREAN = 0.3  # share of words from which an answer counts as Korean: "attention은 query로" is, foreign terms are common
HIGHEST = 10.0


class Rates(Protocol):
    """What a judge does."""

    def rate(self, prompts: Sequence[tuple[str, str]]) -> list[float]: ...


class KoMtJudged:
    """LGAI-EXAONE/KoMT-Bench; the value is the mean rating over ten. `judge` None: for looking at items only."""

    name = "komt_bench"
    columns = ("question_id", "category", "turns")
    max_tokens = 1024

    def __init__(self, judge: Rates | None, templates: Path, references: Path | None) -> None:
        self.judge = judge
        self.templates = read_templates(templates)
        self.references = read_references(references) if references is not None else {}

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        found = []
        for number, row in enumerate(rows):
            name, category, turns = str(row["question_id"]), str(row["category"]), row["turns"]
            if isinstance(turns, str) or not hasattr(turns, "__len__") or len(turns) != 2:
                raise BadData(f"{self.name}, row {number}: column turns must be a list of two turns")
            reference = _two(row.get("reference")) or self.references.get(name)
            if category in WITH_REFERENCE and reference is None:
                raise BadData(
                    f"{self.name}, row {number}: {category} is graded beside a reference, and question {name} has "
                    "none: give two in column reference, or a file under judge.references"
                )
            found.append(
                Item(
                    id=f"{self.name}-{name}",
                    turns=tuple(str(turn) for turn in turns),
                    reference={"answers": reference, "question": name},
                    category=category,
                )
            )
        return found

    def decoding(self, item: Item) -> Decoding:
        return Decoding(max_tokens=self.max_tokens, temperature=TEMPERATURES.get(item.category, 0.0))

    def grade(self, item: Item, answers: tuple[str, ...]) -> float:
        return self.grade_all([item], [answers])[0]

    def grade_all(self, items: Sequence[Item], answers: Sequence[tuple[str, ...]]) -> list[float]:
        """Of each item the mean of its two turns' ratings over ten. Raises `JudgeFault`."""
        assert self.judge is not None  # a suite without one leaves this benchmark out
        asked = [self.prompt(item, one, turn) for item, one in zip(items, answers, strict=True) for turn in (0, 1)]
        ratings = iter(self.judge.rate(asked))
        return [
            sum(worth(next(ratings), _said(one, turn), item.reference["question"]) for turn in (0, 1)) / 2
            for item, one in zip(items, answers, strict=True)
        ]

    def prompt(self, item: Item, answers: tuple[str, ...], turn: int) -> tuple[str, str]:
        """What the judge is told of one turn: system prompt and user's."""
        kind = "single-math-v1" if item.category in WITH_REFERENCE else "single-v1"
        template = self.templates[kind + ("-multi-turn" if turn else "")]
        known = item.reference["answers"] or ("", "")
        fields = {
            "question": item.turns[0],
            "answer": _said(answers, 0),
            "question_1": item.turns[0],
            "question_2": item.turns[1],
            "answer_1": _said(answers, 0),
            "answer_2": _said(answers, 1),
            "ref_answer_1": known[0],
            "ref_answer_2": known[1],
        }
        # not str.format: answers hold braces, and so do templates
        text = re.sub(r"\{(\w+)\}", lambda found: fields.get(found[1], found[0]), template["prompt_template"])
        return template["system_prompt"], text


def worth(rating: float, answer: str, question: str) -> float:
    """A rating in (0, 1]: over ten, its root where the answer should have been Korean and is not."""
    kept = rating if question in OTHER_LANGUAGE or is_korean(answer) else math.sqrt(rating)
    return kept / HIGHEST


def is_korean(text: str) -> bool:
    """Whether at least `KOREAN` of the words hold Hangul, code and formulas aside; so is a text without any word."""
    words = [
        word for word in NO_LANGUAGE.sub(" ", unicodedata.normalize("NFC", text)).split() if any(map(str.isalpha, word))
    ]
    hangul = sum(any("가" <= sign <= "힣" or "ㄱ" <= sign <= "ㆎ" for sign in word) for word in words)
    return not words or hangul >= KOREAN * len(words)


def read_templates(path: Path) -> dict[str, dict[str, str]]:
    """The four templates by name, from KoMT-Bench's judge_prompts_ko.jsonl. Raises `BadData`."""
    columns = ("name", "system_prompt", "prompt_template")
    rows = read_rows(path, columns)
    for number, row in enumerate(rows):
        for column in columns:
            if not isinstance(row[column], str):
                raise BadData(f"{path}, row {number}: column {column} must be a text, not {row[column]!r:.40}")
    found = {row["name"]: row for row in rows}
    missing = [name for name in TEMPLATES if name not in found]
    if missing:
        raise BadData(f"{path} lacks the judge's template {missing[0]}")
    return {name: found[name] for name in TEMPLATES}


def read_references(path: Path) -> dict[str, tuple[str, str]]:
    """Reference answers by question, from KoMT-Bench's reference_gpt-4.jsonl. Raises `BadData`."""
    found = {}
    for number, row in enumerate(read_rows(path, ("question_id", "choices"))):
        choices = row["choices"]
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise BadData(f"{path}, row {number}: column choices must be a list that begins with a mapping of turns")
        turns = _two(choices[0].get("turns"))
        if turns is not None:
            found[str(row["question_id"])] = turns
    return found


def needs_judge(rows: list[dict[str, Any]]) -> bool:
    """Whether these rows are the benchmark's own: not a rule for each turn, as the reference model's rows have."""
    from evaluation.benchmarks.komt_bench import rules_of

    return any(rules_of(row.get("reference")) is None for row in rows)


def _two(value: Any) -> tuple[str, str] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, (list, tuple)) and len(value) >= 2 and all(isinstance(one, str) for one in value[:2]):
        return value[0], value[1]
    return None


def _said(answers: tuple[str, ...], turn: int) -> str:
    return after_thinking(answers[turn]).strip() if turn < len(answers) else ""
