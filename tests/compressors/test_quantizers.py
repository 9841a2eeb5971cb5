"""Methods: what they move before they round changes nothing, and what was pruned stays at zero."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from compressors import checkpoint, quantizers
from compressors.data import tokenize
from compressors.quiet import errors_only
from compressors.sparsify import prune_by_magnitude
from compressors.step import Conversations, StepFault
from tests.compressors.conftest import make_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def request(method: str, scheme: str, **more: object) -> quantizers.Request:
    fields: dict[str, object] = {"group_size": None, "keep": (), "others": {}, "int8_head": False}
    return quantizers.Request(method=method, scheme=scheme, **{**fields, "fp8_kv_cache": False, **more})  # type: ignore[arg-type] - plain fields


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Exaone4 layers, for methods that are slow by the layer."""
    return make_model("exaone4", tmp_path_factory.mktemp("small") / "exaone4", layers=2)


@pytest.mark.parametrize(
    ("kind", "method", "scheme", "moved"),
    [
        ("exaone4", "awq", "W4A16", "mlp.down_proj"),
        ("llama", "awq", "W4A16_ASYM", "self_attn.q_proj"),
        ("llama", "smoothquant", "W8A8", "self_attn.q_proj"),
        ("qwen2", "smoothquant", "W8A8_STATIC", "mlp.up_proj"),
        ("qwen3", "awq", "W4A16", "mlp.down_proj"),
    ],
)
def test_rescaled_weights_compute_the_same_before_rounding(
    models: dict[str, Path], data: Conversations, kind: str, method: str, scheme: str, moved: str
) -> None:
    """llmcompressor leaves the rescaled weights unrounded until they are saved: read them in fp32, not quantized."""
    import torch
    from compressed_tensors.quantization import disable_quantization

    errors_only()
    model, tokenizer = checkpoint.load(models[kind], "cpu")
    model.float()
    ids = torch.arange(6, 120)[None]
    before = model.model.layers[1].get_submodule(moved).weight.detach().clone()
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
    rows = quantizers.calibration([tokenize(tokenizer, row, 512).ids for row in data.rows[:8]])
    quantizers.quantize(model, tokenizer, request(method, scheme), rows)
    with torch.no_grad():
        rounded = model(input_ids=ids).logits
        model.apply(disable_quantization)
        given = model(input_ids=ids).logits
    after = model.model.layers[1].get_submodule(moved).weight
    assert not torch.allclose(after, before, rtol=1e-2)  # it did rescale
    assert torch.allclose(given, wanted, atol=1e-3 * float(wanted.abs().max()))
    assert not torch.allclose(rounded, wanted, atol=1e-3 * float(wanted.abs().max()))


def test_autoround_has_less_error_than_rtn(small: Path, data: Conversations) -> None:
    import torch

    errors_only()
    ids = torch.arange(6, 120)[None]
    errors = {}
    for method in ("rtn", "autoround"):
        model, tokenizer = checkpoint.load(small, "cpu")
        tokens = [tokenize(tokenizer, row, 512).ids for row in data.rows[:8]]
        with torch.no_grad():
            wanted = [model.model(input_ids=torch.tensor([row])).last_hidden_state.float() for row in tokens]
        more = {"iterations": 20} if method == "autoround" else {}
        quantizers.quantize(model, tokenizer, request(method, "W4A16", **more), quantizers.calibration(tokens))
        with torch.no_grad():
            given = [model.model(input_ids=torch.tensor([row])).last_hidden_state.float() for row in tokens]
            assert bool(model(input_ids=ids).logits.isfinite().all())
        errors[method] = sum(float((a - b).square().mean()) for a, b in zip(given, wanted, strict=True))
    assert errors["autoround"] < errors["rtn"], errors


def half_pruned(small: Path) -> tuple:
    model, tokenizer = checkpoint.load(small, "cpu")
    prune_by_magnitude(model, 0.5, "unstructured")
    weights = {name: w.detach().float().clone() for name, w in model.named_parameters() if name.endswith("proj.weight")}
    return model, tokenizer, weights


@pytest.mark.parametrize(
    ("method", "scheme"),
    [("rtn", "W4A16_ASYM"), ("awq", "W4A16"), ("gptq", "W8A8"), ("gptq", "W4A16"), ("gptq", "W4A16_ASYM")],
)
def test_pruned_weights_stay_at_zero(
    small: Path, data: Conversations, method: str, scheme: str, tmp_path: Path
) -> None:
    from compressors.files import model_files
    from tests.compressors.test_quantize import dense_weights

    errors_only()
    model, tokenizer, weights = half_pruned(small)
    rows = quantizers.calibration([tokenize(tokenizer, row, 512).ids for row in data.rows[:16]])
    quantizers.quantize(model, tokenizer, request(method, scheme), rows)
    checkpoint.save(model, tokenizer, tmp_path, files_from=small)
    assert model_files(tmp_path)
    given = dense_weights(tmp_path)
    for name, weight in weights.items():
        assert bool((given[name][weight == 0] == 0).all()), name
        assert float((given[name] == 0).float().mean()) >= 0.5


