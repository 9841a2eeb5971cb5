"""Hard answers, labelled by hand: what a careful person would say they mean, None where nobody could tell.

Each line of hard_answers.jsonl names its reader: `option` (of so many), `refusal`, `rating` or `korean`.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from evaluation.benchmarks.choice_reader import chosen_option
from evaluation.benchmarks.komt_judged import is_korean
from evaluation.benchmarks.refusal import refuses
from evaluation.benchmarks.verdict import rating_of

ROWS = [
    json.loads(line) for line in Path(__file__).with_name("hard_answers.jsonl").read_text(encoding="utf-8").splitlines()
]
READERS = {
    "option": lambda row: chosen_option(row["answer"], row["of"]),
    "refusal": lambda row: refuses(row["answer"]),
    "rating": lambda row: rating_of(row["answer"]),
    "korean": lambda row: is_korean(row["answer"]),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_hard_answer_is_read_as_labelled(reader):
    wrong = [
        f"{row['about']}: {row['answer']!r} is {row['label']}, was read as {READERS[reader](row)}"
        for row in ROWS
        if row["reader"] == reader and READERS[reader](row) != row["label"]
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_enough_of_them_and_no_two_alike():
    assert len(ROWS) >= 220
    assert max(Counter((row["reader"], row["answer"], row.get("of")) for row in ROWS).values()) == 1
    assert min(Counter(row["reader"] for row in ROWS).values()) >= 20


@pytest.mark.parametrize(
    "sign", ["[", "(", "{", "<", "1", "정답", "번", "\\boxed{", "아니", "1번,", "도 ", " ", "답 ", "3 ", "a 3\n", "\n"]
)
def test_long_nonsense_is_read_in_no_time(sign):
    """A model that repeats itself to the end of its context must not hang a search."""
    import time

    text = sign * (20_000 // len(sign))
    begin = time.perf_counter()
    for read in (lambda one: chosen_option(one, 5), refuses, rating_of, is_korean):
        read(text)
    assert time.perf_counter() - begin < 10
