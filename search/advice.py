"""What a sensitivity table says of how many decoder layers to spare from quantization, and the recipe it speaks for.

A trial that spares layers has measured what each of them loses (`compressors.sensitivity`); once it is measured in
full, the search tries how many stand out. Layers that `keep` holds whole are counted with the rest. Knows nothing of
searchers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search.recipe import Recipe
from search.space import Replay, Space

OUTSTANDING = 2.0  # times the mean of all layers: what a layer loses that is to be spared


def advice_of(notes: Mapping[str, Any]) -> dict[str, int]:
    """By field of the step that wrote `notes`, the value that its sensitivity table speaks for, if it has one."""
    table: Sequence[float] = notes.get("sensitivity") or ()
    return {"sensitive": sum(kl > OUTSTANDING * sum(table) / len(table) for kl in table)} if table else {}


def advised(space: Space, recipe: Recipe, advice: Mapping[str, int]) -> Iterator[tuple[str, Recipe]]:
    """`recipe` with one number changed to the choice nearest to `advice` (by STEP.FIELD), and the step so changed.

    What the change opens up has its first choice. A number that is a range is left to the searcher.
    """
    if space.lanes or not advice:
        return
    params = space.params_of(recipe)
    for knob in space.knobs:
        wanted = advice.get(f"{space.steps[knob.step].step}.{knob.field}")
        if wanted is None or knob.name not in params or knob.range is not None:
            continue
        nearest = min(knob.options, key=lambda one: (abs(one - wanted), one))
        changed = space.sample(Replay(params | {knob.name: nearest}))
        step = next(step for step in changed.steps if step.step == space.steps[knob.step].step)
        yield step.model_dump_json(), changed
