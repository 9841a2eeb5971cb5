"""The roofline beside what was measured on an H100, and what it says of other devices: `python -m evaluation.roofline`.

Knows EXAONE-4.0-1.2B's sizes and the measurements; the formulas are in `evaluation.roofline`.
"""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.description import SCHEMES, Description
from evaluation.devices import DEVICES, H100, Device, DeviceName
from evaluation.roofline import Measured, fit, left_out, moved, predict
from evaluation.workload import CONTEST, Requests, contest

EXAONE = Description(
    layers=30, hidden=2048, ffn=4096, heads=32, kv_heads=8, head_dim=64, vocab=102400, tied=True
)  # EXAONE-4.0-1.2B
LONG_PROMPTS = (Requests(name="long prompts", prompts=32, prompt_tokens=8000, output_tokens=32),)


def resized(**sizes: int) -> Description:
    """EXAONE with some sizes changed."""
    return EXAONE.model_copy(update=sizes)


# Seconds on one H100, vLLM 0.26, EXAONE-4.0-1.2B's shape with random weights: the lesser of two passes, each beside the
# base's (tests/benchmarks/gpu_speed.py), which lay between 1.876 and 1.893 s in ten such pairs. Of earlier sittings are
# W8A8 and W4A16 (beside 1.893 s) and the fp8 KV cache (beside 1.883 s).
MEASURED = tuple(
    Measured(name=name, model=model, workload=LONG_PROMPTS, seconds=took)
    for name, model, took in (
        ("bf16", EXAONE, 1.885),
        ("W8A8", EXAONE.quantized("W8A8"), 1.592),
        ("FP8_DYNAMIC", EXAONE.quantized("FP8_DYNAMIC"), 1.597),
        ("W4A16", EXAONE.quantized("W4A16"), 1.992),
        ("W8A16", EXAONE.quantized("W8A16"), 2.062),
        ("W8A8, int8 lm_head", EXAONE.quantized("W8A8", head=SCHEMES["W8A8"], tied=False), 1.578),
        ("bf16, 27 layers", resized(layers=27), 1.703),
        ("W8A8, 27 layers", resized(layers=27).quantized("W8A8"), 1.470),
        ("W8A8, 24 layers", resized(layers=24).quantized("W8A8"), 1.284),
        ("bf16, FFN 3072", resized(ffn=3072), 1.726),
        ("W8A8, FFN 3072", resized(ffn=3072).quantized("W8A8"), 1.486),
        ("bf16, 24 heads", resized(heads=24, kv_heads=6), 1.635),
        ("bf16, hidden 1536", resized(hidden=1536), 1.674),
        ("bf16, fp8 KV cache", resized(kv_bits=8), 1.820),
    )
)
BASE = "bf16"
AT_ONCE = (256, 32, 8, 4, 1)

CANDIDATES: dict[str, Description] = {
    "bf16": EXAONE,
    "W8A8": EXAONE.quantized("W8A8"),
    "FP8_DYNAMIC": EXAONE.quantized("FP8_DYNAMIC"),
    "W4A16": EXAONE.quantized("W4A16"),
    "W4A16, 8 layers in bf16": EXAONE.quantized("W4A16", kept_layers=8),
    "W8A8, 28 layers": EXAONE.model_copy(update={"layers": 28}).quantized("W8A8"),
    "W8A8, vocabulary of 80,000": EXAONE.model_copy(update={"vocab": 80000}).quantized("W8A8"),
}


def known(name: DeviceName) -> Device:
    """A device with the efficiencies that the measurements speak for: on an H100 all, else those of kernels."""
    device, fitted = DEVICES[name], fit(MEASURED, H100)
    return fitted if device is H100 else moved(fitted, device)


def fit_table(fitted: Device) -> list[str]:
    """Markdown lines: predicted and measured seconds and SpeedNorm, and the latter with the row left out."""
    base = MEASURED[0]
    alone = left_out(MEASURED, BASE, H100)
    lines = [
        "| model | seconds predicted | measured | SpeedNorm predicted | measured | error | error, left out |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    errors, errors_alone = [], []
    for one in MEASURED:
        told = predict(one.model, base.model, one.workload, fitted)
        start = f"| {one.name} | {told.seconds:.3f} | {one.seconds:.3f} |"
        if one.name == BASE:
            lines.append(f"{start} | | | |")
            continue
        seen = 1 - one.seconds / base.seconds
        errors.append(told.speed_norm - seen)
        errors_alone.append(alone[one.name] - seen)
        lines.append(f"{start} {told.speed_norm:+.3f} | {seen:+.3f} | {errors[-1]:+.3f} | {errors_alone[-1]:+.3f} |")
    mean, mean_alone = (sum(map(abs, some)) / len(some) for some in (errors, errors_alone))
    return [*lines, f"| mean absolute error | | | | | {mean:.3f} | {mean_alone:.3f} |"]


def device_table(devices: Mapping[DeviceName, Device]) -> list[str]:
    """Markdown lines: SpeedNorm of every candidate on every device, over the contest's workload."""
    lines = [
        "| model | " + " | ".join(devices) + " |",
        "| --- |" + " --- |" * len(devices),
    ]
    for name, model in CANDIDATES.items():
        told = [predict(model, EXAONE, CONTEST, device) for device in devices.values()]
        cells = (f"{one.speed_norm:+.3f} ({1000 * one.sec_per_token:.2f} ms)" for one in told)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def concurrency_table(device: Device) -> list[str]:
    """Markdown lines: SpeedNorm and minutes on `device` by sequences at once, which nobody has said of the server."""
    lines = ["| model | " + " | ".join(f"{one} at once" for one in AT_ONCE) + " |", "| --- |" + " --- |" * len(AT_ONCE)]
    for name, model in CANDIDATES.items():
        told = [predict(model, EXAONE, contest(one), device) for one in AT_ONCE]
        lines.append(
            f"| {name} | " + " | ".join(f"{one.speed_norm:+.3f} ({one.seconds / 60:.1f})" for one in told) + " |"
        )
    return lines


def main() -> None:
    fitted = fit(MEASURED, H100)
    shown = {name: known(name) for name in DEVICES}
    told = ", ".join(f"{name} {value:.3g}" for name, value in fitted.efficiencies)
    print("\n".join(["Measured and predicted, one H100:", "", *fit_table(fitted), "", f"Efficiencies: {told}.", ""]))
    print("\n".join(["Predicted, not measured: SpeedNorm and ms a token, the contest's workload:", ""]))
    print("\n".join(device_table(shown)))
    print(
        "\n".join(
            ["", f"Predicted, not measured: SpeedNorm and minutes on {shown['L4'].name} by sequences at once:", ""]
        )
    )
    print("\n".join(concurrency_table(shown["L4"])))
