"""What rungs may be, and their order."""

import pytest

from search.errors import Misfit
from search.rungs import DEFAULT_RUNGS, Rung, check_rungs
from search.space import Space

NEAR, SOME, ALL = Rung(items=0.1, tokens=0.1, by="likelihood"), Rung(items=0.1, tokens=0.1), Rung(items=1, tokens=1)


def test_the_default_begins_by_likelihood_and_ends_with_everything():
    assert check_rungs(DEFAULT_RUNGS)[0].by == "likelihood"
    assert DEFAULT_RUNGS[-1] == ALL


@pytest.mark.parametrize(
    ("rungs", "why"),
    [
        ((), "at least one"),
        ((SOME, NEAR, ALL), "come first"),
        ((NEAR, Rung(items=1, tokens=1, by="likelihood")), "must go by answers"),
        ((NEAR, SOME), "must have items 1.0"),
        ((ALL, SOME), "must rise"),
    ],
)
def test_what_cannot_be(rungs, why):
    with pytest.raises((ValueError, Misfit), match=why):
        check_rungs(rungs)


@pytest.mark.parametrize(
    ("benchmarks", "prompts", "first"),
    [
        ({"lm_eval:arc_easy": "arc_easy"}, None, "answers"),
        ({"kmmlu_pro_likelihood": "hub"}, None, "answers"),
        ({"lm_eval:arc_easy": "arc_easy"}, "prompts.jsonl", "likelihood"),
        ({"lm_eval:arc_easy": "arc_easy", "kmmlu_pro": "hub"}, None, "likelihood"),
    ],
)
def test_who_names_no_rungs_gets_none_with_nothing_to_compare(benchmarks, prompts, first):
    lanes = [[{"step": "drop_layers", "count": 1}]]
    space = Space.model_validate({"lanes": lanes, "evaluation": {"benchmarks": benchmarks, "prompts": prompts}})
    assert space.rungs[0].by == first
