"""Depth pruning against a plain rewrite of its ranking, and against the model with layers bypassed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.depth import DropLayers, block_influence, remove_layers
from compressors.step import Conversations, Infeasible, StepContext
from compressors.store import Store

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
