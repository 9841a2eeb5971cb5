"""The page on spaces is what the code says: every field with default and description, and an example that is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from search.recipe import Recipe
from search.space import Space
from search.space_page import MODELS, START, page

DOCS = Path(__file__).parents[2] / "docs" / "space.md"


def test_the_page_is_current():
    assert DOCS.read_text(encoding="utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_told_with_its_description(model):
    lines = page().splitlines()
    for name, info in model.model_fields.items():
        assert info.description
        assert [line for line in lines if line.startswith(f"| `{name}` |") and line.endswith(f"| {info.description} |")]


def test_no_model_that_a_space_holds_is_left_out():
    """A new one would be told as `a step`, which only the values of steps are."""
    assert not [line for line in page().splitlines() if line.startswith("|") and "a step |" in line]
    assert "| `rungs` | list, see rungs | `[{items: 0.1," in page()
    assert "| `price` | number, > 0 | none |" in page()


def test_the_example_is_a_space():
    space = Space.model_validate(yaml.safe_load(START.split("```")[1].removeprefix("yaml")))
    assert space.seed_recipes() == [Recipe.of([{"step": "quantize", "scheme": "W8A8"}])]
    assert [step.step for step in space.steps] == ["drop_layers", "distill", "quantize"]
