"""What llmcompressor is asked for, method by method, and where it has to be corrected.

Knows of methods, schemes and module names; nothing of steps, shapes or engines.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from compressors.quiet import warnings_heard
from compressors.schemes import KV_CACHE_FP8, arguments
from compressors.step import StepFault

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_LENGTH = 2048  # tokens of a calibration row; longer ones are cut
HEAD = "re:.*lm_head$"  # vLLM wants the head as a target of its own
# how llmcompressor's warnings begin where it could not invert a Hessian and took the identity in its place
GAVE_UP = ("Hessian inversion failed", "Failed to invert hessian")
SPARSE = 0.01  # share of zeros from which a weight counts as pruned; trained bf16 weights have far fewer


@dataclass(frozen=True)
class Request:
    """What becomes of which modules. Patterns are compressed-tensors' (`re:` and a regular expression)."""

    method: str
    scheme: str
    group_size: int | None
    keep: tuple[str, ...]  # patterns left in bf16
    others: dict[str, tuple[str, ...]]  # a scheme instead of the main one: the patterns it is for
    int8_head: bool
    fp8_kv_cache: bool
    dampening: float | None = None
    act_order: bool | None = None
    smoothing: float | None = None
    iterations: int | None = None


def quantize(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, request: Request, rows: Dataset | None
) -> None:
    """Quantize `model` in place; `rows` (input_ids, attention_mask) are needed by all but data-free requests."""
    if request.int8_head:
        untie(model)
    with corrections(request.method, model):
        once(model, tokenizer, modifiers(request, model.device.type), rows)
    forget_order(model)


def once(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Any, rows: Dataset | None) -> None:
    """llmcompressor's oneshot, in a session of its own: the global one would hold the model, and the GPU's memory."""
    from llmcompressor.core import create_session
    from llmcompressor.entrypoints.oneshot import oneshot

    data: dict[str, Any] = {}
    if rows is not None:
        data = {
            "dataset": rows,
            "num_calibration_samples": len(rows),
            "shuffle_calibration_samples": False,
            "max_seq_length": MAX_LENGTH,
        }
    with create_session(), warnings_heard() as heard:
        oneshot(model=model, tokenizer=tokenizer, recipe=recipe, **data)
    refuse_fallback(heard)


def refuse_fallback(warnings: Sequence[str]) -> None:
    """Raise `StepFault` where llmcompressor says that it went on without the data's Hessian.

    What it then wrote is rounding to nearest under gptq's name, or pruning by magnitude under sparsegpt's.
    gptq says so once, with the number of modules and up to ten names; sparsegpt once a module, without its name.
    """
    given_up = [text for text in warnings if text.startswith(GAVE_UP)]
    if not given_up:
        return
    counted = re.search(r"failed for (\d+)/(\d+) modules.*Affected modules: (.*)", given_up[0], re.DOTALL)
    if counted:
        names = counted[3].removesuffix(" (full list at DEBUG level)")
        where, method = f"{counted[1]} of {counted[2]} modules ({names})", "gptq"
        advice = "raise calibration_rows or dampening"
    else:
        where, method, advice = f"{len(given_up)} modules", "sparsegpt", "raise calibration_rows"
    raise StepFault(f"{method} could not invert the Hessian of {where}: {advice}")


def forget_order(model: PreTrainedModel) -> None:
    """Take gptq's order of rounding out of what the checkpoint will say: it means nothing once all is rounded.

    compressed-tensors 0.13, which vLLM 0.14.1 has, refuses to read it of weights without groups.
    """
    for module in model.modules():
        weights = getattr(getattr(module, "quantization_scheme", None), "weights", None)
        if weights is not None:
            weights.actorder = None


def corrections(method: str, model: PreTrainedModel) -> AbstractContextManager[Any]:
    """What has to be otherwise in llmcompressor 0.14 while `method` works on `model`."""
    import torch

    if method == "gptq" and zeros(model) >= SPARSE:
        return keeping_zeros()
    if method == "awq" and not torch.cuda.is_available():
        from llmcompressor.pipelines.cache import IntermediatesCache

        # it pins its cache for transfers to a GPU, which fails where there is none
        return mock.patch.object(IntermediatesCache, "pin_memory", lambda *_, **__: None)
    return nullcontext()


