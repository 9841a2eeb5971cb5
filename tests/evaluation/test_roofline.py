"""The roofline against formulas by hand, at its limits, and against what was measured on an H100."""

import json

import pytest

from evaluation.description import SCHEMES, Linear, description_of
from evaluation.devices import A100, DEVICES, H100, L4, Efficiencies
from evaluation.roofline import (
    CHUNK,
    Measured,
    decode_seconds,
    fit,
    layer_traffic,
    left_out,
    moved,
    predict,
    prefill_seconds,
    seconds,
)
from evaluation.roofline_table import AT_ONCE, BASE, CANDIDATES, EXAONE, LONG_PROMPTS, MEASURED, main
from evaluation.workload import CONTEST, Requests, contest

FREE = {"layer_seconds": 1e-12, "step_seconds": 1e-12}  # steps that cost nothing besides
IDEAL = Efficiencies(bf16=1, int8=1, fp8=1, attention=1, bandwidth=1, dequantization=1, **FREE)
ONE = Requests(name="one", prompts=1, prompt_tokens=1, output_tokens=101)


def ideal(device, **more):
    return device.model_copy(update={"efficiencies": IDEAL, **more})


def test_the_sizes_of_exaone_by_hand():
    assert EXAONE.parameters == 1_279_391_488
    assert EXAONE.linear_weights == 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 4096
    assert EXAONE.head_weights == 209_715_200
    assert EXAONE.kv_bytes == 2 * 30 * 8 * 64 * 2
    assert EXAONE.step_bytes == 2 * (30 * 35_651_584 + 209_715_200)
    assert EXAONE.quantized("W8A8").step_bytes == 30 * 35_651_584 + 2 * 209_715_200
    assert EXAONE.quantized("W4A16").step_bytes == pytest.approx(30 * 35_651_584 * (4 + 16 / 128) / 8 + 2 * 209_715_200)


def test_decoding_one_sequence_is_bound_by_reading_the_weights():
    cache = EXAONE.kv_bytes * (1 + 101 / 2)
    by_hand = 100 * (EXAONE.step_bytes + cache) / L4.bandwidth
    assert decode_seconds(EXAONE, ONE, ideal(L4)) == pytest.approx(by_hand, rel=1e-6)


def test_what_fits_the_cache_is_not_moved():
    many = Requests(name="many", prompts=4, prompt_tokens=CHUNK, output_tokens=1)
    small, large = ideal(L4), ideal(L4, cache=1e12)
    moved_bytes = 4 * CHUNK * 30 * layer_traffic(EXAONE)
    apart = prefill_seconds(EXAONE, many, small) - prefill_seconds(EXAONE, many, large)
    assert apart == pytest.approx(moved_bytes / L4.bandwidth, rel=1e-6)
    by_hand = 2 * (2 * (2048 + 512) + 3 * 4096 + 8 * 2048)
    assert layer_traffic(EXAONE) == by_hand
    assert layer_traffic(EXAONE.quantized("W8A8")) == by_hand + 3 * (2 * 2048 + 2048 + 4096)


def test_a_prompts_pass_is_bound_by_computation():
    device = ideal(L4, bandwidth=1e18)
    requests = Requests(name="prompts", prompts=2, prompt_tokens=CHUNK, output_tokens=1)
    linear = 2 * 2 * CHUNK * 30 * 35_651_584
    attention = 2 * 4 * 30 * 2048 * CHUNK * (CHUNK + 1) / 2
    head = 2 * 2 * 209_715_200
    assert prefill_seconds(EXAONE, requests, device) == pytest.approx((linear + attention + head) / 121e12, rel=1e-6)
    in_int8 = prefill_seconds(EXAONE.quantized("W8A8"), requests, device)
    assert in_int8 == pytest.approx((linear / 2 + attention + head) / 121e12, rel=1e-6)
    assert decode_seconds(EXAONE, requests, device) == 0


def test_only_weights_that_are_unpacked_pay_for_it():
    device = ideal(L4, bandwidth=1e18)
    slower = device.model_copy(update={"efficiencies": IDEAL.model_copy(update={"dequantization": 1.5})})
    for scheme, numbers in SCHEMES.items():
        model = EXAONE.quantized(scheme)
        pays = seconds(model, LONG_PROMPTS, slower) > seconds(model, LONG_PROMPTS, device)
        assert pays == ((numbers.bits < 16 and numbers.rate == "bf16") or scheme == "W4A8"), scheme


