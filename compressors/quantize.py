"""Quantization after training, by llmcompressor; the head stays in bf16. Knows nothing of scores."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext, StepFault

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GROUP = 128  # input channels that share a scale in W4A16
MAX_LENGTH = 2048  # tokens of a calibration row; longer ones are cut
# vLLM fuses these into one matrix each, which has one scheme
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class Quantize(Step):
    """Quantize all linear layers but the head and those that `keep` names.

    W8A8: int8 weights per channel, int8 activations per token, dynamic. W4A16: int4 weights in groups of 128
    inputs. FP8_DYNAMIC: fp8 weights per channel, activations per token, dynamic. Symmetric throughout.
    `rtn` rounds to nearest and needs no data; `gptq` (Frantar et al., 2022) corrects later columns with data.
    Raises `Infeasible` when the engine does not serve the scheme, when 128 does not divide a width under
    W4A16, when `keep` splits matrices that vLLM fuses, and for gptq with FP8_DYNAMIC (made without data).
    """

    step: Literal["quantize"] = "quantize"
    scheme: Literal["W8A8", "W4A16", "FP8_DYNAMIC"] = Field(description="what weights and activations become")
    method: Literal["rtn", "gptq"] = Field("rtn", description="how weights are rounded: rtn without data, gptq with")
    calibration_rows: PositiveInt = Field(128, description="conversations gptq reads; rtn reads none")
    keep: tuple[str, ...] = Field(
        (), description="regular expressions of module names left in bf16, matched from the name's start"
    )

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("compressors.data",)

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
        return self.method == "gptq"

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        engine.require_scheme(self.scheme, self.step)
        if self.scheme == "FP8_DYNAMIC" and self.method == "gptq":
            raise Infeasible("quantize scheme FP8_DYNAMIC is made by rtn; gptq is for W8A8 and W4A16")
        linears = dict(linear_inputs(shape))
        kept = {name for name in linears if self._keeps(name)}
        for pattern in self.keep:
            if not any(re.match(pattern, name) for name in linears):
                raise Infeasible(f"quantize keep {pattern!r} matches no linear layer of this model")
        if kept == set(linears):
            raise Infeasible("quantize keep leaves nothing to quantize")
        for name, inputs in linears.items():
            if name not in kept and self.scheme == "W4A16" and inputs % GROUP:
                raise Infeasible(f"quantize scheme W4A16 needs widths that {GROUP} divides; {name} has {inputs} inputs")
        for name in kept:
            parent, _, leaf = name.rpartition(".")
            for group in FUSED:
                split = [other for other in group if leaf in group and f"{parent}.{other}" not in kept]
                if split:
                    raise Infeasible(f"quantize keep holds {name} but not {split[0]}; vLLM fuses the two")

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"quantized": self.scheme})

    def apply(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StepContext
    ) -> PreTrainedModel:
        from compressors.quiet import errors_only

        errors_only()
        from llmcompressor.entrypoints.oneshot import oneshot
        from llmcompressor.modifiers.gptq import GPTQModifier
        from llmcompressor.modifiers.quantization import QuantizationModifier

        settings: dict[str, Any] = {
            "targets": "Linear",
            "scheme": self.scheme,
            "ignore": ["lm_head", *(f"re:{pattern}" for pattern in self.keep)],
        }
        if self.method == "rtn":
            oneshot(model=model, tokenizer=tokenizer, recipe=QuantizationModifier(**settings))
            return model
        rows = self._calibration(tokenizer, context)
        oneshot(
            model=model,
            tokenizer=tokenizer,
            recipe=GPTQModifier(**settings),
            dataset=rows,
            num_calibration_samples=len(rows),
            shuffle_calibration_samples=False,
            max_seq_length=MAX_LENGTH,
        )
        return model

    def _keeps(self, name: str) -> bool:
        return any(re.match(pattern, name) for pattern in self.keep)

    def _calibration(self, tokenizer: PreTrainedTokenizerBase, context: StepContext) -> Any:
        from datasets import Dataset

        from compressors.data import tokenize

        samples = [tokenize(tokenizer, row, MAX_LENGTH) for row in context.data.rows[: self.calibration_rows]]
        rows = [{"input_ids": list(s.ids), "attention_mask": [1] * len(s.ids)} for s in samples if s.ids]
        if not rows:
            raise StepFault("quantize by gptq has no calibration rows")
        return Dataset.from_list(rows)


def linear_inputs(shape: ModelShape) -> Iterator[tuple[str, int]]:
    """Name and number of inputs of every linear layer within the decoder layers of a model of `shape`."""
    inputs = {
        "self_attn.q_proj": shape.hidden,
        "self_attn.k_proj": shape.hidden,
        "self_attn.v_proj": shape.hidden,
        "self_attn.o_proj": shape.heads * shape.head_dim,
        "mlp.gate_proj": shape.hidden,
        "mlp.up_proj": shape.hidden,
        "mlp.down_proj": shape.ffn,
    }
    for layer in range(shape.layers):
        for name, width in inputs.items():
            yield f"model.layers.{layer}.{name}", width
