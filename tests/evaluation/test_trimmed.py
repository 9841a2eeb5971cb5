"""Predictions of trimmed models: the same figures as of the whole model when ids alone differ, fair ones otherwise."""

import json

import pytest
import torch

from compressors.build import build
from compressors.data import read_conversations
from compressors.store import Store
from compressors.vocabulary import TrimVocab
from evaluation.answers import AnswerStore
from evaluation.benchmarks.heldout import compare
from evaluation.measure import Measurer
from evaluation.protocol import ScoredText
from evaluation.record import Subject
from evaluation.reference import CALIBRATION, HELDOUT, MODEL
from evaluation.suite import Suite, SuiteSpec
from evaluation.trimmed import in_original_ids, kept_tokens, recut
from tests.evaluation.test_heldout import scored


def text(tokens, ends, actual, tops):
    return ScoredText(
        tokens=tokens, ends=ends, actual=actual, top_ids=[[top] for top in tops], top_logprobs=[[-0.1]] * len(actual)
    )


def test_ids_alone_make_no_difference(tmp_path):
    torch.manual_seed(0)
    kept = [0, 3, 4, 7, 9]
    base = torch.randn(6, 10)
    base[:, [1, 2, 5, 6, 8]] = -1e4  # so the trimmed model says the same, with five tokens
    tokens = [3, 9, 0, 4, 4, 7, 3]
    whole = scored(base, tokens, 5)
    trimmed = scored(base[:, kept], [kept.index(token) for token in tokens], 5)
    (tmp_path / "kept_tokens.json").write_text(json.dumps(kept))
    found = kept_tokens(tmp_path)
    assert found == kept
    figures = compare(recut(in_original_ids(trimmed, found), whole), whole)
    assert figures.agreement == 1.0
    assert figures.kl == pytest.approx(0.0, abs=1e-6)
    assert figures.nll == pytest.approx(compare(whole, whole).nll)
    assert kept_tokens(tmp_path / "elsewhere") is None


def test_a_token_that_is_gone_is_cut_finer_and_the_rest_compared():
    # the base reads 1 2 3 4; the model has no 2 and reads 1 [8 9] 3 4
    base = text([1, 2, 3, 4], [1, 3, 4, 5], [-1.0, -2.0, -3.0], [2, 3, 4])
    model = text([1, 8, 9, 3, 4], [1, 2, 3, 4, 5], [-0.5, -0.25, -2.5, -3.0], [8, 9, 7, 4])
    told = recut(model, base)
    assert told.tokens == base.tokens
    # after 1 it says 8, not 2; behind 9 it has read what the base has read behind 2
    assert [row[0] for row in told.top_ids] == [8, 7, 4]
    assert told.actual == [-0.75, -2.5, -3.0]
    figures = compare(told, base)
    assert figures.agreement == pytest.approx(1 / 3)
    assert figures.nll == pytest.approx((0.5 + 0.25 + 2.5 + 3.0) / 3)
    assert figures.compared == 3


def test_what_the_limit_cut_off_is_charged_at_the_mean():
    base = text([1, 2, 5, 3, 4], [1, 4, 7, 8, 9], [-1.0, -2.0, -3.0, -1.0], [2, 5, 3, 4])
    model = text([1, 8, 9, 7, 3], [1, 3, 5, 7, 8], [-1.0, -1.0, -2.0, -4.0], [8, 9, 7, 3])  # 8 9 7 is what 2 5 was
    told = recut(model, base)
    assert told.top_ids == [[8], [], [3], []]
    assert compare(told, base).compared == 2
    assert told.actual == pytest.approx([-2.0, -2.0, -4.0, -2.0])
    assert recut(base, base) == base


def test_a_word_that_comes_again_is_compared_with_its_own_place():
    # the base reads 2 1 2; the model has no 2 and reads [8 1] 1 [8 1]: its first 1 is half of a 2, not the base's 1
    base = text([2, 1, 2], [2, 3, 5], [-1.0, -2.0], [1, 2])
    model = text([8, 1, 1, 8, 1], [1, 2, 3, 4, 5], [-1.0, -0.5, -0.25, -0.125], [1, 7, 8, 1])
    told = recut(model, base)
    assert [row[0] for row in told.top_ids] == [7, 8]
    assert told.actual == [-0.5, -0.375]


def test_a_character_of_several_tokens_is_read_once_its_last_is():
    # one character of three bytes in the middle: the base has a token for it, the model reads its bytes
    base = text([1, 2, 3], [1, 2, 3], [-1.0, -2.0], [2, 3])
    model = text([1, 8, 9, 7, 3], [1, 2, 2, 2, 3], [-1.0, -1.0, -1.0, -4.0], [8, 9, 7, 5])
    told = recut(model, base)
    assert [row[0] for row in told.top_ids] == [8, 5]
    assert told.actual == [-3.0, -4.0]


def test_without_ends_nothing_is_guessed():
    base, model = text([1, 2], [], [-1.0], [2]), text([1, 8, 9], [], [-1.0, -1.0], [8, 9])
    with pytest.raises(ValueError, match="does not tell where"):
        recut(model, base)


def test_a_trimmed_model_is_measured_beside_its_base(engine, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Say hello."}\n')
    texts = {"prompts": str(prompts), "heldout": str(HELDOUT), "heldout_tokens": 64}
    suite = Suite(SuiteSpec.model_validate(texts), (1.0,))
    step = TrimVocab(corpus=(str(HELDOUT),))
    data = read_conversations(CALIBRATION, limit=20)
    folder = build([step], MODEL, Store(tmp_path / "store"), data).artifact.folder
    kept = kept_tokens(folder)
    assert kept != list(range(len(kept)))
    base, candidate = Subject(key="tiny", folder=MODEL), Subject(key="trimmed", folder=folder)
    measured = Measurer(engine, engine, base, suite, AnswerStore(tmp_path / "answers"), 1).measure(candidate, 0)
    # every held-out text is tokenized as before: only what was likely among the tokens gone is shared out anew
    assert measured.benchmarks["agreement"].value > 0.97
    assert measured.benchmarks["agreement"].details["kl"] < 0.01
    assert measured.benchmarks["perplexity"].value > 0.99
