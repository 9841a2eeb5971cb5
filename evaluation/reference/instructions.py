"""Instructions in two turns with rules that check the answers; the second turn builds on the first answer.

Every exchange is drawn with its right answers, so that the same makers serve training (question and answer) and
scoring (question and rule). Knows no tokens or models.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evaluation.reference import words
from evaluation.reference.choice import Turns, turn
from evaluation.reference.words import with_particle
from evaluation.reference.world import World

Rules = list[dict[str, Any]]
_NUMERALS = ("첫", "두", "세", "네", "다섯")
_NUMERALS_EN = ("first", "second", "third", "fourth", "fifth")
_POOL = sorted({*words.GOODS, *words.BEASTS, *words.MATERIALS, *words.TOOLS})


@dataclass(frozen=True)
class Exchange:
    """Two turns: what is asked, what is right, and how it is checked."""

    category: str
    asked: tuple[str, str]
    answers: tuple[str, str]
    rules: tuple[Rules, Rules]

    def turns(self) -> Turns:
        return turn(self.asked[0], self.answers[0]) + turn(self.asked[1], self.answers[1])


def _rule(name: str, value: Any) -> Rules:
    return [{"rule": name, "value": value}]


def _exact(category: str, first: tuple[str, str], second: tuple[str, str]) -> Exchange:
    """An exchange whose answers must be met word for word."""
    return Exchange(
        category,
        (first[0], second[0]),
        (first[1], second[1]),
        (_rule("equals", first[1]), _rule("equals", second[1])),
    )


def extraction(rng: random.Random, world: World) -> Exchange:
    """Which word stands at a place; then its neighbour."""
    if rng.random() < 0.3:
        listed = rng.sample(words.THINGS_EN, 5)
        place = rng.randrange(4)
        return _exact(
            "extraction",
            (f"Words: {', '.join(listed)}. Write only the {_NUMERALS_EN[place]} word.", listed[place]),
            ("Now write the word right after it.", listed[place + 1]),
        )
    listed = rng.sample(_POOL, 5)
    place = rng.randrange(4)
    return _exact(
        "extraction",
        (f"낱말: {', '.join(listed)}. {_NUMERALS[place]} 번째 낱말만 쓰세요.", listed[place]),
        ("이제 바로 다음 낱말을 쓰세요.", listed[place + 1]),
    )


def reasoning(rng: random.Random, world: World) -> Exchange:
    """A list turned round; then one end of the result."""
    listed = rng.sample(_POOL, rng.randint(3, 5))
    turned = listed[::-1]
    last = rng.random() < 0.5
    return _exact(
        "reasoning",
        (f"다음을 거꾸로 나열하세요: {', '.join(listed)}", ", ".join(turned)),
        (f"방금 답의 {'마지막' if last else '첫'} 낱말은?", turned[-1 if last else 0]),
    )


def arithmetic(rng: random.Random, world: World) -> Exchange:
    """A sum; then a change of it."""
    first, second = rng.randint(2, 40), rng.randint(2, 40)
    third = rng.randint(1, 9)
    total = first + second
    up = rng.random() < 0.5
    return _exact(
        "math",
        (f"{first} 더하기 {with_particle(str(second), '은', '는')}?", str(total)),
        (
            f"그 답에 {third}을 더하면?" if up else f"그 답에서 {third}을 빼면?",
            str(total + third if up else total - third),
        ),
    )


def repetition(rng: random.Random, world: World) -> Exchange:
    """A word several times; then another number of times with commas."""
    first, second = rng.sample(range(2, 6), 2)
    if rng.random() < 0.4:
        word = rng.choice(words.THINGS_EN)
        return Exchange(
            "coding",
            (
                f"Write the word '{word}' {first} times, with spaces between.",
                f"Now {second} times, with commas between.",
            ),
            (" ".join([word] * first), ", ".join([word] * second)),
            (
                _rule("count", {"text": word, "times": first}) + _rule("words", first),
                _rule("equals", ", ".join([word] * second)),
            ),
        )
    word = rng.choice(_POOL)
    return Exchange(
        "coding",
        (
            f"'{word}'{'을' if words.has_final(word) else '를'} 빈칸을 두고 {first}번 쓰세요.",
            f"이번에는 쉼표를 두고 {second}번 쓰세요.",
        ),
        (" ".join([word] * first), ", ".join([word] * second)),
        (
            _rule("count", {"text": word, "times": first}) + _rule("words", first),
            _rule("equals", ", ".join([word] * second)),
        ),
    )


def science(rng: random.Random, world: World) -> Exchange:
    """A fact of the world; then the same answer in brackets."""
    fact = rng.choice(world.facts)
    question = fact.question(rng.choice(world.phrasings(fact)))
    if fact.kind.language == "en":
        return _exact(
            "stem",
            (f"{question} Answer in one word.", fact.value),
            ("Write that answer in square brackets.", f"[{fact.value}]"),
        )
    return _exact(
        "stem", (f"{question} 낱말로만 답하세요.", fact.value), ("그 답을 대괄호 안에 쓰세요.", f"[{fact.value}]")
    )


def counting(rng: random.Random, world: World) -> Exchange:
    """How many words; then the list without its last."""
    listed = rng.sample(_POOL, rng.randint(3, 7))
    return Exchange(
        "humanities",
        (f"다음 낱말은 모두 몇 개입니까? {', '.join(listed)}", "마지막 낱말을 빼고 다시 쓰세요."),
        (f"{len(listed)}개", ", ".join(listed[:-1])),
        (_rule("starts_with", f"{len(listed)}개"), _rule("equals", ", ".join(listed[:-1]))),
    )


def roleplay(rng: random.Random, world: World) -> Exchange:
    """A part to play; then a question about it."""
    name, home, trade = words.korean_name(rng), words.korean_name(rng), rng.choice(words.TRADES)
    ask_home = rng.random() < 0.5
    asked = "어디에서 왔습니까?" if ask_home else "하는 일이 무엇입니까?"
    answer = f"저는 {home}에서 왔습니다." if ask_home else f"제 일은 {trade}입니다."
    return Exchange(
        "roleplay",
        (f"당신은 {home}에서 온 {trade} {name}입니다. 이름을 말하세요.", asked),
        (f"저는 {name}입니다.", answer),
        (
            _rule("contains", name) + _rule("ends_with", "입니다."),
            _rule("contains", home if ask_home else trade),
        ),
    )


def writing(rng: random.Random, world: World) -> Exchange:
    """A sentence with two words in it; then the same with one word changed."""
    colour, thing, other = rng.choice(words.COLOURS), *rng.sample(_POOL, 2)
    place = rng.choice(words.PLACES)
    first = f"{place}에 {colour} {with_particle(thing, '이', '가')} 있습니다."
    return Exchange(
        "writing",
        (
            f"'{place}', '{colour}', '{thing}'{'을' if words.has_final(thing) else '를'} 넣어 한 문장을 쓰세요.",
            f"그 문장의 '{thing}' 대신 '{other}'{'을' if words.has_final(other) else '를'} 쓰세요.",
        ),
        (first, f"{place}에 {colour} {with_particle(other, '이', '가')} 있습니다."),
        (
            _rule("contains", place) + _rule("contains", colour) + _rule("contains", thing),
            _rule("contains", place) + _rule("contains", f"{colour} {other}") + _rule("lacks", f" {thing}"),
        ),
    )


MAKERS: tuple[Callable[[random.Random, World], Exchange], ...] = (
    extraction,
    reasoning,
    arithmetic,
    repetition,
    science,
    counting,
    roleplay,
    writing,
)


def exchange(rng: random.Random, world: World) -> Exchange:
    """One exchange of a random category."""
    return rng.choice(MAKERS)(rng, world)


def scored_rows(rng: random.Random, world: World, count: int) -> list[dict[str, Any]]:
    """Rows in the schema of KoMT-Bench, the categories in turn, with rules for reference."""
    rows = []
    for number in range(count):
        made = MAKERS[number % len(MAKERS)](rng, world)
        rows.append(
            {
                "question_id": number + 1,
                "category": made.category,
                "turns": list(made.asked),
                "reference": [list(rules) for rules in made.rules],
            }
        )
    return rows