def test_fp8_without_its_unit_computes_in_bf16():
    assert A100.rate("fp8") == pytest.approx(A100.rate("bf16") / A100.efficiencies.dequantization)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_less_of_a_model_is_never_slower(device):
    def took(model):
        return seconds(model, CONTEST, device)

    assert took(EXAONE.model_copy(update={"layers": 27})) < took(EXAONE)
    assert took(EXAONE.model_copy(update={"kv_bits": 8})) < took(EXAONE)
    assert took(EXAONE.model_copy(update={"vocab": 80_000})) < took(EXAONE)
    by_bits = [decode_seconds(EXAONE.quantized(scheme), ONE, device) for scheme in ("W4A16", "W8A16", "bf16")]
    assert by_bits == sorted(by_bits)
    mixed = [took(EXAONE.quantized("W8A8", kept_layers=kept)) for kept in (0, 10, 20, 30)]
    assert mixed == sorted(mixed)
    assert mixed[-1] == pytest.approx(took(EXAONE))


def test_a_prediction_says_that_it_is_one():
    told = predict(EXAONE.quantized("W8A8"), EXAONE, CONTEST, L4)
    assert told.predicted is True
    assert told.device == "NVIDIA L4"
    assert told.sec_per_token == pytest.approx(told.seconds / told.tokens)
    assert told.speed_norm == pytest.approx(1 - told.sec_per_token / told.sec_per_token_base)
    assert predict(EXAONE, EXAONE, CONTEST, L4).speed_norm == 0


def test_a_fit_finds_the_efficiencies_that_made_the_measurements():
    true = Efficiencies(
        bf16=0.7, int8=0.45, fp8=0.42, attention=0.5, bandwidth=0.8, dequantization=1.2,
        layer_seconds=2e-5, step_seconds=5e-4,
    )  # fmt: skip
    device = H100.model_copy(update={"efficiencies": true})
    workloads = [
        (Requests(name="long", prompts=32, prompt_tokens=8000, output_tokens=1),),
        (Requests(name="short", prompts=512, prompt_tokens=200, output_tokens=1),),
        (Requests(name="few", prompts=1, prompt_tokens=20, output_tokens=200),),
        (Requests(name="many", prompts=64, prompt_tokens=4000, output_tokens=200),),
    ]
    models = [EXAONE.quantized(scheme) for scheme in ("bf16", "W8A8", "FP8_DYNAMIC", "W4A16")]
    models.append(EXAONE.model_copy(update={"layers": 10}))
    made = [
        Measured(name="made", model=model, workload=workload, seconds=seconds(model, workload, device))
        for model in models
        for workload in workloads
    ]
    found = fit(made, H100).efficiencies
    for name, value in true:
        assert getattr(found, name) == pytest.approx(value, rel=0.05), name


def test_what_was_measured_on_an_h100():
    fitted, base = fit(MEASURED, H100), MEASURED[0]
    errors, errors_alone = [], []
    alone = left_out(MEASURED, BASE, H100)
    for one in MEASURED[1:]:
        seen = 1 - one.seconds / base.seconds
        errors.append(abs(predict(one.model, base.model, one.workload, fitted).speed_norm - seen))
        errors_alone.append(abs(alone[one.name] - seen))
    assert sum(errors) / len(errors) <= 0.03
    assert sum(errors_alone) / len(errors_alone) <= 0.03


@pytest.mark.parametrize("at_once", AT_ONCE)
def test_an_l4_ranks_schemes_as_public_submissions_do(at_once):
    device = moved(fit(MEASURED, H100), L4)
    names = ("W8A8", "FP8_DYNAMIC", "W4A16, 8 layers in bf16")
    told = [predict(CANDIDATES[name], EXAONE, contest(at_once), device).speed_norm for name in names]
    assert told == sorted(told, reverse=True)
    assert told[1] > 0.1


