"""Ko-LongRAG: answers from long Korean documents, some of which hold no answer. Knows no judge: F1 by words.

Answers are compared as bags of words after normalisation: NFKC (Hangul composed, full-width forms narrowed), lower
case, punctuation to spaces, split at white space; particles stay, since the published set names no rule that cuts
them. With c words in common (counted as often as both have them),

    precision = c / words of the answer,  recall = c / words of the reference,  F1 = 2·p·r / (p + r),

and 0 when nothing is common. Where the reference says that the documents hold no answer, saying so is worth
1 and anything else 0; a refusal where there is an answer is worth 0. Beside the mean F1 stand the share of answers
that are the reference word for word, and of the items without an answer the share that was seen to have none.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evaluation.benchmarks.base import BadData, Decoding, Item
from evaluation.benchmarks.choice_reader import after_thinking
from evaluation.benchmarks.hub import Published
from evaluation.benchmarks.refusal import refuses


def words(text: str) -> list[str]:
    """`text` normalised and split: NFKC, lower case, every punctuation mark or symbol a space."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return "".join(" " if unicodedata.category(sign)[0] in "PS" else sign for sign in plain).split()


def token_f1(answer: str, reference: str) -> float:
    """F1 of two bags of words, in 0..1; 1 when both are empty."""
    said, wanted = words(answer), words(reference)
    common = sum((Counter(said) & Counter(wanted)).values())
    if not common:
        return float(not said and not wanted)
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _joined(row: dict[str, Any], number: int, column: str, separator: str) -> str:
    value = row[column]
    if not isinstance(value, str | list | tuple):
        raise BadData(f"ko_longrag, row {number}: column {column} must be a text or a list of texts, not {value!r:.40}")
    return value if isinstance(value, str) else separator.join(str(part) for part in value)


class KoLongRag:
    """LGAI-EXAONE/Ko-LongRAG; the value is the mean F1."""

    name = "ko_longrag"
    columns = ("id", "titles", "context", "question", "answer", "prompt", "task")
    published = Published(name="LGAI-EXAONE/Ko-LongRAG", config="ko_longrag", split="test")
    max_tokens = 64

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        found = []
        for number, row in enumerate(rows):
            prompt = str(row["prompt"])
            missing = [field for field in ("{context}", "{question}") if field not in prompt]
            if missing:
                raise BadData(f"{self.name}, row {number}: column prompt lacks {', '.join(missing)}")
            texts = {
                "{titles}": _joined(row, number, "titles", ", "),
                "{context}": _joined(row, number, "context", "\n\n"),
                "{question}": str(row["question"]),
            }
            # Each field once, so that a text which happens to hold "{question}" is left as it is.
            parts = re.split(r"(\{(?:titles|context|question)\})", prompt)
            prompt = "".join(texts.get(part, part) for part in parts)
            found.append(
                Item(
                    id=f"{self.name}-{row['id']}",
                    turns=(prompt,),
                    reference=str(row["answer"]),
                    category=str(row["task"]),
                )
            )
        return found

    def decoding(self, item: Item) -> Decoding:
        return Decoding(max_tokens=self.max_tokens)

    def grade(self, item: Item, answers: tuple[str, ...]) -> float:
        """Token F1 with the reference; 1 or 0 where the reference is that there is no answer."""
        answer = after_thinking(answers[0]) if answers else ""
        if refuses(item.reference):
            return float(refuses(answer))
        return 0.0 if refuses(answer) else token_f1(answer, item.reference)

    def exact(self, item: Item, answers: tuple[str, ...]) -> bool:
        """Whether the answer is the reference, word for word; where there is none, whether it says so."""
        answer = after_thinking(answers[0]) if answers else ""
        if refuses(item.reference):
            return refuses(answer)
        return words(answer) == words(item.reference)

    def details(self, items: Sequence[Item], answers: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """`exact_match` over all items; `unanswerable`, the share of those without an answer handled right, if any."""
        exact = [self.exact(item, one) for item, one in zip(items, answers, strict=True)]
        without = [right for item, right in zip(items, exact, strict=True) if refuses(item.reference)]
        found = {"exact_match": sum(exact) / len(exact)}
        return found | ({"unanswerable": sum(without) / len(without)} if without else {})
