"""Quantization: round-to-nearest to the last bit, what is left alone, and what every architecture gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.quantize import Quantize
from compressors.schemes import SCHEMES
from compressors.shape import check_recipe
from compressors.step import Conversations, EngineTraits, Infeasible
from compressors.store import Store
from tests.shapes import SMALL

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


def unpacked(packed: torch.Tensor, dim: int) -> torch.Tensor:
    """Signed int4 values from int32 words along `dim`: eight a word, lowest bits first, each stored plus 8."""
    import torch

    words = packed.movedim(dim, -1).unsqueeze(-1)
    values = (words >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15
    return (values.flatten(-2) - 8).movedim(-1, dim)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_w4a16_asym_by_rtn_is_min_max_rounding_to_the_last_bit(
    base: Path, store: Store, data: Conversations, group: int
) -> None:
    """Scale of a group: (max - min) / 15, zero included, in bf16; zero point -8 - min / scale, rounded."""
    import torch

    step = Quantize(scheme="W4A16_ASYM", group_size=group)  # type: ignore[arg-type] - parametrized
    before, after = tensors_of(base), tensors_of(made(step, base, store, data))
    for name in (name for name in before if name.endswith("proj.weight")):
        stem = name.removesuffix(".weight")
        groups = before[name].unflatten(1, (-1, group))
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scale = (high - low) / torch.tensor(15.0, dtype=torch.bfloat16)
        zero = torch.clamp(-8 - low / scale, -8, 7).round()
        wanted = torch.clamp(torch.round(groups / scale.unsqueeze(-1) + zero.unsqueeze(-1)), -8, 7).flatten(1)
        assert torch.equal(after[f"{stem}.weight_scale"], scale), name
        points = unpacked(after[f"{stem}.weight_zero_point"], 0)[: len(zero)]
        assert torch.equal(points, zero.to(points.dtype)), name
        given = unpacked(after[f"{stem}.weight_packed"], 1)
        assert torch.equal(given, wanted.to(given.dtype)), name


@pytest.mark.parametrize("group", [32, 64])
def test_w4a16_groups_are_absmax_rounding_to_the_last_bit(
    base: Path, store: Store, data: Conversations, group: int
) -> None:
    import torch

    step = Quantize(scheme="W4A16", group_size=group)  # type: ignore[arg-type] - parametrized
    before, after = tensors_of(base), tensors_of(made(step, base, store, data))
    for name in (name for name in before if name.endswith("proj.weight")):
        stem = name.removesuffix(".weight")
        groups = before[name].unflatten(1, (-1, group))
        scale = groups.abs().amax(-1) / torch.tensor(7.5, dtype=torch.bfloat16)
        wanted = torch.clamp(torch.round(groups / scale.unsqueeze(-1)), -8, 7).flatten(1)
        assert torch.equal(after[f"{stem}.weight_scale"], scale), name
        given = unpacked(after[f"{stem}.weight_packed"], 1)
        assert torch.equal(given, wanted.to(given.dtype)), name


def test_w8a16_is_w8a8_without_activations(base: Path, store: Store, data: Conversations) -> None:
    import torch

    a16 = dense_weights(made(Quantize(scheme="W8A16"), base, store, data))
    a8 = dense_weights(made(Quantize(scheme="W8A8"), base, store, data))
    assert all(torch.equal(a16[name], a8[name]) for name in a8)


@pytest.mark.parametrize("scheme", ["W8A8_STATIC", "FP8_STATIC"])
def test_static_activation_scales_cover_what_was_seen(
    base: Path, store: Store, data: Conversations, scheme: str
) -> None:
    """Scale: absmax / 127.5 (int8) or / 448 (fp8) of what enters; layer 0's input is the embedding itself."""
    import torch

    step = Quantize(scheme=scheme, calibration_rows=16)  # type: ignore[arg-type] - parametrized
    after = tensors_of(made(step, base, store, data))
    model, tokenizer = checkpoint.load(base, "cpu")
    from compressors.data import tokenize

    ids = [token for row in data.rows[:16] for token in tokenize(tokenizer, row, 512).ids]
    absmax = model.get_input_embeddings().weight[ids].abs().max().float()
    given = after["model.layers.0.self_attn.q_proj.input_scale"].float()
    assert torch.allclose(given, absmax / (127.5 if scheme == "W8A8_STATIC" else 448), rtol=2**-7)


def test_the_head_is_untied_and_int8(base: Path, store: Store, data: Conversations) -> None:
    import torch

    folder = made(Quantize(scheme="W4A16", head="int8"), base, store, data)
    before, after = tensors_of(base), tensors_of(folder)
    table = before["model.embed_tokens.weight"]
    scale = table.abs().amax(dim=1, keepdim=True) / torch.tensor(127.5, dtype=torch.bfloat16)
    scale[scale == 0] = torch.finfo(torch.bfloat16).eps  # the padding token's row is all zeros
    assert torch.equal(after["model.embed_tokens.weight"], table)
    assert torch.equal(after["lm_head.weight_scale"], scale)
    assert torch.equal(after["lm_head.weight"], torch.clamp(torch.round(table / scale), -128, 127).to(torch.int8))
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    targets = [group["targets"] for group in config["quantization_config"]["config_groups"].values()]
    assert ["re:.*lm_head$"] in targets


