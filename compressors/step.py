"""What a compression step is: its own frozen config, what it refuses, what it does.

Knows nothing of stores, searches, engines or scores. A step turns a model folder into another and is a
function of its inputs alone: its fields, the folder, and what `StepContext` hands it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Infeasible(Exception):
    """This step cannot be applied here, and never will be with the same inputs: a refusal, not a fault."""


class StepFault(Exception):
    """A step went wrong on inputs it accepts (a loss diverged, a weight became NaN): no artifact results."""


class ModelShape(BaseModel):
    """What feasibility needs to know of a model, read from its config without weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    max_positions: int
    quantized: str | None = None  # the scheme, once a quantize step has run
    calibrated: bool = False  # whether a quantize step gave activations or KV cache scales that were measured
    trained_for: str | None = None  # the scheme whose rounding the last training went through
    sparse: str | None = None  # "unstructured" or "2:4", once a sparsify step has run
    trimmed: bool = False  # whether a trim_vocab step has run: ids in later steps' fields are the base's still
    narrowed: bool = False  # whether a prune_hidden step has run: hidden states are not the base's any more
    damaged: bool = False  # whether a step has taken something away that training could win back


class EngineTraits(BaseModel):
    """What the engine that will serve the result can do, as far as steps must know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # for messages: "vllm 0.32.0 on cpu"
    device: str  # "cpu" or "cuda"
    gpus: int = 1  # that it spreads a model over, tensor-parallel
    schemes: frozenset[str]  # quantization schemes it serves, e.g. {"W8A8", "W4A16", "FP8_DYNAMIC"}
    features: frozenset[str] = frozenset()  # what else it serves: "int8_lm_head", "fp8_kv_cache", "sparse_24", "nf4"
    lacking: dict[str, str] = Field(default_factory=dict)  # a scheme or feature it does not serve: what is missing

    def require_scheme(self, scheme: str, step: str) -> None:
        """Raise `Infeasible` naming what is missing unless `scheme` is served."""
        if scheme not in self.schemes:
            served = ", ".join(sorted(self.schemes)) or "none"
            why = self.lacking.get(scheme, f"it serves {served}")
            raise Infeasible(f"{step}: {self.name} does not serve scheme {scheme}: {why}")

    def require(self, feature: str, step: str) -> None:
        """Raise `Infeasible` naming what is missing unless `feature` is served."""
        if feature not in self.features:
            raise Infeasible(f"{step}: {self.name} has no {feature}: {self.lacking.get(feature, 'not seen to work')}")


@dataclass(frozen=True)
class Conversations:
    """Rows of chat turns (`[{"role": ..., "content": ...}, ...]`) for calibration and recovery."""

    rows: tuple[tuple[dict[str, str], ...], ...]
    fingerprint: str  # content hash; part of every key of a step that uses data


def say_nothing(message: str) -> None:
    """Default progress sink."""


@dataclass(frozen=True)
class StepContext:
    """Everything a step may use besides its fields and its input folder."""

    base: Path  # the uncompressed model: the teacher of recovery steps
    data: Conversations
    device: str = "cpu"
    seed: int = 0
    progress: Callable[[str], None] = say_nothing
    continue_from: Path | None = None  # an earlier, cheaper artifact of the same step on the same input
    goes_on: bool = True  # whether another artifact may continue this one: if not, no state is kept to go on from
    cache: Path | None = None  # a folder for what many steps reuse, each file named by all that decides its content
    general: Conversations | None = None  # the run's own conversations, where `data` is a file that the step named
    notes: dict[str, Any] = field(default_factory=dict)  # figures a step wants kept in its provenance record


class Step(BaseModel):
    """Base of all steps. Subclasses add `step: Literal["name"] = "name"` and their fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    uses_data: ClassVar[bool] = False
    changes_weights: ClassVar[bool] = True  # False for steps that edit files alone
    code: ClassVar[tuple[str, ...]] = ()  # modules, besides the step's own, that decide its result: part of every key
    continues: ClassVar[str | None] = (
        None  # the integer field that may grow while work goes on from an earlier artifact
    )

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        """Raise `Infeasible` when this step makes no sense on `shape` or `engine`. Needs no weights."""

    def preflight(self, base: Path) -> None:
        """Raise `Infeasible` for files this step names, or parts of the base's tokenizer, that it cannot work with.

        Read once before a run, so that nothing is refused after hours of training.
        """

    def reshape(self, shape: ModelShape) -> ModelShape:
        """The shape that the next step will see."""
        return shape

    def at(self, fraction: float) -> Self:
        """This step as a rung pays for it; `fraction` in (0, 1]. Only steps whose cost scales differ."""
        return self

    def keeps_quantized(self) -> bool:
        """Whether this step, as configured, leaves quantized weights alone, and so may follow quantization."""
        return not self.changes_weights

    def takes_data(self) -> bool:
        """Whether this step, as configured, reads `context.data`, whose fingerprint is then in its key."""
        return self.uses_data

    def own_data(self) -> str | None:
        """A file of conversations that this step reads in place of the run's."""
        return None

    def reads(self) -> tuple[Path, ...]:
        """Files besides the input folder that decide the result: their content is in the key, whatever their names."""
        return ()

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        """Read the model folder `source`, write the model folder `target` (exists, empty)."""
        from compressors import checkpoint

        model, tokenizer = checkpoint.load(source, context.device)
        try:
            model = self.apply(model, tokenizer, context)
            checkpoint.save(model, tokenizer, target, files_from=source)
        finally:
            checkpoint.let_go(model)

    def apply(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        context: StepContext,
    ) -> PreTrainedModel:
        """Change the loaded model. Steps that only edit files override `run` instead."""
        raise StepFault(f"step {self.step} does not work on a loaded model")
