"""What a sensitivity table speaks for."""

import pytest

from search.advice import advice_of, advised
from search.outcome import Outcome
from search.recipe import Recipe


@pytest.mark.parametrize(
    ("table", "spared"),
    [([1.0, 1.0, 1.0, 1.0], 0), ([9.0, 1.0, 1.0, 1.0], 1), ([9.0, 1.0, 1.0, 1.0, 1.0, 9.0], 2), ([0.0, 0.0], 0)],
)
def test_layers_that_stand_out_are_counted(table, spared):
    assert advice_of({"sensitivity": table, "sensitive_layers": [0]}) == {"sensitive": spared}


def test_a_step_that_measured_none_advises_nothing():
    assert advice_of({"perplexity": 3.0}) == {}


def test_a_ledger_line_carries_it_to_the_searcher():
    stages = [
        {"step": "drop_layers", "cached": False, "seconds": 1.0},
        {"step": "quantize", "cached": True, "seconds": 2.0, "advice": {"sensitive": 3}},
    ]
    line = {"rung": 0, "score": 0.5, "stages": stages}
    assert Outcome.of("stopped", line).advice == {"quantize.sensitive": 3}


def test_a_space_without_such_a_choice_has_no_use_for_it(space):
    recipe = Recipe.of([{"step": "quantize", "scheme": "W8A8"}])
    assert list(advised(space, recipe, {"quantize.sensitive": 3})) == []
