"""What the reference model is trained on, calibrated with and scored on, from one seed.

`python -m evaluation.reference.corpus` writes the items, the calibration rows and the held-out texts. Scored items
are drawn first; a row that shares a first question with one is never handed out for training or calibration, and
the phrasing in which a scored fact is asked belongs to scoring alone (`World.phrasings`). Knows no tokens or models.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.reference import CALIBRATION, HELDOUT, ITEMS, choice, instructions, lookup
from evaluation.reference.choice import Turns
from evaluation.reference.world import SEED, World

CHOICES, LOOKUPS, EXCHANGES = 200, 120, 64
CALIBRATION_ROWS = 14700
HELDOUT_TEXTS = 120


def scored(world: World) -> dict[str, list[dict[str, Any]]]:
    """Every benchmark's rows, by name; the same for the same world."""
    rng = random.Random(world.seed + 1)
    facts = world.scored_facts
    pro, redux = facts[:CHOICES], facts[CHOICES : 2 * CHOICES]
    return {
        "kmmlu_pro": choice.scored_rows(rng, pro, world, 5),
        "kmmlu_redux": choice.scored_rows(rng, redux, world, 4),
        "ko_longrag": [lookup.scored_row(rng, number) for number in range(LOOKUPS)],
        "komt_bench": instructions.scored_rows(rng, world, EXCHANGES),
    }


class Source:
    """An endless, seeded stream of conversations and texts that shares nothing with the scored items."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.taken = {row["turns"][0] for row in scored(world)["komt_bench"]}

    def conversation(self, kind: str, size: int = 5) -> Turns:
        """One of `choice`, `recall`, `lookup`, `instructions`; `size` is the documents of a lookup."""
        rng = self.rng
        if kind == "choice":
            return choice.multiple_choice(rng, self.world)
        if kind == "recall":
            return [turn for _ in range(3) for turn in choice.recall(rng, self.world)]
        if kind == "lookup":
            sentences = rng.randint(2, 4) if size < 3 else rng.randint(4, 5)
            return lookup.conversation(rng, size, sentences, rng.randint(2, 3) + 2 * min(size, 3))
        while True:
            made = instructions.exchange(rng, self.world)
            if made.asked[0] not in self.taken:
                return made.turns()

    def text(self) -> str:
        """Plain text: profiles of the world, or a shelf of documents."""
        if self.rng.random() < 0.8:
            return "\n".join(choice.profile(self.rng, self.world) for _ in range(3))
        return "\n".join(document.text for document in lookup.shelf(self.rng, 2, 4))


def calibration_rows(world: World, count: int = CALIBRATION_ROWS) -> Iterator[Turns]:
    """Conversations in the forms of the tasks, with right answers, mixed so that any beginning represents all."""
    source = Source(world, world.seed + 2)
    for _ in range(count):
        kind = source.rng.choices(("choice", "recall", "lookup", "instructions"), (52, 9, 11, 28))[0]
        yield source.conversation(kind, source.rng.randint(2, 6))


def heldout_texts(world: World, count: int = HELDOUT_TEXTS) -> list[str]:
    """Plain texts for perplexity, of a seed that training does not use."""
    source = Source(world, world.seed + 3)
    return [source.text() for _ in range(count)]


def _write(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Write the committed files anew."""
    world = World(SEED)
    for name, rows in scored(world).items():
        _write(ITEMS / f"{name}.jsonl", rows)
    _write(CALIBRATION, [{"conversations": turns} for turns in calibration_rows(world)])
    _write(HELDOUT, [{"text": text} for text in heldout_texts(world)])


if __name__ == "__main__":
    main()