def modifiers(request: Request, device: str) -> list[Any]:
    """llmcompressor's modifiers for `request`, in the order in which they work."""
    from llmcompressor.modifiers.autoround import AutoRoundModifier
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    settings: dict[str, Any] = {"config_groups": _groups(request), "ignore": [HEAD, *request.keep]}
    if request.fp8_kv_cache:
        settings["kv_cache_scheme"] = dict(KV_CACHE_FP8)
    body: list[Any]
    if request.method == "rtn":
        body = [QuantizationModifier(**settings)]
    elif request.method == "gptq":
        if request.dampening is not None:
            settings["dampening_frac"] = request.dampening
        if request.act_order is not None:
            settings["actorder"] = "static" if request.act_order else None
        body = [GPTQModifier(**settings)]
    elif request.method == "awq":
        body = [AWQModifier(), QuantizationModifier(**settings)]
    elif request.method == "smoothquant":
        strength = {} if request.smoothing is None else {"smoothing_strength": request.smoothing}
        body = [SmoothQuantModifier(**strength), QuantizationModifier(**settings)]
    else:
        logging.getLogger("autoround").setLevel(logging.ERROR)  # set anew by its import, hence not in `quiet`
        # compiling its loop needs a C++ compiler on a CPU
        rounds = {} if request.iterations is None else {"iters": request.iterations}
        body = [AutoRoundModifier(**settings, **rounds, enable_torch_compile=device == "cuda")]
    if request.int8_head:
        body.append(QuantizationModifier(config_groups={"head": {"targets": [HEAD], **arguments("W8A8", None)}}))
    return body


def _groups(request: Request) -> dict[str, Any]:
    """The main scheme for all linear layers, others before it: the first target that matches a module decides."""
    groups = {}
    for number, (scheme, patterns) in enumerate(request.others.items()):
        groups[f"other_{number}"] = {"targets": list(patterns), **arguments(scheme, None)}
    return groups | {"group_0": {"targets": ["Linear"], **arguments(request.scheme, request.group_size)}}


def calibration(tokens: Sequence[Sequence[int]]) -> Dataset:
    """Rows of token ids as llmcompressor reads them."""
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in tokens])


def untie(model: PreTrainedModel) -> None:
    """Give the head a weight of its own where it shares the embedding's, and say so in the config."""
    import torch

    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def zeros(model: PreTrainedModel) -> float:
    """Share of zeros in the linear layers of the decoder layers."""
    import torch

    weights = [m.weight for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@contextmanager
def keeping_zeros() -> Iterator[None]:
    """While this lasts, weights that GPTQ finds at zero stay there.

    GPTQ moves what is not rounded yet to make up for what is, pruned weights too, and llmcompressor 0.14 lets it.
    Here a zero is rounded to zero whatever it was moved to, and the error goes on to later columns, as in
    SparseGPT (Frantar and Alistarh, 2023, section 3.5). The masked loop is plain torch, also on a GPU.
    """
    from llmcompressor.modifiers.gptq import gptq_quantize
    from llmcompressor.modifiers.gptq.helpers import apply_activation_ordering

    mask: list[torch.Tensor] = []  # of the weights at work, columns in the order in which they are rounded

    def order(weights: torch.Tensor, hessians: torch.Tensor, actorder: Any) -> Any:
        found = apply_activation_ordering(weights, hessians, actorder)
        mask[:] = [found[0] != 0]  # nothing has been moved yet
        return found

    def block(W1: torch.Tensor, Hinv1: torch.Tensor, Q1: torch.Tensor, *rest: torch.Tensor, **more: Any) -> None:
        _masked_block(mask[0], W1, Hinv1, Q1, *rest, **more)

    with (
        mock.patch.object(gptq_quantize, "apply_activation_ordering", order),
        mock.patch.object(gptq_quantize, "gptq_block_update", block),
    ):
        yield


def _masked_block(
    mask: torch.Tensor,
    weights: torch.Tensor,
    factor: torch.Tensor,
    rounded: torch.Tensor,
    errors: torch.Tensor,
    losses: torch.Tensor,
    *,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    global_scale: torch.Tensor | None,
    g_idx: torch.Tensor | None,
    quant_args: Any,
    i1: int,
) -> None:
    """One block of columns of llmcompressor's `gptq_block_update`; tensors are [batch, rows, columns of block]."""
    from copy import copy

    from compressed_tensors.quantization import QuantizationStrategy, fake_quantize
    from llmcompressor.modifiers.gptq.helpers import column_scale_window

    width = weights.shape[-1]
    a_channel = copy(quant_args)
    a_channel.strategy = QuantizationStrategy.CHANNEL
    scales, points = column_scale_window(
        scale, zero_point, global_scale, g_idx, quant_args, num_rows=weights.shape[-2], i1=i1, i2=i1 + width
    )
    for i in range(width):
        column = weights[:, :, i]
        point = None if points is None else points[:, :, i].transpose(0, 1)
        given = fake_quantize(column.transpose(0, 1), scales[:, :, i].transpose(0, 1), point, a_channel)
        given = given.transpose(0, 1) * mask[:, :, i1 + i]
        error = (column - given) / factor[:, i, i][:, None]
        rounded[:, :, i], errors[:, :, i], losses[:, :, i] = given, error, error.square()
        weights[:, :, i:] -= error.unsqueeze(-1) * factor[:, i, i:].unsqueeze(1)
