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

    A harness that asks for answers of `max_gen_toks` tokens (lm-eval with vLLM) leaves prompts the rest of the window
    and cuts off their beginnings. With exactly `max_gen_toks` positions the rest is 0, which Python's `[-0:]` takes
    for everything, so nothing is cut; with twice as many a prompt has as much room as an answer.
    Raises `Infeasible` for more positions than the model has, for fewer than 128, and with `max_gen_toks` given
    for all values but those two kinds.
    """

    step: Literal["context"] = "context"
    max_position_embeddings: PositiveInt = Field(description="tokens of prompt and answer together, at most")
    max_gen_toks: PositiveInt | None = Field(
        None, description="answer tokens that a harness asks for: windows that make it cut prompts are then refused"
    )

    changes_weights: ClassVar[bool] = False

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        self._refuse(shape.max_positions)

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"max_positions": self.max_position_embeddings})

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        from compressors import checkpoint

        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        self._refuse(config["max_position_embeddings"])
        copy_without("config.json", source, target)
        for rope in (config.get("rope_parameters"), config.get("rope_scaling")):
            if rope and checkpoint.rope_type(rope) in ("llama3", "yarn", "longrope"):
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
        answer = self.max_gen_toks
        if answer is not None and wanted != answer and wanted < 2 * answer:
            room = f"prompts are cut to {wanted - answer} tokens" if wanted > answer else "no prompt is left whole"
            raise Infeasible(
                f"context max_position_embeddings {wanted}: with max_gen_toks {answer} {room}; "
                f"{answer} and {2 * answer} or more are safe"
            )


def copy_without(name: str, source: Path, target: Path) -> None:
    """Everything in the model folder `source` but the file `name` and what is private appears in `target`.

    Files of an artifact are shared with it by hard links; those of a base, which somebody may write to in place,
    are copied.
    """
    from compressors.artifact import PROVENANCE
    from compressors.checkpoint import PRIVATE

    bring = link_or_copy if (source / PROVENANCE).is_file() else shutil.copyfile

    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_dir() or relative.parts[0] in (*PRIVATE, name):
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        bring(path, target / relative)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` (not a symlink to it) to `target`; copy where the file system cannot link."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(real, target)