def test_the_cache_has_scales(base: Path, store: Store, data: Conversations) -> None:
    folder = made(Quantize(scheme="W8A8", kv_cache="fp8", calibration_rows=8), base, store, data)
    kept = json.loads((folder / "config.json").read_text())["quantization_config"]["kv_cache_scheme"]
    assert (kept["num_bits"], kept["type"], kept["strategy"], kept["dynamic"]) == (8, "float", "tensor", False)
    after = tensors_of(folder)
    for layer in range(4):
        for part in "kv":
            assert float(after[f"model.layers.{layer}.self_attn.{part}_scale"]) > 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scheme": "W8A8", "method": "awq"}, "W8A8 is made by rtn, gptq, smoothquant, not by awq"),
        ({"scheme": "FP8_STATIC", "method": "autoround"}, "FP8_STATIC is made by rtn, not by autoround"),
        ({"scheme": "W8A8", "group_size": 64}, "group_size 64 does not belong to scheme W8A8"),
        ({"scheme": "W8A8", "dampening": 0.1}, "dampening 0.1 belongs to method gptq, not to rtn"),
        ({"scheme": "W8A8", "act_order": False}, "act_order False belongs to method gptq, not to rtn"),
        ({"scheme": "W8A8", "smoothing": 0.5}, "smoothing 0.5 belongs to method smoothquant, not to rtn"),
        ({"scheme": "W8A8", "method": "gptq", "iterations": 5}, "iterations 5 belongs to method autoround"),
        ({"scheme": "W8A8", "method": "smoothquant"}, "smoothquant has no mapping for Exaone4ForCausalLM"),
        ({"scheme": "W8A8", "sensitive_scheme": "bf16"}, "there are 0"),
        ({"scheme": "W8A8", "sensitive": 4}, "sensitive 4 leaves no layer of 4"),
        ({"scheme": "W8A8", "sensitive": 1, "sensitive_scheme": "W8A8"}, "is the scheme of all other layers"),
        (
            {"scheme": "W8A8", "sensitive": 3, "keep": (r"model\.layers\.2\..*",)},
            "sensitive 3 leaves no layer of 3 to W8A8; keep holds 1 of 4 whole",
        ),
        (
            {"scheme": "W4A16", "group_size": 64, "method": "awq", "sensitive": 1, "sensitive_scheme": "W8A8"},
            "sensitive_scheme W8A8 is made by rtn, gptq, smoothquant, not by awq; bf16 goes with any",
        ),
        (
            {"scheme": "W4A16", "group_size": 64, "method": "autoround", "sensitive": 1, "sensitive_scheme": "W8A16"},
            "autoround has one scheme; its sensitive_scheme is bf16",
        ),
        ({"scheme": "W4A16", "group_size": 128}, "128 divides; model.layers.0.mlp.down_proj has 192 inputs"),
        ({"scheme": "FP8_BLOCK"}, "128 divides; model.layers.0.self_attn.k_proj has 128 inputs and 64 outputs"),
        ({"scheme": "W4A16", "method": "autoround", "kv_cache": "fp8"}, "kv_cache fp8 is not made by autoround"),
    ],
)
def test_refusals(fields: dict[str, Any], reason: str) -> None:
    engine = EngineTraits(
        name="any",
        device="cpu",
        schemes=frozenset(SCHEMES),
        features=frozenset({"int8_lm_head", "fp8_kv_cache"}),
    )
    with pytest.raises(Infeasible, match=reason) as raised:
        check_recipe([Quantize(**fields)], SMALL, engine)
    assert "\n" not in str(raised.value)


def test_a_layer_kept_in_part_still_counts_among_those_to_choose_from(engine: EngineTraits) -> None:
    keep = (r"model\.layers\.2\.mlp\..*", r"model\.layers\.3\..*")
    check_recipe([Quantize(scheme="W8A8", sensitive=2, keep=keep)], SMALL, engine)
    with pytest.raises(Infeasible, match="sensitive 3 leaves no layer of 3"):
        check_recipe([Quantize(scheme="W8A8", sensitive=3, keep=keep)], SMALL, engine)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"scheme": "W8A8", "head": "int8"}, "int8_lm_head"),
        ({"scheme": "W8A8", "kv_cache": "fp8"}, "fp8_kv_cache"),
        ({"scheme": "W8A8", "sensitive": 1, "sensitive_scheme": "W8A16"}, "W8A16"),
        ({"scheme": "W8A16"}, "W8A16"),
    ],
)
def test_what_the_engine_lacks_is_named(fields: dict[str, Any], missing: str) -> None:
    engine = EngineTraits(
        name="vllm 9", device="cpu", schemes=frozenset({"W8A8"}), lacking={missing: f"kernel of {missing} is missing"}
    )
    with pytest.raises(Infeasible, match=f"quantize: vllm 9 .*kernel of {missing} is missing"):
        check_recipe([Quantize(**fields)], SMALL, engine)


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
    groups = json.loads((gptq.folder / "config.json").read_text())["quantization_config"]["config_groups"]
    assert groups["group_0"]["weights"]["actorder"] is None  # vLLM 0.14.1 refuses to read it without groups
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
