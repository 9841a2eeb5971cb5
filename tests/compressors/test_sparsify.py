"""Sparsity: which weights go, against plain-torch references; patterns, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.data import tokenize
from compressors.quantize import Quantize
from compressors.shape import check_recipe, read_shape
from compressors.sparsify import Sparsify
from compressors.step import Conversations, EngineTraits, Infeasible
from compressors.store import Store
from tests.compressors.test_quantize import dense_weights, tensors_of

if TYPE_CHECKING:
    import torch

METHODS = ("sparsegpt", "wanda", "magnitude")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def pruned(base: Path, store: Store, data: Conversations, **fields: Any) -> dict[str, torch.Tensor]:
    step = Sparsify(calibration_rows=16, **fields)
    return tensors_of(build([step], base, store, data).artifact.folder)


@pytest.mark.parametrize("method", METHODS)
def test_as_many_go_as_asked_and_only_in_linear_layers(
    base: Path, store: Store, data: Conversations, method: str
) -> None:
    import torch

    before, after = tensors_of(base), pruned(base, store, data, method=method, sparsity=0.3)
    for name, weight in before.items():
        if name.endswith("proj.weight"):
            share = float((after[name] == 0).float().mean())
            assert share == pytest.approx(0.3, abs=0.01), name
        else:
            assert torch.equal(after[name], weight), name


def test_magnitude_takes_the_smallest_and_leaves_the_rest(base: Path, store: Store, data: Conversations) -> None:
    import torch

    before, after = tensors_of(base), pruned(base, store, data, method="magnitude", sparsity=0.25)
    for name in (name for name in before if name.endswith("proj.weight")):
        gone = after[name] == 0
        assert int(gone.sum()) == gone.numel() // 4
        assert float(before[name][gone].abs().max()) <= float(before[name][~gone].abs().min())
        assert torch.equal(after[name][~gone], before[name][~gone])


def test_wanda_takes_the_smallest_products_of_each_output(base: Path, store: Store, data: Conversations) -> None:
    """|w| · ‖x‖ over the calibration tokens; what enters layer 0's attention is the embedding itself."""
    import torch

    after = pruned(base, store, data, method="wanda", sparsity=0.5)
    model, tokenizer = checkpoint.load(base, "cpu")
    ids = [token for row in data.rows[:16] for token in tokenize(tokenizer, row, 512).ids]
    norms = model.get_input_embeddings().weight[ids].float().norm(dim=0)
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = model.get_submodule(f"model.layers.0.self_attn.{name}").weight.detach().float()
        metric = weight.abs() * norms
        gone = metric.argsort(dim=1)[:, : weight.shape[1] // 2]
        wanted = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, gone, True)
        given = after[f"model.layers.0.self_attn.{name}.weight"] == 0
        assert float((given == wanted).float().mean()) > 0.999  # ties aside


def test_sparsegpt_has_less_error_than_magnitude(base: Path, store: Store, data: Conversations) -> None:

    model, tokenizer = checkpoint.load(base, "cpu")
    ids = [token for row in data.rows[:16] for token in tokenize(tokenizer, row, 512).ids]
    entering = model.get_input_embeddings().weight[ids].float().detach()
    name = "model.layers.0.self_attn.q_proj.weight"
    errors = {}
    for method in ("sparsegpt", "magnitude"):
        change = (pruned(base, store, data, method=method, sparsity=0.5)[name] - tensors_of(base)[name]).float()
        errors[method] = float((entering @ change.T).square().mean())
    assert errors["sparsegpt"] < 0.8 * errors["magnitude"], errors


@pytest.mark.parametrize("method", METHODS)
def test_two_of_four_go_and_two_stay(base: Path, store: Store, data: Conversations, method: str) -> None:
    """But for the few weights that were zero before, or that sparsegpt moved onto zero in bf16."""
    after = pruned(base, store, data, method=method, pattern="2:4")
    for name in (name for name in after if name.endswith("proj.weight")):
        gone = (after[name].unflatten(1, (-1, 4)) == 0).sum(-1)
        assert int(gone.min()) == 2, name
        assert float((gone == 2).float().mean()) > 0.999, name


