"""Likeness to the base's answers."""

import pytest

from evaluation.benchmarks.base import BadData
from evaluation.benchmarks.likeness import Likeness, similarity


@pytest.mark.parametrize(
    ("answer", "base", "expected"),
    [
        ("Seoul is the capital", "Seoul is the capital", 1.0),
        ("", "", 1.0),
        ("", "Seoul", 0.0),
        ("a b c d", "a b x d", 2 * 3 / 8),
        ("a b", "a b c d", 2 * 2 / 6),
    ],
)
def test_similarity_by_hand(answer, base, expected):
    assert similarity(answer, base) == pytest.approx(expected)


def test_frequent_words_of_long_answers_count():
    # difflib's autojunk would drop them from 200 words on
    base = " ".join(["again"] * 300)
    assert similarity(" ".join(["again"] * 150), base) == pytest.approx(2 * 150 / 450)


def test_the_reference_is_what_the_base_said():
    (item,) = Likeness().items([{"prompt": "Name a colour."}])
    told = item.model_copy(update={"reference": ["red"]})
    assert Likeness().grade(told, ("red",)) == 1.0
    assert Likeness().grade(told, ("blue",)) == 0.0


def test_an_empty_prompt_is_named():
    with pytest.raises(BadData, match="row 1"):
        Likeness().items([{"prompt": "a"}, {"prompt": " "}])
