"""Model folders in and out, in the form that transformers 4.57 and 5 and vLLM 0.14.1 and current read alike.

Knows nothing of steps. Never runs code that comes with a model.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.artifact import PROVENANCE, TRAINING
from compressors.files import model_files
from compressors.step import StepFault

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Names in an artifact's folder that are not part of the model handed over: training state (moments, fp32
# master weights) and our own record. Whoever exports or copies a model leaves them behind.
PRIVATE = (TRAINING, PROVENANCE)

# Files that go along unchanged from a model to its compressed version. They are copied, not written anew:
# transformers 5 saves tokenizers in a form that 4.57 reads differently.
COMPANIONS = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "generation_config.json",
    "kept_tokens.json",  # the original ids of a trimmed vocabulary; stays here when a model is handed over
    "*.jinja",
    "LICENSE*",
    "NOTICE*",
)


def load(folder: Path, device: str, **options: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of `folder` in bf16 on `device`, in eval mode, and its tokenizer. Reads local files only.

    `options` go to transformers' from_pretrained.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=torch.bfloat16,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return torch.nn.Module.to(model, device).eval(), tokenizer


def load_dense(folder: Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load`; weights that llmcompressor quantized come as the bf16 numbers they stand for."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" not in config:
        return load(folder, device)
    import torch
    from compressed_tensors.offload import remove_dispatch
    from compressed_tensors.quantization import disable_quantization
    from transformers import CompressedTensorsConfig

    model, tokenizer = load(folder, "cpu", quantization_config=CompressedTensorsConfig(dequantize=True))
    # compressed-tensors left every weight on the host, handing out a copy whenever a module is asked for one
    remove_dispatch(model, onload_tensors=False)
    torch.nn.Module.to(model, device)
    return model.apply(disable_quantization), tokenizer  # it would go on to round activations, and stop gradients there


def let_go(model: PreTrainedModel) -> None:
    """Give the memory of all weights back, whoever still holds the modules. `model` is of no use afterwards.

    llmcompressor traces a model with torch.fx, whose tables of wrapped functions keep it for the life of the process.
    """
    from compressed_tensors.offload import remove_dispatch

    for tensor in (*remove_dispatch(model).parameters(), *model.buffers()):
        tensor.data = tensor.data.new_empty(0)


def hand_on(source: Path, target: Path, device: str) -> None:
    """Write the model in `source` to `target` unchanged, in the form that every reader knows."""
    if "quantization_config" in json.loads((source / "config.json").read_text(encoding="utf-8")):
        for path in model_files(source):
            shutil.copyfile(path, target / path.name)
        copy_companions(source, target)
        return
    save(*load(source, device), target, files_from=source)


def save_changed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path, target: Path, changed: Sequence[str]
) -> None:
    """Write `model`, made from the one in `source`; of a quantized source the tensors `changed` alone are replaced."""
    if "quantization_config" not in json.loads((source / "config.json").read_text(encoding="utf-8")):
        save(model, tokenizer, target, files_from=source)
        return
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    refuse_nonfinite(model)
    new = {name: dict(model.named_parameters())[name].detach().to("cpu", torch.bfloat16) for name in changed}
    for path in model_files(source):
        if path.suffix != ".safetensors":
            shutil.copyfile(path, target / path.name)
            continue
        with safe_open(str(path), framework="pt") as tensors:
            kept = {name: new.pop(name, None) for name in tensors.keys()}  # noqa: SIM118 - no mapping, keys() alone
            whole = {n: tensors.get_tensor(n) if one is None else one.contiguous() for n, one in kept.items()}
            save_file(whole, str(target / path.name), metadata=tensors.metadata())
    copy_companions(source, target)
    if new:
        raise StepFault(f"the weight files of the source hold no {', '.join(sorted(new)[:3])}")


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    files_from: Path | None = None,
) -> None:
    """Write `model` to `folder` as bf16 safetensors, or in compressed form if llmcompressor quantized it.

    `files_from` names the folder whose tokenizer, chat template and generation config are copied as they are;
    without it the tokenizer is written by transformers (for steps that change it).
    Raises `StepFault` naming the first tensor that holds NaN or Inf.
    """
    import torch
    from transformers import GenerationConfig

    refuse_nonfinite(model)
    if getattr(model, "quantization_config", None) is None and model.dtype != torch.bfloat16:
        torch.nn.Module.to(model, torch.bfloat16)
    copied = files_from is not None and (files_from / "generation_config.json").is_file()
    kept = model.generation_config
    if copied:
        # transformers refuses to save sampling settings it finds odd; the original file is copied below
        model.generation_config = GenerationConfig()
    with warnings.catch_warnings():
        # llmcompressor saves through accelerate's hooks, whatever the size
        warnings.filterwarnings("ignore", message="Attempting to save a model with offloaded modules")
        model.save_pretrained(str(folder))
    model.generation_config = kept
    if files_from is None:
        tokenizer.save_pretrained(str(folder))
    else:
        copy_companions(files_from, folder)
    (folder / "recipe.yaml").unlink(missing_ok=True)  # llmcompressor's own recipe; ours is in the provenance
    write_config(model, folder)


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, template, generation config and licence files from one model folder to another."""
    for pattern in COMPANIONS:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


def write_config(model: PreTrainedModel, folder: Path) -> None:
    """Write `config.json` from the model's own config with the names that every reader knows.

    The file that `save_pretrained` left behind is used for its `quantization_config` only: llmcompressor puts
    the *source* folder's config there, which may describe another number of layers.
    """
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    for name in ("_name_or_path", "quantization_config"):
        config.pop(name, None)
    if "quantization_config" in written:
        config["quantization_config"] = written["quantization_config"]
    config["architectures"] = written.get("architectures") or [type(model).__name__]
    dump_config(config, folder)


def dump_config(config: dict[str, Any], folder: Path) -> None:
    """Write `config` with both the old and the new names of dtype and RoPE fields; check `layer_types`.

    transformers 4.57 reads `rope_theta` and `rope_scaling` and silently falls back to theta 10000 without
    them; transformers 5 reads `rope_parameters`. Published configs call the kind of scaling `type`, newer ones
    `rope_type`: both are read, and `rope_type` is written beside a `type`.
    Raises `StepFault` when `layer_types` does not fit the number of layers.
    """
    rope = config.get("rope_parameters")
    if rope is None and "rope_theta" in config:  # written by transformers 4
        rope = {**(config.get("rope_scaling") or {}), "rope_theta": config["rope_theta"]}
    if rope is not None:
        rope = {**rope, "rope_type": rope_type(rope)}
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        config["rope_parameters"], config["rope_theta"] = rope, rope["rope_theta"]
        config["rope_scaling"] = None if rope["rope_type"] == "default" else scaling
    config["dtype"] = config["torch_dtype"] = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    kinds = config.get("layer_types")
    if kinds is not None and len(kinds) != config["num_hidden_layers"]:
        raise StepFault(f"config has {len(kinds)} layer_types for {config['num_hidden_layers']} layers")
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def rope_type(rope: Mapping[str, Any]) -> str:
    """The kind of RoPE scaling that a config's `rope_parameters` or `rope_scaling` names, in either dialect."""
    return str(rope.get("rope_type") or rope.get("type") or "default")


def refuse_nonfinite(model: PreTrainedModel) -> None:
    """Raise `StepFault` naming the first weight that holds NaN or Inf."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise StepFault(f"tensor {name} holds NaN or Inf")
