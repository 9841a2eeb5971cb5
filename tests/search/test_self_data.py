"""The base writes its own calibration data, through the real engine, once."""

import pytest

from compressors.step import Infeasible
from compressors.store import Store
from evaluation.protocol import Answer, Generation
from evaluation.reference import MODEL
from search.self_data import opening_of, self_written, write


def test_the_opening_is_the_template_up_to_the_users_first_word():
    assert opening_of(MODEL).endswith("[|user|]\n")


def test_it_is_written_once(engine, tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = self_written(engine, MODEL, "tiny", 16, store)
    assert 8 <= len(first.rows) <= 16
    assert all([turn["role"] for turn in row] == ["user", "assistant"] for row in first.rows)
    assert all(turn["content"] for row in first.rows for turn in row)
    assert len({row[0]["content"] for row in first.rows}) == len(first.rows)
    monkeypatch.setattr(engine, "load", lambda folder: pytest_fails())
    assert self_written(engine, MODEL, "tiny", 16, store) == first


def test_a_base_that_writes_too_little_is_refused_and_not_asked_again(engine, tmp_path, monkeypatch):
    store = Store(tmp_path)
    with pytest.raises(Infeasible, match=r"wrote \d usable conversations of 4; give data"):
        self_written(engine, MODEL, "tiny", 4, store)
    monkeypatch.setattr(engine, "load", lambda folder: pytest_fails())
    with pytest.raises(Infeasible, match="give data"):
        self_written(engine, MODEL, "tiny", 4, store)


class Talker:
    """An engine whose model ends some of what it says, and is cut off in the rest."""

    def complete(self, texts, max_tokens, temperature, seed):
        return [said(f"question {seed + n}", "length" if n % 4 == 0 else "stop") for n in range(len(texts))]

    def generate(self, chats, decodings):
        answers = [said("an answer", "length" if "3" in chat[0]["content"] else "stop") for chat in chats]
        return Generation(seconds=1.0, cpu_seconds=1.0, answers=answers)


def said(text, finish):
    return Answer(text=text, tokens=3, prompt_tokens=3, finish=finish)


def test_what_was_cut_off_is_not_kept():
    rows = write(Talker(), "", 8, 0)
    questions = [int(row[0]["content"].split()[1]) for row in rows]
    assert len(questions) == len(set(questions)) == 8
    assert not any(number % 8 in (0, 4) or "3" in str(number) for number in questions)


def pytest_fails():
    raise AssertionError("what is in the store is not written again")