def test_gptq_that_keeps_zeros_has_less_error_than_rtn(small: Path, data: Conversations) -> None:
    """Output error of a layer on the activations that reach it; and llmcompressor alone would lose the zeros."""
    import torch

    errors_only()
    name = "model.layers.0.mlp.down_proj"
    errors, lost = {}, 0
    for method in ("rtn", "gptq", "alone"):
        model, tokenizer, weights = half_pruned(small)
        tokens = [tokenize(tokenizer, row, 512).ids for row in data.rows[:40]]
        caught: list[torch.Tensor] = []
        hook = model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, to=caught: to.append(args[0][0].float())
        )
        with torch.no_grad():
            for row in tokens:
                model(input_ids=torch.tensor([row]))
        hook.remove()
        with mock.patch.object(quantizers, "SPARSE", 2.0 if method == "alone" else quantizers.SPARSE):
            asked = request("rtn" if method == "rtn" else "gptq", "W4A16")
            quantizers.quantize(model, tokenizer, asked, quantizers.calibration(tokens))
        from compressed_tensors.quantization import fake_quantize

        module = model.get_submodule(name)
        args = module.quantization_scheme.weights
        given = fake_quantize(module.weight, module.weight_scale, module.weight_zero_point, args).float()
        before = weights[f"{name}.weight"]
        errors[method] = float((torch.cat(caught) @ (given - before).T).square().mean())
        if method == "alone":
            lost = int((given[before == 0] != 0).sum())
    assert errors["gptq"] < 0.9 * errors["rtn"], errors
    assert lost > 0, "llmcompressor keeps zeros by itself now: drop `keeping_zeros`"


def test_gptq_on_a_dense_model_is_llmcompressors_own(small: Path) -> None:
    from llmcompressor.modifiers.gptq import gptq_quantize

    model, _ = checkpoint.load(small, "cpu")
    assert quantizers.zeros(model) < quantizers.SPARSE
    assert isinstance(quantizers.corrections("gptq", model), nullcontext)
    own = gptq_quantize.gptq_block_update
    with quantizers.corrections("gptq", half_pruned(small)[0]):
        assert gptq_quantize.gptq_block_update is not own
    assert gptq_quantize.gptq_block_update is own


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (
            "gptq",
            r"gptq could not invert the Hessian of \d+ of 14 modules \(.*down_proj.* and 4 more\): raise .* or damp",
        ),
        ("sparsegpt", r"sparsegpt could not invert the Hessian of \d+ modules: raise calibration_rows$"),
    ],
)
def test_data_that_gives_no_hessian_are_a_fault(small: Path, data: Conversations, method: str, reason: str) -> None:
    """Fewer tokens than inputs, nothing added to the diagonal: llmcompressor goes on without, and only warns."""
    errors_only()
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
    from loguru import logger

    logger.disable("llmcompressor")  # as LLM_COMPRESSOR_LOG_DISABLED does
    model, tokenizer = checkpoint.load(small, "cpu")
    rows = quantizers.calibration([tokenize(tokenizer, data.rows[0], 20).ids])
    with pytest.raises(StepFault, match=reason) as raised:
        if method == "gptq":
            quantizers.quantize(model, tokenizer, request("gptq", "W8A8", dampening=1e-12), rows)
        else:
            recipe = SparseGPTModifier(sparsity=0.5, dampening_frac=0.0, targets=[r"re:model\.layers\.\d+$"])
            quantizers.once(model, tokenizer, recipe, rows)
    assert "\n" not in str(raised.value)


def test_smoothquant_divides_activations_by_its_formula(models: dict[str, Path], data: Conversations) -> None:
    """s_j = range(X_j)^a / (2 max|W_j|)^(1-a) over all matrices a norm feeds; a channel of outliers shrinks by it.

    llmcompressor's activation range is max - min, and its weight range twice the largest magnitude.
    """
    import torch

    errors_only()
    strength = 0.7
    model, tokenizer = checkpoint.load(models["llama"], "cpu")
    model.float()
    layer = model.model.layers[1]
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    with torch.no_grad():
        norm.weight[7] = 40.0
    tokens = [tokenize(tokenizer, row, 512).ids for row in data.rows[:8]]
    before = put_out(model, norm, tokens)
    weights = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).detach().abs().amax(0)
    asked = request("smoothquant", "W8A8", smoothing=strength)
    quantizers.quantize(model, tokenizer, asked, quantizers.calibration(tokens))
    from compressed_tensors.quantization import disable_quantization

    model.apply(disable_quantization)
    after = put_out(model, norm, tokens)
    low, high = before.amin(0), before.amax(0)
    wanted = (high - low) ** strength / (2 * weights) ** (1 - strength)
    assert torch.allclose(before.abs().amax(0) / after.abs().amax(0), wanted, rtol=1e-3)
    spread = [float(x.abs().amax(0).max() / x.abs().amax(0).median()) for x in (before, after)]
    assert spread[1] < 0.5 * spread[0], spread


def put_out(model: PreTrainedModel, module: torch.nn.Module, tokens: list[tuple[int, ...]]) -> torch.Tensor:
    """What `module` puts out for all rows of tokens: [tokens, width]."""
    import torch

    caught: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _, __, output: caught.append(output[0].detach().float()))
    with torch.no_grad():
        for row in tokens:
            model(input_ids=torch.tensor([row]))
    hook.remove()
    return torch.cat(caught)


@pytest.mark.parametrize(("method", "scheme"), [("awq", "W4A16"), ("smoothquant", "W8A8")])
def test_smoothing_has_less_error_than_rtn_where_activations_have_outliers(
    models: dict[str, Path], data: Conversations, method: str, scheme: str
) -> None:
    """A few channels of every norm are 30 times the others: output error of the whole model after rounding."""
    import torch

    errors_only()
    errors = {}
    for way in ("rtn", method):
        model, tokenizer = checkpoint.load(models["llama"], "cpu")
        model.float()
        with torch.no_grad():
            for layer in model.model.layers:
                for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                    norm.weight[3:128:40] = 30.0
        tokens = [tokenize(tokenizer, row, 512).ids for row in data.rows[:16]]
        wanted = put_out(model, model.model.norm, tokens)
        quantizers.quantize(model, tokenizer, request(way, scheme), quantizers.calibration(tokens))
        errors[way] = float((put_out(model, model.model.norm, tokens) - wanted).square().mean())
    assert errors[method] < 0.9 * errors["rtn"], errors
