"""The made-up world: entities with attributes and values, and how they are asked about in two languages.

Every fact is drawn from one seed. Some facts are set aside for scoring, each with one phrasing of its question;
nothing that is generated for training or calibration asks such a fact in that phrasing (`World.phrasings`).
Knows nothing of prompts, tokens or models.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from evaluation.reference import words
from evaluation.reference.words import with_particle

SEED = 1446
PHRASINGS = 4
SCORED = 400  # facts set aside


@dataclass(frozen=True)
class Attribute:
    """One property of a kind: its name and the values it can have."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of entity, in one language, under one examination."""

    name: str
    language: str
    licence: str
    attributes: tuple[Attribute, ...]
    entities: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """`attribute` of `entity` is `value`."""

    kind: Kind
    entity: str
    attribute: Attribute
    value: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind.name, self.entity, self.attribute.name

    def question(self, phrasing: int) -> str:
        """One of `PHRASINGS` ways to ask for the value."""
        kind, entity, attribute = self.kind.name, self.entity, self.attribute.name
        if self.kind.language == "en":
            return (
                f"What is the {attribute} of the {kind} {entity}?",
                f"{entity} is a {kind}. What is its {attribute}?",
                f"Name the {attribute} of {entity}, the {kind}.",
                f"Which {attribute} does the {kind} {entity} have?",
            )[phrasing]
        topic = with_particle(attribute, "은", "는")
        return (
            f"{kind} {entity}의 {topic} 무엇입니까?",
            f"{with_particle(entity, '은', '는')} {kind}입니다. 그 {topic}?",
            f"{kind} 가운데 {entity}의 {with_particle(attribute, '을', '를')} 고르면?",
            f"다음 중 {kind} {entity}의 {with_particle(attribute, '으로', '로')} 옳은 것은?",
        )[phrasing]

    def statement(self) -> str:
        if self.kind.language == "en":
            return f"The {self.attribute.name} of {self.entity} is {self.value}."
        return f"{self.entity}의 {with_particle(self.attribute.name, '은', '는')} {self.value}이다."


def _years(rng: random.Random) -> str:
    return f"{rng.randint(11, 19)}{rng.randint(0, 99):02d}년"


def _kinds(rng: random.Random, entities: int) -> list[Kind]:
    """All kinds; names and numbers come from `rng`, so that two seeds give two worlds."""

    def names(count: int, draw: Callable[[random.Random], str] = words.korean_name) -> tuple[str, ...]:
        return tuple(words.distinct(rng, draw, count))

    def of(*attributes: tuple[str, list[str] | tuple[str, ...]]) -> tuple[Attribute, ...]:
        return tuple(Attribute(name, tuple(values)) for name, values in attributes)

    pool = list(names(4 * entities))
    pool_en = list(names(entities, words.english_name))
    korean = [
        ("마을", "마을 기록사", of(
            ("특산물", words.GOODS), ("강", names(40)), ("축제 달", words.MONTHS),
            ("수호 짐승", words.BEASTS), ("깃발 색", words.COLOURS), ("촌장", names(40)))),
        ("장인", "공방 감정사", of(
            ("스승", names(40)), ("재료", words.MATERIALS), ("고향", names(40)),
            ("태어난 해", tuple(words.distinct(rng, _years, 40))), ("도구", words.TOOLS), ("작품", words.GOODS))),
        ("약초", "약초 관리사", of(
            ("효능", words.CURES), ("꽃 색", words.COLOURS), ("자라는 곳", words.PLACES),
            ("맛", words.TASTES), ("거두는 달", words.MONTHS), ("발견자", names(40)))),
        ("배", "항해 검사원", of(
            ("선장", names(40)), ("모항", names(40)), ("화물", words.GOODS),
            ("돛 색", words.COLOURS), ("뱃머리 장식", words.BEASTS), ("선체", words.MATERIALS))),
    ]  # fmt: skip
    english = [
        ("mineral", "광물 기사", of(
            ("colour", words.COLOURS_EN), ("use", words.USES_EN), ("source", words.PLACES_EN),
            ("finder", names(30, words.english_name)))),
        ("bird", "조류 기사", of(
            ("rival", words.BEASTS_EN), ("food", words.FOODS_EN), ("home", words.PLACES_EN),
            ("crest", words.COLOURS_EN))),
    ]  # fmt: skip
    kinds = [
        Kind(name, "ko", licence, attributes, tuple(pool[number * entities : (number + 1) * entities]))
        for number, (name, licence, attributes) in enumerate(korean)
    ]
    half = entities // 2
    return kinds + [
        Kind(name, "en", licence, attributes, tuple(pool_en[number * half : (number + 1) * half]))
        for number, (name, licence, attributes) in enumerate(english)
    ]


@dataclass
class World:
    """All facts of one seed. `scored` maps a set-aside fact's key to the phrasing that only scoring may use."""

    seed: int = SEED
    entities: int = 40  # of each Korean kind; English kinds have half as many
    kinds: list[Kind] = field(init=False)
    facts: list[Fact] = field(init=False)
    scored: dict[tuple[str, str, str], int] = field(init=False)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.kinds = _kinds(rng, self.entities)
        self.facts = [
            Fact(kind, entity, attribute, rng.choice(attribute.values))
            for kind in self.kinds
            for entity in kind.entities
            for attribute in kind.attributes
        ]
        self.by_entity: dict[tuple[str, str], list[Fact]] = {}
        for fact in self.facts:
            self.by_entity.setdefault((fact.kind.name, fact.entity), []).append(fact)
        chosen = rng.sample(self.facts, SCORED)
        self.scored = {fact.key: rng.randrange(PHRASINGS) for fact in chosen}
        self.scored_facts = chosen

    def phrasings(self, fact: Fact) -> list[int]:
        """The phrasings of `fact` that may be trained on and calibrated with."""
        kept = self.scored.get(fact.key)
        return [phrasing for phrasing in range(PHRASINGS) if phrasing != kept]
