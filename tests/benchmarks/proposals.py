"""How long a proposal takes, which results wait for: `python -m tests.benchmarks.proposals --searcher gp`.

On the preset `contest`, after so many trials whose scores are made up.
"""

from __future__ import annotations

import random
import time
from statistics import median
from typing import Annotated

import typer

from search.outcome import Outcome
from search.searchers import SEARCHERS
from search.space_file import load_space


def main(
    searcher: Annotated[str, typer.Option(help="a searcher's name")] = "gp",
    trials: Annotated[str, typer.Option(help="after how many, with commas between")] = "50,1000",
    timed: Annotated[int, typer.Option(min=1, help="proposals that are timed; told is their median")] = 5,
) -> None:
    space, draw = load_space("contest"), random.Random(0)
    proposer = SEARCHERS[searcher](space, 0)
    proposer.seeds.clear()
    for count in sorted(map(int, trials.split(","))):
        while len(proposer.tried) <= count:  # the base is among them
            if (recipe := space.sample(proposer.chance)).hash not in proposer.tried:
                score = draw.random()
                figures = {"score": score, "perf_norm": score, "speed_norm": score, "size_bytes": 1e9, "seconds": 100.0}
                proposer.tell(recipe, Outcome.model_validate({"status": "finished", "rung": 3, **figures}))
        took = []
        for _ in range(timed):
            begin = time.perf_counter()
            proposer.propose()
            took.append(time.perf_counter() - begin)
        print(f"{searcher}, after {count} trials: {median(took):.2f} s a proposal")


if __name__ == "__main__":
    typer.run(main)
