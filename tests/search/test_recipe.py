"""A recipe's text and hash must not depend on how it was written down."""

import pytest

from search.recipe import Recipe

W8A8 = {"step": "quantize", "scheme": "W8A8"}


def test_defaults_and_order_of_keys_do_not_change_the_hash():
    short = Recipe.of([{"step": "drop_layers", "count": 2}])
    long = Recipe.of([{"by": "block_influence", "count": 2, "step": "drop_layers"}])
    assert short == long
    assert short.hash == long.hash


def test_order_of_steps_changes_the_hash():
    drop = {"step": "drop_layers", "count": 2}
    context = {"step": "context", "max_position_embeddings": 1024}
    assert Recipe.of([drop, context]).hash != Recipe.of([context, drop]).hash


def test_a_rung_scales_only_what_can_be_scaled():
    recipe = Recipe.of([{"step": "drop_layers", "count": 2}, {"step": "distill", "tokens": 1000}, W8A8])
    assert [step.get("tokens") for step in recipe.at(0.1).to_list()] == [None, 100, None]
    assert recipe.at(1.0) == recipe


def test_it_is_read_back_from_its_own_text():
    recipe = Recipe.of([{"step": "distill", "tokens": 50_000, "lr": 3e-4}, W8A8])
    assert Recipe.of(recipe.to_list()) == recipe


def test_no_steps_is_the_base():
    assert str(Recipe.of([])) == "base"


def test_tables_show_what_differs_from_the_defaults():
    assert str(Recipe.of([{"step": "drop_layers", "count": 2}, W8A8])) == "drop_layers(2) → quantize(W8A8)"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"step": "shrink"}, "shrink"),
        ({"step": "drop_layers", "number": 2}, "number"),
        ({"step": "drop_layers", "count": 0}, "count"),
        ({"step": "quantize", "scheme": "W3A3"}, "W3A3"),
    ],
)
def test_what_does_not_fit_is_named(step, said):
    with pytest.raises(ValueError, match=said):
        Recipe.of([step])