@pytest.mark.parametrize("method", ["wanda", "magnitude"])
def test_the_two_least_of_four_go(base: Path, store: Store, data: Conversations, method: str) -> None:
    """Of every four: the two of least |w| · ‖x‖ for wanda, of least |w| for magnitude; the others are untouched."""
    import torch

    before, after = tensors_of(base), pruned(base, store, data, method=method, pattern="2:4")
    model, tokenizer = checkpoint.load(base, "cpu")
    ids = [token for row in data.rows[:16] for token in tokenize(tokenizer, row, 512).ids]
    norms = model.get_input_embeddings().weight[ids].float().norm(dim=0).detach()
    for leaf in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.0.self_attn.{leaf}.weight"
        matters = before[name].float().abs() * (norms if method == "wanda" else 1.0)
        least = matters.unflatten(1, (-1, 4)).argsort(dim=-1)[..., :2]
        smallest = before[name].float().abs().unflatten(1, (-1, 4)).argsort(dim=-1)[..., :2]
        assert torch.equal(least, smallest) == (method == "magnitude")  # the norms do decide
        wanted = torch.zeros_like(matters, dtype=torch.bool).unflatten(1, (-1, 4)).scatter_(-1, least, True).flatten(1)
        given = after[name] == 0
        assert float((given == wanted).float().mean()) > 0.999, name  # ties aside
        assert torch.equal(after[name][~given], before[name][~given]), name


def test_quantization_behind_it_keeps_the_zeros(base: Path, store: Store, data: Conversations) -> None:
    sparse = Sparsify(method="wanda", sparsity=0.5, calibration_rows=16)
    quantize = Quantize(scheme="W8A8", method="gptq", calibration_rows=16)
    before = tensors_of(build([sparse], base, store, data).artifact.folder)
    after = dense_weights(build([sparse, quantize], base, store, data).artifact.folder)
    assert all(bool((weight[before[name] == 0] == 0).all()) for name, weight in after.items())


def test_no_sparsity_changes_nothing(base: Path, store: Store, data: Conversations) -> None:
    import torch

    before, after = tensors_of(base), pruned(base, store, data, method="sparsegpt", sparsity=0.0)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_shape_says_so(base: Path, engine: EngineTraits) -> None:
    shape = check_recipe([Sparsify(method="wanda", sparsity=0.5)], read_shape(base), engine)
    assert (shape.sparse, shape.damaged) == ("unstructured", True)
    shape = check_recipe([Sparsify(method="wanda", sparsity=0.0)], read_shape(base), engine)
    assert (shape.sparse, shape.damaged) == (None, False)


@pytest.mark.parametrize(
    ("fields", "features", "reason"),
    [
        ({"pattern": "2:4"}, set(), "sparsify: any has no sparse_24: the kernel is gone"),
        ({"pattern": "2:4", "sparsity": 0.4}, {"sparse_24"}, "2:4 is sparsity 0.5, not 0.4"),
    ],
)
def test_refusals(base: Path, fields: dict[str, Any], features: set[str], reason: str) -> None:
    lacking = {"sparse_24": "the kernel is gone"}
    engine = EngineTraits(name="any", device="cpu", schemes=frozenset(), features=frozenset(features), lacking=lacking)
    with pytest.raises(Infeasible, match=reason):
        check_recipe([Sparsify(method="wanda", **fields)], read_shape(base), engine)


def test_quantized_weights_are_not_pruned(base: Path, engine: EngineTraits) -> None:
    steps = [Quantize(scheme="W8A8"), Sparsify(method="magnitude")]
    with pytest.raises(Infeasible, match="quantized weights cannot be changed by sparsify"):
        check_recipe(steps, read_shape(base), engine)
