"""What an engine is told and what it answers: settings, answers, faults. Records only; nothing is started here."""

from __future__ import annotations

import re
import sys
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# How torch on either device, C++ and vLLM's reckoning of its KV cache name a lack of memory.
MEMORY_WORDS = re.compile(
    r"out ?of ?memory|MemoryError|(?:can't|cannot|unable to) allocate|bad_alloc|free memory on device"
    r"|memory for the cache blocks|KV cache (?:is needed|memory)",
    re.IGNORECASE,
)
FAULT = re.compile(r"\w*Error\b.*")  # a line of a log that tells of a fault, from its name on


class EngineFault(Exception):
    """The engine could not do what it was asked: the message says what, and what the engine said."""


class OutOfMemory(EngineFault):
    """A model or a batch does not fit: the message begins with "out of memory", and says what there is."""


class EngineSettings(BaseModel):
    """Limits that change timings, pinned so that two measurements can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("cpu", description="cpu or cuda: what the models are served on")
    clock: Literal["wall", "cpu"] = Field(
        "wall", description="cpu counts the seconds the engine's threads computed: for CPU machines shared with others"
    )
    python: str = Field(sys.executable, description="the interpreter of the environment that holds vLLM")
    versions: dict[str, str] = Field(default_factory=dict, description="package to version that it must report")
    max_model_len: int = Field(4096, description="tokens of prompt and answer together, at most")
    max_num_batched_tokens: int = Field(8192, description="tokens in one forward pass, at most")
    max_num_seqs: int = Field(256, description="sequences in one batch, at most")
    gpu_memory_utilization: float = Field(0.85, description="share of the GPU's memory (the contest's value)")
    kv_cache_gib: int = Field(1, description="KV cache on a CPU, GiB")
    eager: bool = Field(False, description="no CUDA graphs: starts sooner, generates slower; always so on a CPU")
    tensor_parallel_size: int = Field(
        1, description="GPUs that share a model; on a CPU processes of vLLM's, which share its cores"
    )
    sleeps: bool = Field(False, description="on a GPU: able to lend its memory to another engine and to take it back")
    max_logprobs: int = Field(64, description="likeliest tokens a position can report")
    load_timeout: float = Field(900.0, description="seconds before a load counts as hung")
    answer_timeout: float = Field(1800.0, description="seconds before a batch counts as hung")


class Answer(BaseModel):
    """What the model said to one prompt."""

    model_config = ConfigDict(frozen=True)

    text: str
    tokens: int
    prompt_tokens: int
    finish: str | None
    unknown: int = 0  # tokens that the tokenizer has no text for
    bad_bytes: int = 0  # places that are no UTF-8 in what its tokens spell


class Generation(BaseModel):
    """One batch of answers, and the wall and processor seconds spent inside vLLM's generate."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    cpu_seconds: float
    mhz: float | None = Field(None, description="clock of the GPU, or of the processor, while it generated")
    answers: list[Answer]


class Harnessed(BaseModel):
    """What lm-eval found: of each part's documents a value and what the model said, and the seconds of all."""

    model_config = ConfigDict(frozen=True)

    values: list[list[float]]
    answers: list[list[list[Answer]]] = Field(description="by part, document and request; none where it only weighs")
    seconds: float
    cpu_seconds: float
    mhz: float | None = Field(None, description="clock of the GPU, or of the processor, while it generated")

    @property
    def tokens(self) -> list[list[int]]:
        """Generated, by part and document."""
        return [[sum(answer.tokens for answer in said) for said in part] for part in self.answers]


class ScoredText(BaseModel):
    """A text of n tokens: n - 1 log-probabilities of what came next, and the likeliest tokens at each place.

    Token k ends before character ends[k]; several tokens may make up one character, and end before the same one.
    """

    model_config = ConfigDict(frozen=True)

    tokens: list[int]
    ends: list[int] = Field(default_factory=list)  # none where a slow tokenizer does not tell
    actual: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]


def lacks_memory(fault: str, log: str) -> bool:
    """Whether `fault`, or one of which `log` tells, is a lack of memory: vLLM's core tells its own in the log alone."""
    return any(MEMORY_WORDS.search(told) for told in (fault, *FAULT.findall(log)))
