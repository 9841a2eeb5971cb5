"""Engines a model can be served by: each an environment of its own, started by its interpreter's path.

Knows nothing of what an engine is asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.resources import find_device

EngineName = Literal["own", "contest"]

CONTEST = Path(__file__).parents[1] / ".venv-contest" / "bin" / "python"
ELSEWHERE = "SQUEEZE_CONTEST_PYTHON"  # names the interpreter where the environment lies in another place
# Of the CPU and of the CUDA build alike: contest.txt and contest-gpu.txt hold the same but for vLLM's build.
CONTEST_VERSIONS = {"vllm": "0.14.1", "transformers": "4.57.3", "torch": "2.9.1", "compressed-tensors": "0.13.0"}


@dataclass(frozen=True)
class EngineEnvironment:
    """Where an engine's Python is, and which versions it must report."""

    python: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def vllm(self) -> str | None:
        """The version that is asked for; None for whatever this environment holds."""
        return self.versions.get("vllm")


def find_engine(name: EngineName) -> EngineEnvironment:
    """The environment of an engine. Raises `LookupError` saying what to do where it is not there."""
    if name == "own":
        return EngineEnvironment(sys.executable)
    if name != "contest":
        raise LookupError(f"no engine {name!r}; there are own and contest")
    python = Path(os.environ.get(ELSEWHERE) or CONTEST)
    if not python.exists():
        if find_device() == "cpu" and not has_bf16():
            raise LookupError("the contest's CPU build of vLLM needs AVX-512 BF16, which this processor lacks")
        raise LookupError(
            f"the contest's engine has no interpreter at {python}: run `make contest`, or set {ELSEWHERE}"
        )
    return EngineEnvironment(str(python), CONTEST_VERSIONS)


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 (AVX-512 BF16)."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
