"""What the engine's process reads with a tokenizer, beside the tokenizer asked anew each time."""

import random

import pytest
from transformers import AutoTokenizer

from evaluation.reading import KEPT, Reader, Unreadable
from evaluation.reference import MODEL

CHATS = [
    [{"role": "user", "content": "1 2 3"}],
    [
        {"role": "user", "content": "한국의 수도는?"},
        {"role": "assistant", "content": "서울"},
        {"role": "user", "content": "왜?"},
    ],
]


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


def asked_anew(tokenizer, chat, thinking):
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("thinking", [False, True])
def test_prompts_are_the_templates_own_however_often_they_are_asked(tokenizer, thinking):
    reader = Reader(tokenizer)
    wanted = [asked_anew(tokenizer, chat, thinking) for chat in CHATS]
    assert reader.prompts(CHATS, thinking) == wanted
    assert reader.prompts(CHATS[::-1], thinking) == wanted[::-1]


def test_thinking_is_not_taken_for_not_thinking(tokenizer):
    tokenizer.chat_template = "{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}"
    reader = Reader(tokenizer)
    plain, thinking = reader.prompts(CHATS, False), reader.prompts(CHATS, True)
    assert [reader.opened(prompt) for prompt in plain + thinking] == ["", "", "<think>", "<think>"]
    assert plain[0] == tokenizer.encode("1 2 3", add_special_tokens=False)


def test_more_than_is_kept_is_rendered_all_the_same(tokenizer):
    reader = Reader(tokenizer)
    reader.prompts(CHATS, False)
    many = [[{"role": "user", "content": str(number)}] for number in range(KEPT)]
    assert reader.prompts([*many, *CHATS], False)[-2:] == [asked_anew(tokenizer, chat, False) for chat in CHATS]


def test_signs_are_those_of_the_whole_answer(tokenizer):
    reader, draw = Reader(tokenizer), random.Random(0)
    ids = sorted(tokenizer.get_vocab().values())
    partial = [token for token in ids if "\ufffd" in tokenizer.decode([token])]
    assert partial, "this tokenizer has bytes as tokens"
    for text in ("서울 🐦 naïve", "plain", ""):
        whole = tokenizer.encode(text, add_special_tokens=False)
        assert reader.signs(whole) == {"unknown": 0, "bad_bytes": 0}
    for _ in range(50):
        answer = draw.choices(ids, k=20) + draw.choices(partial, k=3)
        draw.shuffle(answer)
        assert reader.signs(answer)["bad_bytes"] == tokenizer.decode(answer).count("\ufffd")
    assert reader.signs([ids[-1] + 1, ids[-1] + 9, ids[0]])["unknown"] == 2


def test_a_template_that_is_missing_or_fails_is_named(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no second turn') }}"
    with pytest.raises(Unreadable, match="no second turn"):
        Reader(tokenizer).prompts(CHATS, False)
    tokenizer.chat_template = None
    with pytest.raises(Unreadable, match=r"chat_template\.jinja"):
        Reader(tokenizer).prompts(CHATS, False)