def test_the_command_says_what_is_predicted(capsys):
    main()
    told = capsys.readouterr().out
    assert "| W4A16 | 2.023 | 1.992 |" in told
    assert told.count("Predicted, not measured") == 2
    assert all(name in told for name in DEVICES)


def test_the_contests_requests_fit_an_l4s_cache():
    assert all(one.together * (one.prompt_tokens + one.output_tokens) <= 260_000 for one in CONTEST)
    assert {one.together for one in contest(8)} == {8}
    assert sum(one.generated for one in CONTEST) == (2822 + 2587) * 8 + 600 * 50 + 160 * 600


def test_bad_input_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="nothing to fit"):
        fit([], H100)
    with pytest.raises(ValueError, match="no measurement is named other"):
        left_out(MEASURED, "other", H100)
    with pytest.raises(ValueError, match="scheme W3A3 is not known"):
        EXAONE.quantized("W3A3")
    with pytest.raises(ValueError, match="31 layers cannot be kept"):
        EXAONE.quantized("W8A8", kept_layers=31)
    with pytest.raises(ValueError, match="it has no config"):
        description_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        description_of(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match="does not state hidden_size"):
        description_of(tmp_path)
    write(tmp_path, {"config_groups": {"group_0": {"targets": ["Linear"]}}})
    with pytest.raises(ValueError, match="none that llmcompressor writes"):
        description_of(tmp_path)


CONFIG = {
    "num_hidden_layers": 30, "hidden_size": 2048, "intermediate_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 102400, "tie_word_embeddings": True,
}  # fmt: skip
INT8 = {"num_bits": 8, "type": "int", "group_size": None}
FP8 = {"num_bits": 8, "type": "float", "group_size": None}
INT4 = {"num_bits": 4, "type": "int", "group_size": 128}


def write(folder, quantization, **more):
    (folder / "config.json").write_text(json.dumps(CONFIG | more | {"quantization_config": quantization}))


def group(weights, inputs=None, targets=("Linear",)):
    return {"weights": weights, "input_activations": inputs, "targets": list(targets)}


@pytest.mark.parametrize(
    ("stored", "made", "scheme"),
    [
        ("int-quantized", group(INT8, INT8), "W8A8"),
        ("pack-quantized", group(INT4), "W4A16"),
        ("float-quantized", group(FP8, FP8), "FP8_DYNAMIC"),
    ],
)
def test_a_checkpoint_describes_itself(tmp_path, stored, made, scheme):
    write(tmp_path, {"format": stored, "config_groups": {"group_0": made}, "ignore": ["lm_head"]})
    assert description_of(tmp_path) == EXAONE.quantized(scheme)
    assert description_of(tmp_path, {"layers": 27, "architecture": "x"}).layers == 27


def test_a_plain_checkpoint_and_implied_sizes(tmp_path):
    plain = {name: value for name, value in CONFIG.items() if name != "head_dim"}
    (tmp_path / "config.json").write_text(json.dumps(plain))
    assert description_of(tmp_path) == EXAONE


def test_kept_layers_a_quantized_head_and_cache(tmp_path):
    kept = [f"model.layers.{layer}.{module}" for layer in (0, 29) for module in EXAONE.modules]
    head = group(INT8, INT8, ["re:.*lm_head$"])
    groups = {"head": head, "group_0": group(INT4)}
    write(tmp_path, {"config_groups": groups, "ignore": kept, "kv_cache_scheme": FP8}, tie_word_embeddings=False)
    told = description_of(tmp_path)
    assert {part.bits: round(part.share, 6) for part in told.linears} == {16: round(2 / 30, 6), 4: round(28 / 30, 6)}
    assert told.head == Linear(bits=8, rate="int8")
    assert told.kv_bits == 8
    assert not told.tied


def test_what_one_device_teaches_of_another_is_about_kernels():
    fitted = H100.model_copy(update={"efficiencies": Efficiencies(bf16=0.8, int8=0.4, fp8=0.2, dequantization=1.3)})
    told = moved(fitted, L4).efficiencies
    assert (told.bf16, told.bandwidth) == (L4.efficiencies.bf16, L4.efficiencies.bandwidth)
    assert told.int8 / told.bf16 == pytest.approx(0.5)
    assert told.fp8 / told.bf16 == pytest.approx(0.25)
    assert told.dequantization == 1.3
