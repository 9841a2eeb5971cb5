"""A shorter context window: one number in the config. Touches no weights, so it may follow quantization."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext

FEWEST_POSITIONS = 128


class Context(Step):
    """Set `max_position_embeddings`, which bounds what an engine reserves for one sequence.

    RoPE stays as it is: llama3 scaling keeps its own `original_max_position_embeddings`.
    Raises `Infeasible` for more positions than the model has and for fewer than 128.
    """

    step: Literal["context"] = "context"
    max_position_embeddings: PositiveInt = Field(description="tokens of prompt and answer together, at most")

    changes_weights: ClassVar[bool] = False

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        self._refuse(shape.max_positions)

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"max_positions": self.max_position_embeddings})

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        from compressors import checkpoint

        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        self._refuse(config["max_position_embeddings"])
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source)
            if path.is_dir() or relative.parts[0] in checkpoint.PRIVATE or relative.parts[0] == "config.json":
                continue
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, target / relative)
        for rope in (config.get("rope_parameters"), config.get("rope_scaling")):
            if rope and rope.get("rope_type") in ("llama3", "yarn", "longrope"):
                # transformers would fill a missing original length from the number that shrinks here
                rope.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
        config["max_position_embeddings"] = self.max_position_embeddings
        checkpoint.dump_config(config, target)

    def _refuse(self, available: int) -> None:
        wanted = self.max_position_embeddings
        if wanted > available:
            raise Infeasible(f"context max_position_embeddings {wanted} is more than the model's {available}")
        if wanted < FEWEST_POSITIONS:
            raise Infeasible(f"context max_position_embeddings {wanted} is less than {FEWEST_POSITIONS}")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` (not a symlink to it) to `target`; copy where the file system cannot link."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(real, target)
