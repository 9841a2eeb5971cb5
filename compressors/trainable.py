"""Which weights training may change. Knows nothing of losses or data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Trains = Literal["all", "norms", "head", "lora"]


def make_trainable(model: PreTrainedModel, trains: Trains, rank: int, seed: int) -> Callable[[], None]:
    """Let gradients reach the chosen weights of `model`, in place; call what is returned when training has ended.

    all: every weight. norms: the norms' scales. head: the output matrix; where it is tied to the embedding, the one
    matrix in both its uses. lora: adapters of `rank` on every linear layer of the decoder (Hu et al., 2021; scaled by
    alpha / rank = 2), merged into the weights at the end.
    """
    model.requires_grad_(trains == "all")
    if trains == "norms":
        for name, weight in model.named_parameters():
            weight.requires_grad_("norm" in name)
    if trains == "head":
        model.lm_head.weight.requires_grad_(True)
    return _adapters(model, rank, seed) if trains == "lora" else _nothing


def _adapters(model: PreTrainedModel, rank: int, seed: int) -> Callable[[], None]:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    names = sorted({name.rsplit(".", 1)[1] for name, one in model.named_modules()
                    if isinstance(one, torch.nn.Linear) and ".layers." in name})  # fmt: skip
    wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names))

    def merge() -> None:
        wrapped.merge_and_unload()  # gives the modules of `model` back, changed

    return merge


def _nothing() -> None:
    """All weights are in place already."""
