"""NF4 of a model larger than the GPU: `python -m tests.benchmarks.larger_than_gpu FOLDER --layers 6 --cap 3`.

FOLDER holds EXAONE-4.0-1.2B's config and tokenizer; the widths are EXAONE-4.0-32B's, with few of its 64 layers and
random weights. Prints the model's size, the seconds, and the most memory of the GPU and of the host that it took.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer

from compressors.build import build
from compressors.nf4 import Nf4
from compressors.store import Store
from search.bench import NO_DATA
from tests.benchmarks.exaone_shape import random_model

WIDTHS = {
    "hidden_size": 5120,
    "intermediate_size": 27392,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}


def main(
    folder: Path,
    layers: Annotated[int, typer.Option()] = 6,
    cap: Annotated[float, typer.Option(help="GiB of GPU memory")] = 3.0,
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, base = Path(scratch) / "source", Path(scratch) / "base"
        shutil.copytree(folder, source)
        config = json.loads((source / "config.json").read_text())
        config |= {**WIDTHS, "num_hidden_layers": layers, "layer_types": ["full_attention"] * layers}
        (source / "config.json").unlink()
        (source / "config.json").write_text(json.dumps(config))
        random_model(source, base)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        torch.cuda.set_per_process_memory_fraction(cap * 2**30 / torch.cuda.get_device_properties(0).total_memory)
        built = build([Nf4()], base, Store(Path(scratch) / "store"), NO_DATA, device="cuda")
        [stage] = built.stages
        print(f"{size_of(base):.1f} GiB to {size_of(built.artifact.folder):.1f} GiB in {stage.seconds:.0f} s, "
              f"{stage.peak_gpu_bytes / 2**30:.2f} GiB of the GPU at most, of the host "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB (before: {before:.1f})",
              flush=True)  # fmt: skip


def size_of(folder: Path) -> float:
    """GiB of its weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**30


if __name__ == "__main__":
    typer.run(main)
