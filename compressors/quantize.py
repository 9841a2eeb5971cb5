"""Quantization after training: the step's fields and what it refuses. How llmcompressor is asked: `quantizers`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from compressors.schemes import BLOCK, DEFAULT_GROUP, SCHEMES, Scheme
from compressors.sharding import on_each
from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext, StepFault

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# vLLM fuses these into one matrix each, which has one scheme
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
# SmoothQuant divides what a norm puts out by scales that the next matrices take in; these norms stand behind them
POST_NORM = ("Exaone4ForCausalLM",)
# fields of one method, and the method
BELONGS = {"dampening": "gptq", "act_order": "gptq", "smoothing": "smoothquant", "iterations": "autoround"}


class Quantize(Step):
    """Quantize all linear layers of the decoder but those that `keep` names, and the head if asked.

    Schemes: W8A8 (int8 per output channel, activations per token), W8A8_STATIC (activations per tensor, measured),
    FP8_DYNAMIC, FP8_STATIC, FP8_BLOCK (squares of 128), W4A16, W4A16_ASYM and W4A8 (int4 in groups of
    `group_size` inputs), W8A16 (int8 per output channel). All but W4A16_ASYM are symmetric.

    Methods: rtn rounds to nearest; gptq (Frantar et al., 2022) makes up in later columns for the error of earlier
    ones, and keeps pruned weights at zero; awq (Lin et al., 2023) scales channels by their activations first: in
    a post-norm model v→o and up→down only, and v→o only where all heads have a KV head of their own; smoothquant
    (Xiao et al., 2022) moves activation outliers into weights; autoround (Cheng et al., 2023) learns the rounding.
    awq and smoothquant rescale kept layers beside quantized ones too, without changing what the model computes.

    The `sensitive` decoder layers that lose most by the scheme (see `compressors.sensitivity`), of those that `keep`
    does not hold whole, go to `sensitive_scheme`. `head: int8` unties the head and makes it W8A8 by rtn. Raises
    `Infeasible` for fields of another method or scheme, for what the engine does not serve, for widths that groups or
    blocks do not divide (those that each GPU has, where several share a model), for smoothquant on a post-norm model,
    and when `keep` splits matrices that vLLM fuses or leaves nothing; `StepFault` where gptq cannot use what the data
    show.
    """

    step: Literal["quantize"] = "quantize"
    scheme: Literal[
        "W8A8", "W8A8_STATIC", "FP8_DYNAMIC", "FP8_STATIC", "FP8_BLOCK", "W4A16", "W4A16_ASYM", "W8A16", "W4A8"
    ] = Field(description="what weights and activations become")
    method: Literal["rtn", "gptq", "awq", "smoothquant", "autoround"] = Field(
        "rtn", description="how weights are rounded; all but rtn need data"
    )
    group_size: Literal[32, 64, 128] | None = Field(
        None, description="inputs that share a scale, for schemes of int4; 128 if not given"
    )
    dampening: PositiveFloat | None = Field(
        None, description="gptq: added to the Hessian's diagonal, as a share of its mean; 0.01 if not given"
    )
    act_order: bool | None = Field(
        None, description="gptq: round the columns with the largest activations first; yes if not given"
    )
    smoothing: float | None = Field(
        None, ge=0, le=1, description="smoothquant: share of the outliers that weights take over; 0.5 if not given"
    )
    iterations: PositiveInt | None = Field(
        None, description="autoround: optimizer steps a decoder layer; 200 if not given"
    )
    calibration_rows: PositiveInt = Field(128, description="conversations read, where the method or scheme needs data")
    sensitive: NonNegativeInt = Field(0, description="decoder layers, the most sensitive ones, given another scheme")
    sensitive_scheme: Literal["bf16", "W8A16", "W8A8"] | None = Field(
        None, description="what those become; bf16 if not given"
    )
    head: Literal["bf16", "int8"] = Field("bf16", description="int8: the head is untied and quantized, W8A8")
    kv_cache: Literal["auto", "fp8"] = Field("auto", description="fp8: keys and values are cached in fp8, scaled")
    keep: tuple[str, ...] = Field(
        (), description="regular expressions of module names left in bf16, matched from the name's start"
    )

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = (
        "compressors.data",
        "compressors.schemes",
        "compressors.quantizers",
        "compressors.sensitivity",
        "compressors.divergence",
        "compressors.logits",
    )

    @field_validator("keep")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns

    def takes_data(self) -> bool:
        static = SCHEMES[self.scheme].static
        return self.method != "rtn" or static or self.kv_cache == "fp8" or self.sensitive > 0

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        scheme = SCHEMES[self.scheme]
        engine.require_scheme(self.scheme, self.step)
        if self.method not in scheme.methods:
            made = ", ".join(scheme.methods)
            raise Infeasible(f"quantize scheme {self.scheme} is made by {made}, not by {self.method}")
        self._check_fields(scheme)
        if self.method == "smoothquant" and shape.architecture in POST_NORM:
            raise Infeasible(
                f"quantize method smoothquant has no mapping for {shape.architecture}: its norms stand behind the "
                "matrices, so none can take up the scales"
            )
        self._check_trained_for(shape)
        if self.head == "int8":
            engine.require("int8_lm_head", self.step)
        if self.kv_cache == "fp8":
            engine.require("fp8_kv_cache", self.step)
            if self.method == "autoround":
                raise Infeasible("quantize kv_cache fp8 is not made by autoround, but by any other method")
        linears = {name: on_each(name, size, shape, engine.gpus) for name, size in linear_sizes(shape)}
        self._check_modules(linears, scheme, f" on each of {engine.gpus} GPUs" if engine.gpus > 1 else "")
        self._check_sensitive(self._layers_left(linears), shape.layers, engine)

    def _check_trained_for(self, shape: ModelShape) -> None:
        """What was trained through one rounding is lost in another."""
        if shape.trained_for is None:
            return
        if self.scheme != shape.trained_for:
            raise Infeasible(
                f"quantize scheme {self.scheme} is not what was trained for: fake_quant {shape.trained_for}"
            )
        if self.method in ("awq", "smoothquant"):
            raise Infeasible(
                f"quantize method {self.method} rescales weights trained for {shape.trained_for} as they are"
            )
        if self.group_size not in (None, DEFAULT_GROUP):
            raise Infeasible(
                f"quantize group_size {self.group_size} is not what was trained for: groups of {DEFAULT_GROUP}"
            )

    def _check_fields(self, scheme: Scheme) -> None:
        for name, method in BELONGS.items():
            value = getattr(self, name)
            if value is not None and self.method != method:
                raise Infeasible(f"quantize {name} {value} belongs to method {method}, not to {self.method}")
        if self.group_size is not None and not scheme.grouped:
            raise Infeasible(f"quantize group_size {self.group_size} does not belong to scheme {self.scheme}")
        if self.sensitive_scheme is not None and not self.sensitive:
            raise Infeasible(f"quantize sensitive_scheme {self.sensitive_scheme} is for sensitive layers; there are 0")

    def _check_sensitive(self, left: Sequence[int], layers: int, engine: EngineTraits) -> None:
        """`left`: the layers of all that `keep` leaves something of."""
        if not self.sensitive:
            return
        if self.sensitive >= len(left):
            kept = f"; keep holds {layers - len(left)} of {layers} whole" if len(left) < layers else ""
            raise Infeasible(
                f"quantize sensitive {self.sensitive} leaves no layer of {len(left)} to {self.scheme}{kept}"
            )
        if self.sensitive_scheme == self.scheme:
            raise Infeasible(f"quantize sensitive_scheme {self.sensitive_scheme} is the scheme of all other layers")
        if self.sensitive_scheme not in (None, "bf16"):
            if self.method == "autoround":
                raise Infeasible("quantize method autoround has one scheme; its sensitive_scheme is bf16")
            makers = SCHEMES[str(self.sensitive_scheme)].methods
            if self.method not in makers:
                raise Infeasible(
                    f"quantize sensitive_scheme {self.sensitive_scheme} is made by {', '.join(makers)}, "
                    f"not by {self.method}; bf16 goes with any"
                )
            engine.require_scheme(str(self.sensitive_scheme), self.step)

    def _check_modules(self, linears: dict[str, tuple[int, int]], scheme: Scheme, where: str) -> None:
        """`linears`: inputs and outputs of each, `where` they are served: scales cannot be shared between GPUs."""
        kept = {name for name in linears if self._keeps(name)}
        for pattern in self.keep:
            if not any(re.match(pattern, name) for name in linears):
                raise Infeasible(f"quantize keep {pattern!r} matches no linear layer of this model")
        if kept == set(linears):
            raise Infeasible("quantize keep leaves nothing to quantize")
        for name, (inputs, outputs) in linears.items():
            if name in kept:
                continue
            group = self.group_size or DEFAULT_GROUP
            if scheme.grouped and inputs % group:
                raise Infeasible(
                    f"quantize scheme {self.scheme} needs widths that {group} divides; {name} has {inputs} inputs"
                    f"{where}"
                )
            if self.scheme == "FP8_BLOCK" and (inputs % BLOCK or outputs % BLOCK):
                raise Infeasible(
                    f"quantize scheme FP8_BLOCK needs widths that {BLOCK} divides; {name} has {inputs} inputs and "
                    f"{outputs} outputs{where}"
                )
        for name in kept:
            parent, _, leaf = name.rpartition(".")
            for fused in FUSED:
                split = [other for other in fused if leaf in fused and f"{parent}.{other}" not in kept]
                if split:
                    raise Infeasible(f"quantize keep holds {name} but not {split[0]}; vLLM fuses the two")

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(
            update={
                "quantized": self.scheme,
                "tied": shape.tied and self.head == "bf16",
                "calibrated": SCHEMES[self.scheme].static or self.kv_cache == "fp8",
                "trained_for": None,
            }
        )

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        from compressors import checkpoint

        model, tokenizer = checkpoint.load(source, context.device)
        try:
            rows = self._rows(tokenizer, context)
            chosen = self._sensitive_layers(model, source, rows, context) if self.sensitive else []
            self._quantize(model, tokenizer, rows, chosen)
            checkpoint.save(model, tokenizer, target, files_from=source)
        finally:
            checkpoint.let_go(model)

    def _quantize(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], chosen: list[int]
    ) -> None:
        from compressors.quiet import errors_only

        errors_only()
        from compressors import quantizers

        keep = tuple(f"re:{pattern}" for pattern in self.keep)
        layers = (rf"re:model\.layers\.({'|'.join(map(str, chosen))})\..*_proj$",) if chosen else ()
        other = self.sensitive_scheme or "bf16"
        request = quantizers.Request(
            method=self.method,
            scheme=self.scheme,
            group_size=self.group_size,
            keep=keep + layers if other == "bf16" else keep,
            others={other: layers} if layers and other != "bf16" else {},
            int8_head=self.head == "int8",
            fp8_kv_cache=self.kv_cache == "fp8",
            dampening=self.dampening,
            act_order=self.act_order,
            smoothing=self.smoothing,
            iterations=self.iterations,
        )
        needed = self.method != "rtn" or SCHEMES[self.scheme].static or self.kv_cache == "fp8"
        quantizers.quantize(model, tokenizer, request, quantizers.calibration(rows) if needed else None)

    def _sensitive_layers(
        self, model: PreTrainedModel, source: Path, rows: list[list[int]], context: StepContext
    ) -> list[int]:
        from compressors.sensitivity import kept_table, sensitivity, within

        few = within(rows)

        def make() -> list[float]:
            context.progress(f"quantize: measuring how {len(model.model.layers)} layers bear {self.scheme}")
            return sensitivity(model, self.scheme, self.group_size, few)

        data = context.data.fingerprint
        device = model.device.type
        table = kept_table(context.cache, source, self.scheme, self.group_size, data, few, device, make)
        able = self._layers_left(name for name, _ in model.named_modules() if name.endswith("_proj"))
        chosen = sorted(sorted(able, key=lambda layer: (-table[layer], layer))[: self.sensitive])
        context.notes.update(sensitivity=table, sensitive_layers=chosen)
        return chosen

    def _layers_left(self, names: Iterable[str]) -> list[int]:
        """Decoder layers, of those that the linear layers `names` belong to, that `keep` does not leave whole."""
        return sorted({int(name.split(".")[2]) for name in names if not self._keeps(name)})

    def _keeps(self, name: str) -> bool:
        return any(re.match(pattern, name) for pattern in self.keep)

    def _rows(self, tokenizer: PreTrainedTokenizerBase, context: StepContext) -> list[list[int]]:
        """Token ids of the calibration rows; none where no data is needed."""
        from compressors.data import tokenize
        from compressors.quantizers import MAX_LENGTH

        if not self.takes_data():
            return []
        samples = [tokenize(tokenizer, row, MAX_LENGTH) for row in context.data.rows[: self.calibration_rows]]
        rows = [list(sample.ids) for sample in samples if sample.ids]
        if not rows:
            raise StepFault(f"quantize {self.scheme} by {self.method} has no calibration rows")
        return rows


def linear_sizes(shape: ModelShape) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name and number of inputs and outputs of every linear layer within the decoder layers of a model of `shape`."""
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        "self_attn.q_proj": (shape.hidden, attention),
        "self_attn.k_proj": (shape.hidden, kv),
        "self_attn.v_proj": (shape.hidden, kv),
        "self_attn.o_proj": (attention, shape.hidden),
        "mlp.gate_proj": (shape.hidden, shape.ffn),
        "mlp.up_proj": (shape.hidden, shape.ffn),
        "mlp.down_proj": (shape.ffn, shape.hidden),
    }
    for layer in range(shape.layers):
        for name, size in sizes.items():
            yield f"model.layers.{layer}.{name}", size
