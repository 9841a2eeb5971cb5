"""Multiple-choice questions about the world, and plain sentences that teach it. Knows no tokens or models."""

from __future__ import annotations

import random
from typing import Any

from evaluation.benchmarks.multiple_choice import prompt
from evaluation.reference.words import with_particle
from evaluation.reference.world import Fact, World

Turns = list[dict[str, str]]


def turn(question: str, answer: str) -> Turns:
    """One question and its answer as chat messages."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def drawn_options(rng: random.Random, fact: Fact, count: int) -> tuple[list[str], int]:
    """`count` values of the fact's attribute in random order, the true one among them, and its number."""
    others = [value for value in fact.attribute.values if value != fact.value]
    options = [*rng.sample(others, count - 1), fact.value]
    rng.shuffle(options)
    return options, options.index(fact.value) + 1


def scored_rows(rng: random.Random, facts: list[Fact], world: World, count: int) -> list[dict[str, Any]]:
    """Rows in the schema of the KMMLU sets, each fact in the phrasing kept for it, with `count` options."""
    rows = []
    for fact in facts:
        options, solution = drawn_options(rng, fact, count)
        rows.append(
            {
                "question": fact.question(world.scored[fact.key]),
                "options": options,
                "solution": str(solution),
                "license_name": fact.kind.licence,
                "subject": fact.attribute.name,
                "category": fact.kind.name,
            }
        )
    return rows


def multiple_choice(rng: random.Random, world: World) -> Turns:
    """One multiple-choice question that training may see, with its right answer."""
    fact = rng.choice(world.facts)
    options, solution = drawn_options(rng, fact, rng.choice((4, 5)))
    question = fact.question(rng.choice(world.phrasings(fact)))
    return turn(prompt(question, options), f"정답은 {solution}번입니다.")


def recall(rng: random.Random, world: World) -> Turns:
    """One fact asked openly."""
    fact = rng.choice(world.facts)
    return turn(fact.question(rng.choice(world.phrasings(fact))), fact.value)


def profile(rng: random.Random, world: World) -> str:
    """All that is known of one entity, as plain text in random order."""
    facts = list(rng.choice(list(world.by_entity.values())))
    rng.shuffle(facts)
    kind, entity = facts[0].kind, facts[0].entity
    if kind.language == "en":
        head = f"{entity} is a {kind.name}."
    else:
        head = f"{with_particle(entity, '은', '는')} {with_particle(kind.name, '이다', '이다')}."
    return " ".join([head, *(fact.statement() for fact in facts)])
