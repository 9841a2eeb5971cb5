"""Agreement, KL and perplexity against plain torch."""

import math

import numpy as np
import pytest
import torch

from evaluation.benchmarks.heldout import coarse_kl, compare, likelihood_kept, perplexity
from evaluation.protocol import ScoredText


def scored(logits: torch.Tensor, tokens: list[int], top: int) -> ScoredText:
    """What an engine would report of these logits, shape (len(tokens) - 1, vocabulary)."""
    log_probs = logits.log_softmax(-1)
    best = log_probs.topk(top, dim=-1)
    return ScoredText(
        tokens=tokens,
        actual=[float(log_probs[i, token]) for i, token in enumerate(tokens[1:])],
        top_ids=best.indices.tolist(),
        top_logprobs=best.values.tolist(),
    )


@pytest.fixture
def pair():
    torch.manual_seed(0)
    base = 3 * torch.randn(40, 50)
    return base, base + 0.5 * torch.randn(40, 50), list(torch.randint(0, 50, (41,)).numpy().tolist())


def test_with_every_token_reported_it_is_the_kl_of_torch(pair):
    base, model, tokens = pair
    figures = compare(scored(model, tokens, 50), scored(base, tokens, 50))
    expected = torch.nn.functional.kl_div(
        model.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert figures.kl == pytest.approx(float(expected), rel=1e-5)
    assert figures.agreement == pytest.approx(float((base.argmax(-1) == model.argmax(-1)).float().mean()))
    assert figures.nll == pytest.approx(float(torch.nn.functional.cross_entropy(model, torch.tensor(tokens[1:]))))


def test_fewer_reported_tokens_give_a_lower_bound_that_rises(pair):
    base, model, tokens = pair
    bounds = [compare(scored(model, tokens, top), scored(base, tokens, top)).kl for top in (2, 8, 20, 50)]
    assert bounds == sorted(bounds)
    assert bounds[2] > 0.9 * bounds[3]


def test_the_same_model_has_no_divergence(pair):
    base, _, tokens = pair
    figures = compare(scored(base, tokens, 10), scored(base, tokens, 10))
    assert (figures.agreement, figures.kl) == (1.0, pytest.approx(0.0, abs=1e-9))


def test_what_the_model_does_not_report_is_at_most_as_likely_as_the_least_it_does():
    # base: 1 has 0.6, 2 has 0.3; model: 1 has 0.3, 3 has 0.2, so 2 has 0.2 at most
    found = coarse_kl([1, 2], [math.log(0.6), math.log(0.3)], [1, 3], [math.log(0.3), math.log(0.2)])
    expected = 0.6 * math.log(0.6 / 0.3) + 0.3 * math.log(0.3 / 0.2) + 0.1 * math.log(0.1 / 0.7)
    assert found == pytest.approx(expected)


def test_who_is_sure_of_something_else_is_far_away():
    sure = [math.log(0.999), *[math.log(1e-5)] * 3]
    assert coarse_kl([1, 2], [math.log(0.9), math.log(0.05)], [7, 8, 9, 10], sure) > 5


def test_it_is_never_more_than_the_whole_divergence():
    torch.manual_seed(1)
    for _ in range(20):
        base, model = (torch.randn(200).mul(4).log_softmax(-1) for _ in range(2))
        whole = float(torch.nn.functional.kl_div(model, base, log_target=True, reduction="sum"))
        tops = [one.topk(16) for one in (base, model)]
        found = coarse_kl(*(part.tolist() for top in tops for part in (top.indices, top.values)))
        assert 0.1 * whole < found <= whole + 1e-4


def test_perplexity_weighs_texts_by_their_length(pair):
    base, model, tokens = pair
    short = compare(scored(model[:9], tokens[:10], 5), scored(base[:9], tokens[:10], 5))
    rest = compare(scored(model[10:], tokens[10:], 5), scored(base[10:], tokens[10:], 5))
    nll = np.array([-model.log_softmax(-1)[i, token] for i, token in enumerate(tokens[1:])])
    expected = math.exp(np.concatenate([nll[:9], nll[10:]]).mean())
    assert perplexity([short, rest]) == pytest.approx(expected, rel=1e-5)


def test_a_model_is_not_praised_for_more_certainty_than_the_base(pair):
    base, model, tokens = pair
    worse, own = (
        compare(scored(model, tokens, 5), scored(base, tokens, 5)),
        compare(scored(base, tokens, 5), scored(base, tokens, 5)),
    )
    low, high = sorted([worse, own], key=lambda figures: -figures.nll)
    assert likelihood_kept(low, high) == pytest.approx(perplexity([high]) / perplexity([low]))
    assert likelihood_kept(high, low) == 1.0


def test_texts_cut_differently_are_not_compared(pair):
    base, _, tokens = pair
    with pytest.raises(ValueError, match="tokenize"):
        compare(scored(base[:9], tokens[:10], 5), scored(base[:9], [*tokens[:9], 99 % 50], 5))
