"""NF4 by bitsandbytes, one tensor at a time: the model need not fit the GPU, nor memory. Knows nothing of scores."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from compressors.step import EngineTraits, Infeasible, ModelShape, Step, StepContext, StepFault

if TYPE_CHECKING:
    import torch

LINEAR = re.compile(r"model\.layers\.\d+\..*_proj\.weight$")
BLOCK = 64  # weights that share a scale
INDEX = "model.safetensors.index.json"


class Nf4(Step):
    """Store the decoder's linear layers in 4-bit NormalFloat (Dettmers et al., 2023), in blocks of 64 weights.

    Embeddings, norms and head stay in bf16. Written as transformers writes it (`quant_method: bitsandbytes`), shard
    by shard from the input's files: at most one shard is in memory and one tensor on the device, so a 32B model
    passes through any GPU, or none. Needs no data.
    Raises `Infeasible` where the engine has no bitsandbytes kernel or several GPUs share a model, `StepFault` for a
    tensor with NaN or Inf and where the package bitsandbytes is missing.
    """

    step: Literal["nf4"] = "nf4"
    double_quant: bool = Field(True, description="scales are quantized too: 0.4 bits a weight less")

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        engine.require("nf4", self.step)
        if engine.gpus > 1:
            raise Infeasible(f"nf4: vLLM spreads no model that bitsandbytes quantized over {engine.gpus} GPUs")
        for name, width in {"hidden": shape.hidden, "ffn": shape.ffn}.items():
            if width % BLOCK:
                raise Infeasible(f"nf4 needs widths that {BLOCK} divides; {name} of this model is {width}")

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"quantized": "NF4"})

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        from safetensors.torch import save_file

        from compressors import checkpoint

        try:
            context.notes["bitsandbytes"] = importlib.metadata.version("bitsandbytes")
        except importlib.metadata.PackageNotFoundError:
            raise StepFault("nf4 needs the package bitsandbytes, which is not installed here") from None
        places: dict[str, str] = {}
        total = 0
        files = sorted(source.glob("*.safetensors"))
        for number, path in enumerate(files, start=1):
            context.progress(f"nf4: file {number} of {len(files)}")
            tensors = self._shard(path, context.device)
            save_file(tensors, str(target / path.name), metadata={"format": "pt"})
            places |= dict.fromkeys(tensors, path.name)
            total += sum(tensor.nbytes for tensor in tensors.values())
        if len(files) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": places}
            (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        checkpoint.copy_companions(source, target)
        config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config["quantization_config"] = self._config()
        checkpoint.dump_config(config, target)

    def _shard(self, path: Path, device: str) -> dict[str, torch.Tensor]:
        """The tensors of one file, linear layers packed, all on the CPU."""
        import torch
        from bitsandbytes.functional import quantize_4bit
        from safetensors import safe_open

        packed: dict[str, torch.Tensor] = {}
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_tensor(name).to(torch.bfloat16)
                if not bool(tensor.isfinite().all()):
                    raise StepFault(f"nf4: tensor {name} holds NaN or Inf")
                if not LINEAR.match(name):
                    packed[name] = tensor
                    continue
                weight, state = quantize_4bit(
                    tensor.to(device), blocksize=BLOCK, compress_statistics=self.double_quant, quant_type="nf4"
                )
                packed[name] = weight.cpu()
                for part, value in state.as_dict(packed=True).items():
                    packed[f"{name}.{part}"] = value.cpu().contiguous()
        return packed

    def _config(self) -> dict[str, Any]:
        """`quantization_config` as transformers writes it."""
        return {
            "_load_in_4bit": True,
            "_load_in_8bit": False,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.double_quant,
            "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_has_fp16_weight": False,
            "llm_int8_skip_modules": None,
            "llm_int8_threshold": 6.0,
            "load_in_4bit": True,
            "load_in_8bit": False,
            "quant_method": "bitsandbytes",
        }
