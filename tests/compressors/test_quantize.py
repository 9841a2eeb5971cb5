"""Quantization: round-to-nearest to the last bit, what is left alone, and what every architecture gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.quantize import Quantize
from compressors.step import Conversations
from compressors.store import Store

if TYPE_CHECKING:
    import torch


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def made(step: Quantize, base: Path, store: Store, data: Conversations) -> Path:
    return build([step], base, store, data).artifact.folder


def test_w8a8_by_rtn_is_absmax_rounding_to_the_last_bit(base: Path, store: Store, data: Conversations) -> None:
    """Scale of an output channel: absmax / 127.5 in bf16 (compressed-tensors' symmetric min-max, range -128..127)."""
    import torch

    before, after = tensors_of(base), tensors_of(made(Quantize(scheme="W8A8"), base, store, data))
    names = [name for name in before if name.endswith("proj.weight")]
    assert len(names) == 4 * 7
    for name in names:
        weight = before[name]
        scale = weight.abs().amax(dim=1, keepdim=True) / torch.tensor(127.5, dtype=torch.bfloat16)
        expected = torch.clamp(torch.round(weight / scale), -128, 127).to(torch.int8)
        assert torch.equal(after[f"{name}_scale"], scale), name
        assert torch.equal(after[name], expected), name


def test_w8a8_keeps_what_is_not_linear_and_the_head(base: Path, store: Store, data: Conversations) -> None:
    import torch

    before, after = tensors_of(base), tensors_of(made(Quantize(scheme="W8A8"), base, store, data))
    assert "lm_head.weight" not in after  # still tied
    for name, tensor in before.items():
        if not name.endswith("proj.weight"):
            assert torch.equal(after[name], tensor), name


def dense_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the linear layers as a reader other than ours gives them back: transformers, dequantizing."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype="auto", quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    return {name: w.detach().float() for name, w in model.named_parameters() if name.endswith("proj.weight")}


@pytest.mark.parametrize("scheme", ["W8A8", "W4A16", "FP8_DYNAMIC"])
@pytest.mark.parametrize("kind", ["exaone4", "llama", "qwen2", "qwen3"])
def test_every_scheme_loads_within_its_rounding(
    models: dict[str, Path], kind: str, scheme: str, store: Store, data: Conversations
) -> None:
    """Half a step of the grid: absmax/127.5 a channel, absmax/7.5 a group of 128, 3 mantissa bits; and bf16."""
    import torch

    folder = made(Quantize(scheme=scheme), models[kind], store, data)  # type: ignore[arg-type] - parametrized
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == "bfloat16"
    before, after = tensors_of(models[kind]), dense_weights(folder)
    assert len(after) == 4 * 7
    for name, given in after.items():
        weight = before[name].float()
        groups = weight.unflatten(1, (-1, 128)) if scheme == "W4A16" else weight.unsqueeze(1)
        step = groups.abs().amax(-1, keepdim=True) / {"W8A8": 127.5, "W4A16": 7.5, "FP8_DYNAMIC": 448 * 512}[scheme]
        bound = (0.5 * step).expand_as(groups).flatten(1) * 1.05 + weight.abs() * 2**-7
        if scheme == "FP8_DYNAMIC":
            bound += weight.abs() * 2**-4
        assert bool(((given - weight).abs() <= bound).all()), name
    model, _ = checkpoint.load(folder, "cpu")
    with torch.no_grad():
        assert bool(model(input_ids=torch.arange(6, 60)[None]).logits.isfinite().all())


def test_gptq_has_less_error_on_its_data_than_rtn(base: Path, store: Store, data: Conversations) -> None:
    """Reference: the layer's output error on the activations that reach it, which is what GPTQ minimizes."""
    import torch

    from compressors.data import tokenize

    model, tokenizer = checkpoint.load(base, "cpu")
    caught: list[torch.Tensor] = []
    name = "model.layers.0.mlp.down_proj"
    module = model.get_submodule(name)
    hook = module.register_forward_pre_hook(lambda _, args: caught.append(args[0][0].float()))
    with torch.no_grad():
        for row in data.rows[:40]:
            model(input_ids=torch.tensor([tokenize(tokenizer, row, 512).ids]))
    hook.remove()
    entering, weight = torch.cat(caught), module.weight.detach().float()
    errors = {}
    for method in ("rtn", "gptq"):
        step = Quantize(scheme="W4A16", method=method, calibration_rows=40)  # type: ignore[arg-type] - a literal
        given = dense_weights(made(step, base, store, data))[f"{name}.weight"]
        errors[method] = float((entering @ (given - weight).T).square().mean())
    assert errors["gptq"] < 0.9 * errors["rtn"], errors


def test_gptq_w8a8_reads_data_and_rtn_none(base: Path, store: Store, data: Conversations) -> None:
    gptq = build([Quantize(scheme="W8A8", method="gptq", calibration_rows=16)], base, store, data).artifact
    rtn = build([Quantize(scheme="W8A8")], base, store, data).artifact
    assert gptq.provenance is not None and rtn.provenance is not None
    assert gptq.provenance.data == data.fingerprint
    assert rtn.provenance.data is None
    assert "int8" in {str(t.dtype).removeprefix("torch.") for t in tensors_of(gptq.folder).values()}


def test_kept_modules_stay_in_bf16(base: Path, store: Store, data: Conversations) -> None:
    import torch

    step = Quantize(scheme="W8A8", keep=(r".*\.layers\.0\.", r".*down_proj$"))
    before, after = tensors_of(base), tensors_of(made(step, base, store, data))
    for name, tensor in before.items():
        if name.endswith("proj.weight"):
            kept = ".layers.0." in name or name.endswith("down_proj.weight")
            assert (after[name].dtype == torch.bfloat16) == kept, name
            assert not kept or torch.equal(after[name], tensor)


def test_llmcompressor_says_nothing(base: Path, tmp_path: Path) -> None:
    """In a process of its own, since bars and log sinks are set up at import."""
    import subprocess
    import sys

    code = (
        "import sys, pathlib; from compressors.build import build; from compressors.store import Store;"
        "from compressors.quantize import Quantize; from compressors.data import conversations;"
        "build([Quantize(scheme='W8A8')], pathlib.Path(sys.argv[1]), Store(pathlib.Path(sys.argv[2])),"
        " conversations([[{'role': 'user', 'content': 'x'}]]))"
    )
    command = [sys.executable, "-c", code, str(base), str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == ""
    assert "it/s" not in answer.stderr
    assert "INFO" not in answer.stderr and "WARNING" not in answer.stderr, answer.stderr
