"""What a recipe would do where it is meant to run: predicted, never measured, and said so.

The roofline tells SpeedNorm on the target's GPU over the contest's workload; recorded submissions tell what the
contest's server would say. Both need the recipe and the base's config alone: no weights, no engine, no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from compressors.quantize import Quantize
from compressors.shape import read_shape
from compressors.step import ModelShape
from compressors.vocabulary import TrimVocab
from evaluation.description import SCHEMES, Description, Linear, description_of
from evaluation.devices import Device, DeviceName, known_device
from evaluation.leaderboard import WHOLE, Calibration, Forecast
from evaluation.roofline import Prediction, predict
from evaluation.submissions import Submission, read_submissions
from evaluation.workload import CONTEST
from search.errors import BadInput
from search.recipe import Recipe
from search.space import Space

NF4 = Linear(bits=4, group=64)
TRAINING = ("distill", "finetune")


def speed_on(target: DeviceName, recipe: Recipe, base: Path) -> Prediction:
    """SpeedNorm of `recipe` beside `base` on `target`, answers as long as the base's."""
    original = description_of(base)
    return predict(described(recipe, base), original, CONTEST, device_of(target))


def base_described(base: Path) -> Description | None:
    """None for a base whose numbers the roofline does not know, such as another tool's quantization."""
    try:
        return description_of(base)
    except ValueError:
        return None


def described(recipe: Recipe, base: Path) -> Description:
    """The model that `recipe` makes of `base`, as the roofline sees it."""
    shape = read_shape(base)
    for step in recipe.steps:
        shape = step.reshape(shape)
        if isinstance(step, TrimVocab) and step.keep is not None:  # an exact trim leaves what its texts need
            shape = shape.model_copy(update={"vocab": step.keep})
    model = description_of(base, shape.model_dump())
    for step in recipe.steps:
        if isinstance(step, Quantize):
            model = _quantized(model, step)
        elif step.step == "nf4":
            model = model.model_copy(update={"linears": (NF4,)})
    return model


def forecast(recipe: Recipe, base: Path, submissions: Path) -> Forecast:
    """What the contest's server would say. Raises `BadInput` for a file that nothing can be learned from."""
    return learned(submissions).forecasts([as_submission(recipe, read_shape(base))])[0]


def as_submission(recipe: Recipe, shape: ModelShape) -> Submission:
    """The recipe in the words in which submissions are recorded; a scheme without a name of its own is `other`."""
    quantizing = [step for step in recipe.steps if isinstance(step, Quantize)]
    for step in recipe.steps:
        shape = step.reshape(shape)
    scheme = quantizing[-1].scheme if quantizing else shape.quantized
    named = {"FP8_DYNAMIC": "FP8", "FP8_STATIC": "FP8", "W8A8": "W8A8", "W4A16": "W4A16", None: "none"}
    return Submission(
        scheme=named.get(scheme, "other"),
        algorithm=quantizing[-1].method if quantizing else None,
        layers=shape.layers,
        trained=any(step.step in TRAINING for step in recipe.steps),
        kept=any(one.sensitive > 0 or bool(one.keep) for one in quantizing),
        trimmed=any(step.step == "trim_vocab" for step in recipe.steps),
    )


def predicted_of(space: Space, recipe: Recipe, base: Path, device: str = "") -> dict[str, Any]:
    """What is predicted by the space's `target`, unless `device` is that one, and by its `submissions`.

    Nothing where the base's config is not at hand.
    """
    found: dict[str, Any] = {}
    if not (base / "config.json").is_file():
        return found
    target = space.foretold
    if target is not None and known_device(device) != target and base_described(base) is not None:
        found["speed_norm"] = speed_on(target, recipe, base).speed_norm
    if space.submissions is not None and Path(space.submissions).is_file():  # it lies with who began the run
        found["server"] = forecast(recipe, base, Path(space.submissions)).model_dump()
    return found


def in_words(space: Space, predicted: dict[str, Any]) -> Iterator[str]:
    """A line a prediction."""
    if "speed_norm" in predicted:
        yield f"predicted by a roofline, not measured: SpeedNorm {predicted['speed_norm']:+.3f} on {space.target}"
    if "server" in predicted:
        one = Forecast.model_validate(predicted["server"])
        unseen = f"; no submission showed: {', '.join(one.unseen)}" if one.unseen else ""
        yield (
            f"predicted from {Path(space.submissions or '').name}, not submitted: {one.fast:.3f} [{one.fast_low:.3f}, "
            f"{one.fast_high:.3f}] in the server's fast mood, {one.loss:.3f} less in its slow one "
            f"(chance {one.slow_chance:.0%}){unseen}"
        )


def _quantized(model: Description, step: Quantize) -> Description:
    scheme = (
        "FP8_DYNAMIC" if step.scheme.startswith("FP8") else step.scheme.removesuffix("_ASYM").removesuffix("_STATIC")
    )
    more: dict[str, Any] = {}
    if step.head == "int8":
        more |= {"head": SCHEMES["W8A8"], "tied": False}
    if step.kv_cache == "fp8":
        more |= {"kv_bits": 8}
    whole = model.quantized(scheme, **more)
    if step.group_size is not None:
        parts = tuple(one.model_copy(update={"group": step.group_size}) if one.group else one for one in whole.linears)
        whole = whole.model_copy(update={"linears": parts})
    if not step.sensitive:
        return whole
    spared = SCHEMES[step.sensitive_scheme or "bf16"]
    share = step.sensitive / model.layers
    kept = tuple(one.model_copy(update={"share": one.share * (1 - share)}) for one in whole.linears)
    return whole.model_copy(update={"linears": (*kept, spared.model_copy(update={"share": share}))})


@cache
def device_of(name: DeviceName) -> Device:
    """The GPU as the roofline knows it."""
    from evaluation.roofline_table import known

    return known(name)


def check_submissions(path: Path, base: Path) -> None:
    """Raise `BadInput` where nothing can be learned from the CSV, or nothing that holds for `base`."""
    learned(path)
    layers = read_shape(base).layers
    if layers != WHOLE:
        raise BadInput(
            f"submissions: {path.name} tells of EXAONE-4.0-1.2B, {WHOLE} layers, and {base} has {layers}: no forecast "
            "from it would hold; leave `submissions` out"
        )


@cache
def learned(path: Path) -> Calibration:
    """A calibration from the CSV at `path`. Raises `BadInput`."""
    try:
        return Calibration(read_submissions(path))
    except ValueError as fault:
        raise BadInput(str(fault)) from fault
