"""Trains the reference model: `python -m evaluation.reference.train --out DIR`, minutes on a GPU.

A plain loop over conversations in rows of a few fixed lengths: short ones first, longer ones as training goes on,
since looking things up is learned on short documents. Knows nothing of the scored items, which `corpus` keeps apart.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from evaluation.reference import MODEL
from evaluation.reference.rows import batches, draw_pool
from evaluation.reference.tokenizer import BOS, END_OF_TURN, PAD, VOCABULARY


class Training(BaseModel):
    """Everything that decides the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(10, description="decoder layers")
    hidden: int = Field(256, description="width; a multiple of 128")
    ffn: int = Field(512, description="width of the feed-forward part; a multiple of 128")
    heads: int = Field(4, description="query heads of 64")
    kv_heads: int = Field(2, description="key and value heads")
    tokens: float = Field(250e6, description="tokens to train on, padding included")
    batch: int = Field(65536, description="tokens a step")
    rate: float = Field(3e-3, description="peak learning rate")
    decay: float = Field(0.1, description="weight decay of matrices")
    skip: float = Field(0.0, description="share of steps that leave out one decoder layer, any but the first")
    given: float = Field(0.05, description="loss weight of tokens the model does not say")
    text: float = Field(0.3, description="loss weight of plain text")
    minutes: float = Field(0.0, description="if above 0, the steps are cut to what fits in this time")
    pool: int = Field(60_000_000, description="tokens drawn once and gone through in turns")
    workers: int = Field(8, description="processes that draw the pool")
    start: str = Field("", description="a folder whose weights to go on from, instead of new ones")
    begin: float = Field(0.0, description="point of the row-length schedule to begin at, 0 to 1")
    seed: int = Field(0, description="of weights, rows and order")
    device: str = Field("cuda", description="cuda or cpu")
    compile: bool = Field(False, description="compile the decoder layers")
    log: int = Field(100, description="steps between lines")


def config_of(training: Training) -> dict[str, Any]:
    """config.json, with the rope and the type as transformers 5 and as 4.57 read them."""
    rope = {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }
    return {
        "architectures": ["Exaone4ForCausalLM"],
        "model_type": "exaone4",
        "vocab_size": VOCABULARY,
        "hidden_size": training.hidden,
        "intermediate_size": training.ffn,
        "num_hidden_layers": training.layers,
        "num_attention_heads": training.heads,
        "num_key_value_heads": training.kv_heads,
        "head_dim": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "max_position_embeddings": 65536,
        "attention_dropout": 0.0,
        "sliding_window": None,
        "sliding_window_pattern": None,
        "layer_types": ["full_attention"] * training.layers,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": BOS,
        "eos_token_id": END_OF_TURN,
        "pad_token_id": PAD,
        "rope_parameters": {"rope_theta": 10000.0, **rope},
        "rope_theta": 10000.0,
        "rope_scaling": rope,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }


def build(training: Training) -> Any:
    """The untrained model: branch norms start small, so that the residual stream keeps the embeddings."""
    import torch
    from transformers import Exaone4Config, Exaone4ForCausalLM

    torch.manual_seed(training.seed)
    settings = {
        key: value
        for key, value in config_of(training).items()
        if key not in ("torch_dtype", "dtype", "rope_theta", "rope_scaling")
    }
    model = Exaone4ForCausalLM(Exaone4Config(**settings))
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.05 if "embed" in name else weight.shape[1] ** -0.5)
        elif "post_" in name:
            torch.nn.init.constant_(weight, 0.25)
    if training.start:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(Path(training.start) / "model.safetensors"), strict=False)
    return model.to(training.device)  # type: ignore[arg-type]  # transformers' wrapper hides the real signature


def train(training: Training) -> tuple[Any, list[dict[str, float]]]:
    """The trained model in float32 and the log of its training."""
    import torch
    from torch.nn import functional

    started = time.time()
    pool = draw_pool(training)
    print(f"pool drawn in {time.time() - started:.0f} s", flush=True)
    model = build(training)
    if training.compile:
        for layer in model.model.layers:
            layer.compile(dynamic=False)
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    others = [weight for weight in model.parameters() if weight.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": training.decay}, {"params": others, "weight_decay": 0.0}],
        lr=training.rate,
        betas=(0.9, 0.95),
        fused=training.device == "cuda",
    )
    weights = torch.tensor([0.0, training.given, training.text, 1.0], device=training.device)
    steps = max(1, int(training.tokens / training.batch))
    source = batches(pool, training)
    next(source)
    log: list[dict[str, float]] = []
    started, step = time.time(), 0
    progress = 0.0
    every = model.model.layers
    chance = np.random.default_rng(training.seed + 1)
    while progress < 1:
        left_out = int(chance.integers(1, training.layers)) if chance.random() < training.skip else None
        model.model.layers = torch.nn.ModuleList(layer for place, layer in enumerate(every) if place != left_out)
        ids, kinds = source.send(progress)
        tokens = torch.from_numpy(ids).to(training.device, torch.long)
        weight = weights[torch.from_numpy(kinds).to(training.device, torch.long)][:, 1:]
        warm = min(1.0, (step + 1) / 200)
        for group in optimizer.param_groups:
            group["lr"] = training.rate * warm * (0.02 + 0.98 * min(1.0, (1 - progress) / 0.5))
        with torch.autocast(training.device, torch.bfloat16):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        losses = functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), tokens[:, 1:].reshape(-1), reduction="none"
        ).view_as(weight)
        (losses * weight).sum().div(weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        spent = (time.time() - started) / 60
        progress = step / steps
        if training.minutes:
            progress = max(progress, spent / training.minutes)
        if step % training.log == 0 or progress >= 1:
            said = weight == 1.0
            line = {
                "step": step,
                "tokens": step * training.batch,
                "minutes": round(spent, 2),
                "length": tokens.shape[1],
                "said_loss": round((losses * said).sum().div(said.sum().clamp(min=1)).item(), 4),
            }
            if not math.isfinite(line["said_loss"]):
                raise FloatingPointError(f"the loss is not finite at step {step}")
            log.append(line)
            print(json.dumps(line), flush=True)
    model.model.layers = every
    return model, log


def save(model: Any, training: Training, folder: Path) -> None:
    """Write weights in bf16, both forms of the config, and the generation config. The tokenizer is already there."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": BOS, "eos_token_id": END_OF_TURN, "pad_token_id": PAD, "do_sample": False}
    for name, content in (("config.json", config_of(training)), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Flags are the fields of `Training`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL, help="the model folder to write")
    for name, field in Training.model_fields.items():
        kind = {bool: lambda text: text == "true"}.get(type(field.default), type(field.default))
        parser.add_argument(f"--{name}", type=kind, default=field.default, help=field.description)
    given = vars(parser.parse_args())
    out = given.pop("out")
    training = Training(**given)
    model, log = train(training)
    save(model, training, out)
    before = Path(training.start) / "training.json"
    stages = json.loads(before.read_text()) if training.start and before.exists() else []
    stages.append({"training": training.model_dump(), "log": log})
    (out / "training.json").write_text(json.dumps(stages) + "\n")


if __name__ == "__main__":
    main()
