"""NF4: what transformers itself would write, read back, also from a model in several files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.nf4 import Nf4
from compressors.quantize import Quantize
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, EngineTraits, Infeasible, StepFault
from compressors.store import Store
from search.serving import served_by
from tests.compressors.test_quantize import tensors_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", ["exaone4", "llama"])
def test_it_writes_what_transformers_writes(
    models: dict[str, Path], store: Store, data: Conversations, tmp_path: Path, kind: str, double: bool
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(str(models[kind]), quantization_config=how, dtype=torch.bfloat16)
    model.save_pretrained(str(tmp_path))
    folder = build([Nf4(double_quant=double)], models[kind], store, data).artifact.folder
    wanted, given = tensors_of(tmp_path), tensors_of(folder)
    assert given.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if ".quant_state." in name:  # JSON in bytes; floats in it may be printed otherwise
            one, other = (json.loads(bytes(values[name].tolist())) for values in (wanted, given))
            assert other.pop("nested_offset", 0) == pytest.approx(one.pop("nested_offset", 0), rel=1e-5)
            assert one == other
        elif "absmax" in name:
            assert torch.allclose(given[name].float(), tensor.float(), rtol=1e-5, atol=1.0), name
        else:
            assert torch.equal(given[name], tensor), name
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"] == json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]


def test_it_is_read_back_near_the_base(base: Path, store: Store, data: Conversations) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit

    model, _ = checkpoint.load(build([Nf4()], base, store, data).artifact.folder, "cpu")
    before = tensors_of(base)
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            weight = before[f"{name}.weight"].float()
            given = dequantize_4bit(module.weight, module.weight.quant_state).float()
            assert float((given - weight).norm() / weight.norm()) < 0.1, name
    with torch.no_grad():
        assert bool(model(input_ids=torch.arange(6, 60)[None]).logits.isfinite().all())


def test_a_model_in_several_files_stays_in_several(
    base: Path, data: Conversations, store: Store, tmp_path: Path
) -> None:
    import torch

    source = tmp_path / "sharded"
    model, _ = checkpoint.load(base, "cpu")
    model.save_pretrained(str(source), max_shard_size="300KB")
    checkpoint.copy_companions(base, source)
    assert len(list(source.glob("*.safetensors"))) > 2
    folder = build([Nf4()], source, store, data).artifact.folder
    again, _ = checkpoint.load(folder, "cpu")
    whole, _ = checkpoint.load(build([Nf4()], base, store, data).artifact.folder, "cpu")
    ids = torch.arange(6, 40)[None]
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_what_is_not_finite_is_named(base: Path, data: Conversations, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = tmp_path / "broken"
    source.mkdir()
    for path in base.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    tensors = tensors_of(base)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, str(source / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(StepFault, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        build([Nf4()], source, Store(tmp_path / "store"), data)


@pytest.mark.parametrize(
    ("version", "device", "reason"),
    [("0.32.0", "cpu", "CPU build has no kernel"), ("0.32.0", "cuda", "vllm-bnb-plugin")],
)
def test_engines_that_do_not_serve_it_are_named(base: Path, version: str, device: str, reason: str) -> None:
    with pytest.raises(Infeasible, match=rf"nf4: vLLM {version} on {device} has no nf4: .*{reason}"):
        check_recipe([Nf4()], read_shape(base), served_by(version, device))


def test_nothing_changes_weights_behind_it(base: Path) -> None:
    engine = EngineTraits(name="any", device="cuda", schemes=frozenset({"W8A8"}), features=frozenset({"nf4"}))
    assert check_recipe([Nf4()], read_shape(base), engine).quantized == "NF4"
    with pytest.raises(Infeasible, match="quantized weights cannot be changed by quantize"):
        check_recipe([Nf4(), Quantize(scheme="W8A8")], read_shape(base), engine)
