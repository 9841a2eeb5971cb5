"""The Gaussian process against its formulas, written out."""

import numpy as np
import pytest
from scipy import integrate
from scipy.stats import norm

from search.forms import recipes_of
from search.outcome import Outcome
from search.recipe import Recipe
from search.searchers import gaussian
from search.searchers.gaussian import Gaussian, Posterior, improvement
from search.searchers.kernel import ALONE, PAIRS, WHOLE, Places
from search.space_file import load_space
from tests.search.searchers.test_conformance import value, whole


def test_recipes_that_share_steps_are_more_alike(space):
    places = Places(space)
    drop, quantized = {"step": "drop_layers", "count": 2}, {"step": "quantize", "scheme": "W8A8"}
    one, near, far = (
        Recipe.of(steps)
        for steps in (
            [drop, quantized],
            [{"step": "drop_layers", "count": 1}, quantized],
            [{"step": "distill", "tokens": 1000, "lr": 1e-3}],
        )
    )
    alike = places.alike(places.of([one]), places.of([one, near, far]))[0]
    assert alike[0] == pytest.approx(ALONE + PAIRS + WHOLE)
    assert alike[0] > alike[1] > alike[2] > 0


def test_the_kernel_is_one(space):
    """A covariance: symmetric, and no combination of recipes has less than no variance."""
    places = Places(whole(space))
    points = places.of(list(recipes_of(whole(space))))
    matrix = places.alike(points, points)
    assert np.allclose(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9
    assert points.min() >= 0
    assert points.max() <= 1


def test_pairs_are_all_products_of_two_steps(space):
    places = Places(space)
    points = places.of(list(recipes_of(whole(space)))[:6])
    steps = [np.exp(-((points[:, None, part] - points[None, :, part]) ** 2).sum(-1) / (2 * 0.7**2))
             for part in places.parts]  # fmt: skip
    pairs = [steps[one] * steps[other] for one in range(len(steps)) for other in range(one)]
    written = ALONE * np.mean(steps, axis=0) + PAIRS * np.mean(pairs, axis=0) + WHOLE * np.prod(steps, axis=0)
    assert np.allclose(places.alike(points, points), written)


def test_ends_of_ranges_and_lanes_have_places(space):
    low, high = (Recipe.of([{"step": "distill", "tokens": 1000, "lr": lr}]) for lr in (1e-4, 1e-3))
    assert not np.allclose(*Places(space).of([low, high]))
    lanes = space.model_copy(update={"steps": (), "seeds": (), "lanes": tuple(one.to_list() for one in (low, high))})
    points = Places(lanes).of([low, high])
    assert points.tolist() == [[1, 0], [0, 1]]


def test_the_posterior_is_that_of_the_formula(space):
    places, random = Places(whole(space)), np.random.default_rng(0)
    points = places.of(list(recipes_of(whole(space))))
    seen, asked = points[:8], points[8:14]
    rungs, scores = np.array([0, 0, 1, 1, 2, 2, 2, 0]), random.normal(size=8)
    low = rungs < 2
    shared = gaussian.CONSTANT + places.alike(seen, seen)
    for one in range(8):
        for other in range(8):
            if low[one] and low[other]:
                shared[one, other] += gaussian.OFF * (rungs[one] == rungs[other])
                shared[one, other] += gaussian.OFF_STEPS * places.alike(seen[[one]], seen[[other]])[0, 0]
        shared[one, one] += gaussian.LOW_NOISE if low[one] else gaussian.NOISE
    across = gaussian.CONSTANT + places.alike(asked, seen)
    own = gaussian.CONSTANT + places.alike(asked, asked)
    inverse = np.linalg.inv(shared)
    mean, deviation = Posterior(places, seen, rungs, scores, 2).at(asked)
    assert np.allclose(mean, across @ inverse @ scores)
    assert np.allclose(deviation**2, np.diag(own - across @ inverse @ across.T))


@pytest.mark.parametrize(("mean", "deviation", "best"), [(0.0, 1.0, 0.5), (2.0, 0.3, 1.0), (-1.0, 0.5, 0.5)])
def test_expected_improvement_is_the_integral(mean, deviation, best):
    def gain(score):
        return max(score - best, 0) * norm.pdf(score, mean, deviation)

    wanted, _ = integrate.quad(gain, best, best + 12)
    assert improvement(np.array([mean]), np.array([deviation]), best)[0] == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_low_rungs_that_are_off_by_one_amount_mislead_nobody(space):
    """Everything looks worse at a low rung; what was measured in full is not better for having been so."""
    spread = whole(space)
    proposer, recipes = Gaussian(spread), list(recipes_of(spread))
    best = max(recipes, key=value)
    for number, recipe in enumerate(recipes):
        if recipe != best:
            proposer.note(recipe)
            proposer.see(recipe, Outcome(status="stopped", rung=0, score=value(recipe) - 0.2))
            if number % 3 == 0:
                proposer.tell(recipe, Outcome(status="finished", rung=len(spread.rungs) - 1, score=value(recipe)))
    assert proposer.propose() == best


def test_side_by_side_it_asks_different_questions(space):
    proposer = Gaussian(whole(space).model_copy(update={"seeds": ()}))
    for _ in range(6):
        recipe = proposer.propose()
        proposer.tell(recipe, Outcome(status="finished", rung=2, score=value(recipe)))
    together = [proposer.propose() for _ in range(4)]
    kinds = {tuple(step.step for step in recipe.steps) for recipe in together}
    assert len(kinds) > 1


def test_a_large_space_is_searched_in_what_is_drawn_of_it():
    proposer = Gaussian(load_space("contest").model_copy(update={"seeds": ()}), seed=1)
    found = []
    for _ in range(12):
        found.append(proposer.propose())
        score = 1 / (1 + len(found[-1].steps)) + 0.1 * any(step.step == "quantize" for step in found[-1].steps)
        proposer.tell(found[-1], Outcome(status="finished", rung=3, score=score))
    assert len({recipe.hash for recipe in found}) == 12
    late = [len(recipe.steps) for recipe in found[-4:]]
    assert max(late) <= min(3, max(len(recipe.steps) for recipe in found[:5]))


def test_of_equal_promise_the_cheap_one_is_tried(space):
    """Training takes ten times as long and brings nothing: what trains is tried last."""
    proposer = Gaussian(whole(space).model_copy(update={"seeds": ()}))
    recipes = list(recipes_of(proposer.space))
    trains = [any(step.step == "distill" for step in recipe.steps) for recipe in recipes]
    for recipe, slow in list(zip(recipes, trains, strict=True))[::3]:
        proposer.note(recipe)
        proposer.tell(recipe, Outcome(status="finished", rung=2, score=0.5, seconds=100.0 if slow else 10.0))
    seconds = proposer._seconds(recipes)
    assert min(seconds[trains]) > 3 * max(seconds[~np.array(trains)])
    proposed = [proposer.propose() for _ in range(4)]
    assert not any(step.step == "distill" for recipe in proposed for step in recipe.steps)
