"""What vLLM asks of a model that it spreads over several GPUs, tensor-parallel: sizes that come apart evenly.

As its source has it, alike in 0.14.1 and 0.32 and on either device: heads and FFN channels are cut into equal parts; KV
heads too, or each is copied to as many GPUs as share it; embedding and head are filled up to a multiple of 64 rows
first. Knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from compressors.step import Infeasible, ModelShape

VOCAB_MULTIPLE = 64  # rows that vLLM fills embedding and head up to
# these get their inputs in parts, and their outputs are summed; of all others the outputs are cut
BY_INPUTS = ("o_proj", "down_proj")
KV = ("k_proj", "v_proj")


def check_shards(shape: ModelShape, gpus: int, pruned: tuple[str, ...] = ()) -> None:
    """Raise `Infeasible` where a model of `shape` does not come apart into `gpus`; `pruned`: the steps that it went
    through, one of which may be why."""
    for step, what in _uneven(shape, gpus) if gpus > 1 else ():
        raise Infeasible(f"{step if step in pruned else 'the model'}: vLLM cannot spread it over {gpus} GPUs: {what}")


def on_each(name: str, size: tuple[int, int], shape: ModelShape, gpus: int) -> tuple[int, int]:
    """Inputs and outputs that one of `gpus` has of the linear layer `name`, which has `size` in all."""
    inputs, outputs = size
    leaf = name.rpartition(".")[2]
    if leaf in BY_INPUTS:
        return inputs // gpus, outputs
    if leaf in KV:
        return inputs, max(shape.kv_heads // gpus, 1) * shape.head_dim
    return inputs, outputs // gpus


def _uneven(shape: ModelShape, gpus: int) -> Iterator[tuple[str, str]]:
    """What does not come apart, and the step that could have made it so."""
    if shape.heads % gpus:
        yield "prune_heads", f"{shape.heads} attention heads are no multiple of {gpus}"
    fewer, more = sorted((shape.kv_heads, gpus))
    if more % fewer:
        yield "prune_heads", f"{shape.kv_heads} KV heads are no multiple of {gpus}, and do not divide it"
    if shape.ffn % gpus:
        yield "prune_ffn", f"{shape.ffn} FFN channels are no multiple of {gpus}"
    rows = -(-shape.vocab // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    if rows % gpus:
        yield "trim_vocab", f"{rows} rows of its embedding are no multiple of {gpus}"
