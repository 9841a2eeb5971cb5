"""Depth pruning against a plain rewrite of its ranking, and against the model with layers bypassed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import make_model

from compressors import calibration, checkpoint, logits
from compressors.build import build
from compressors.data import tokenize
from compressors.depth import DropLayers, remove_layers
from compressors.depth_rankings import Divergence, angular_distance, block_influence, without
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, EngineTraits, Infeasible, StepContext
from compressors.steps import parse_step
from compressors.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ["exaone4", "llama", "qwen2", "qwen3"]


@pytest.mark.parametrize("kind", KINDS)
def test_block_influence_is_one_minus_cosine(models: dict[str, Path], kind: str) -> None:
    import torch

    model, _ = checkpoint.load(models[kind], "cpu")
    model.float()
    rows = [tuple(range(10, 30)), tuple(range(40, 47))]
    # reference: catch what enters each layer and what enters the next (or the last norm), cosine written out
    catch: dict[int, list[torch.Tensor]] = {}
    for place, module in enumerate([*model.model.layers, model.model.norm]):
        module.register_forward_pre_hook(
            lambda _, args, kwargs, place=place: catch.setdefault(place, []).append(
                (args[0] if args else kwargs["hidden_states"])[0].double()
            ),
            with_kwargs=True,
        )
    with torch.no_grad():
        for row in rows:
            model(input_ids=torch.tensor([row]))
    streams = [torch.cat(catch[place]) for place in range(len(model.model.layers) + 1)]
    expected = []
    for entering, leaving in pairwise(streams):
        cosine = (entering * leaving).sum(-1) / (entering.norm(dim=-1) * leaving.norm(dim=-1))
        expected.append(float((1 - cosine).mean()))
    assert block_influence(model, rows) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_the_model_with_layers_bypassed(
    models: dict[str, Path], kind: str, tmp_path: Path, data: Conversations
) -> None:
    import torch

    step = DropLayers(count=2, calibration_rows=8)
    built = build([step], models[kind], Store(tmp_path), data)
    dropped = built.artifact.provenance.notes["dropped"]  # type: ignore[union-attr] - a step has provenance
    influence = built.artifact.provenance.notes["block_influence"]  # type: ignore[union-attr] - the same
    assert sorted(sorted(range(4), key=influence.__getitem__)[:2]) == dropped
    whole, _ = checkpoint.load(models[kind], "cpu")
    for index in dropped:
        whole.model.layers[index].forward = lambda hidden_states, *_, **__: hidden_states
    short, _ = checkpoint.load(built.artifact.folder, "cpu")
    assert [layer.self_attn.layer_idx for layer in short.model.layers] == [0, 1]
    ids = torch.arange(6, 60)[None]
    with torch.no_grad():
        expected = whole(input_ids=ids, use_cache=False).logits
        assert torch.equal(short(input_ids=ids, use_cache=False).logits, expected)
        # with a cache, token by token: wrong layer numbers would show here
        first = short(input_ids=ids[:, :30], use_cache=True)
        rest = short(input_ids=ids[:, 30:], past_key_values=first.past_key_values, use_cache=True)
    assert torch.allclose(rest.logits.float(), expected[:, 30:].float(), atol=0.1, rtol=0.1)


def test_layer_types_follow_their_layers(base: Path) -> None:
    model, _ = checkpoint.load(base, "cpu")
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    remove_layers(model, [0])
    assert model.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert model.config.num_hidden_layers == 3


def test_two_layers_must_stay(base: Path, data: Conversations) -> None:
    model, tokenizer = checkpoint.load(base, "cpu")
    with pytest.raises(Infeasible, match="leaves 1 of 4 layers"):
        DropLayers(count=3).apply(model, tokenizer, StepContext(base=base, data=data))


ROWS = [tuple(range(10, 30)), tuple(range(40, 47)), tuple(range(100, 131))]


def bypassed_kl(model: PreTrainedModel, dropped: Sequence[int], rows: Sequence[tuple[int, ...]]) -> float:
    """Reference: KL(whole || pruned) by torch's own kl_div on full logits, layers bypassed, row by row."""
    import torch

    def logits(row: tuple[int, ...]) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=torch.tensor([row]), use_cache=False).logits[0].double()

    whole = torch.cat([logits(row) for row in rows])
    kept = {index: model.model.layers[index].forward for index in dropped}
    for index in dropped:
        model.model.layers[index].forward = lambda hidden_states, *_, **__: hidden_states
    pruned = torch.cat([logits(row) for row in rows])
    for index, forward in kept.items():
        model.model.layers[index].forward = forward
    return float(
        torch.nn.functional.kl_div(
            pruned.log_softmax(-1), whole.log_softmax(-1), log_target=True, reduction="batchmean"
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_divergence_is_kl_of_full_logits_with_layers_bypassed(models: dict[str, Path], kind: str) -> None:
    model, _ = checkpoint.load(models[kind], "cpu")
    model.float()
    measure = Divergence(model, ROWS, 10_000)
    for dropped in ((1,), (0, 3)):
        assert measure(dropped) == pytest.approx(bypassed_kl(model, dropped, ROWS), rel=1e-4)
    assert measure(()) == pytest.approx(0, abs=1e-9)
    assert len(model.model.layers) == model.config.num_hidden_layers == 4


def test_divergence_is_the_same_in_parts_and_stops_at_its_tokens(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = checkpoint.load(base, "cpu")
    model.float()
    first = Divergence(model, ROWS, 25)
    assert sum(batch.tokens for batch in first.batches) == 25  # 20 of the first row, 5 of the second
    assert first((2,)) == pytest.approx(bypassed_kl(model, (2,), [ROWS[0], ROWS[1][:5]]), rel=1e-4)
    monkeypatch.setattr(logits, "AT_ONCE", 3 * model.config.vocab_size)
    monkeypatch.setattr(calibration, "BATCH_TOKENS", 40)
    parts = Divergence(model, ROWS, 10_000)
    assert len(parts.batches) == 2
    assert parts((2,)) == pytest.approx(bypassed_kl(model, (2,), ROWS), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_angular_distance_is_that_of_a_block_at_the_last_token(models: dict[str, Path], kind: str) -> None:
    import torch

    model, _ = checkpoint.load(models[kind], "cpu")
    model.float()
    # reference: the model cut after l layers and its last norm taken away, whatever hooks might see
    last = []
    norm, model.model.norm = model.model.norm, torch.nn.Identity()
    for row in ROWS:
        states = []
        for depth in range(5):
            with without(model, range(depth, 4)), torch.no_grad():
                states.append(model.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1].double())
        last.append(states)
    model.model.norm = norm
    expected = []
    for start in range(3):
        angles = [
            math.acos(float(states[start] @ states[start + 2] / states[start].norm() / states[start + 2].norm()))
            for states in last
        ]
        expected.append(sum(angles) / len(angles) / math.pi)
    assert angular_distance(model, ROWS, 2) == pytest.approx(expected, rel=1e-4)


def apply(step: DropLayers, folder: Path, data: Conversations, seed: int = 0) -> tuple[dict[str, Any], PreTrainedModel]:
    model, tokenizer = checkpoint.load(folder, "cpu")
    context = StepContext(base=folder, data=data, seed=seed)
    return context.notes, step.apply(model, tokenizer, context)


def test_greedy_takes_the_cheapest_each_time(base: Path, data: Conversations) -> None:
    notes, short = apply(DropLayers(count=2, by="greedy_kl", calibration_rows=4), base, data)
    model, tokenizer = checkpoint.load(base, "cpu")
    rows = [tokenize(tokenizer, row, 2048).ids for row in data.rows[:4]]
    one = min(range(4), key=lambda layer: bypassed_kl(model, [layer], rows))
    two = min((layer for layer in range(4) if layer != one), key=lambda layer: bypassed_kl(model, [one, layer], rows))
    assert notes["dropped"] == sorted([one, two])
    assert notes["kl"][1] == pytest.approx(bypassed_kl(model, [one, two], rows), rel=0.05)  # bf16
    assert short.config.num_hidden_layers == 2


def test_evolution_finds_the_best_pair_and_repeats_itself(
    tmp_path: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "BATCH_TOKENS", 64)  # several batches, so that some can be drawn
    folder = make_model("llama", tmp_path, layers=6, hidden=64)
    step = DropLayers(count=2, by="evolutionary_kl", calibration_rows=6, generations=4, offspring=6, few_tokens=40)
    notes, _ = apply(step, folder, data)
    model, tokenizer = checkpoint.load(folder, "cpu")
    rows = [tokenize(tokenizer, row, 2048).ids for row in data.rows[:6]]
    measure = Divergence(model, rows, 10_000)
    best = min(combinations(range(6), 2), key=measure)
    assert notes["dropped"] == list(best)
    assert notes["kl"] == sorted(notes["kl"], reverse=True)  # a parent yields only to a better one
    assert apply(step, folder, data)[0] == notes
    again = apply(step.model_copy(update={"generations": 1, "offspring": 2}), folder, data, seed=3)[0]
    assert apply(step.model_copy(update={"generations": 1, "offspring": 2}), folder, data, seed=3)[0] == again


def test_last_explicit_and_angular_choose_as_they_say(base: Path, data: Conversations) -> None:
    assert apply(DropLayers(count=2, by="last"), base, data)[0]["dropped"] == [2, 3]
    assert apply(DropLayers(by="explicit", layers=(3, 1)), base, data)[0]["dropped"] == [1, 3]
    notes, _ = apply(DropLayers(count=2, by="angular", calibration_rows=3), base, data)
    first = notes["angular_distance"].index(min(notes["angular_distance"]))
    assert notes["dropped"] == [first, first + 1]
    assert not DropLayers(count=1, by="last").takes_data()
    assert DropLayers(count=1, by="greedy_kl").takes_data()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"by": "last"}, "field count is missing: by last needs it"),
        ({"by": "explicit"}, "field layers is missing"),
        ({"by": "explicit", "layers": [1, 1]}, "named twice"),
        ({"by": "explicit", "layers": [1, 2], "count": 3}, "count = 3 does not agree with the 2 layers named"),
        ({"count": 1, "layers": [2]}, r"layers = \(2,\) is not for by block_influence"),
        ({"count": 1, "by": "last", "calibration_rows": 4}, "calibration_rows = 4 is not for by last"),
        ({"count": 1, "by": "greedy_kl", "generations": 4}, "generations = 4 is not for by greedy_kl"),
        ({"count": 1, "by": "evolutionary_kl", "survivors": 40}, "survivors = 40 is more than offspring 16"),
    ],
)
def test_fields_that_do_not_go_together_are_refused_in_one_line(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        parse_step({"step": "drop_layers", **fields})
    assert "\n" not in str(raised.value)
    assert "drop_layers" in str(raised.value)


def test_a_layer_that_is_not_there_is_named(engine: EngineTraits, base: Path) -> None:
    with pytest.raises(Infeasible, match="names 9, but the model's 4 layers end at 3"):
        check_recipe([DropLayers(by="explicit", layers=(1, 9))], read_shape(base), engine)


def test_the_last_sliding_layer_must_stay(base: Path) -> None:
    model, _ = checkpoint.load(base, "cpu")
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    with pytest.raises(Infeasible, match="no sliding_attention layer"):
        remove_layers(model, [1])
