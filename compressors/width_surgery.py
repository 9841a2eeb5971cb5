"""How much each channel, head group and hidden channel matters, and matrices cut down to the chosen ones.

What is not known here: how many stay, and why. Names of modules are Llama's, which all supported models share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from compressors.calibration import Ids, batched, run_hidden

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


def ffn_importance(model: PreTrainedModel, rows: list[Ids]) -> list[torch.Tensor]:
    """Per layer, of each FFN channel: mean |act(gate) * up| over tokens times its down_proj column's norm; [ffn]."""
    downs = [layer.mlp.down_proj for layer in model.model.layers]
    means = _mean_inputs(model, rows, [(down, lambda inputs: inputs.abs()) for down in downs])
    return [mean * down.weight.detach().double().norm(dim=0).cpu() for mean, down in zip(means, downs, strict=True)]


def group_importance(model: PreTrainedModel, rows: list[Ids]) -> list[torch.Tensor]:
    """Per layer, of each KV group: mean over tokens of the norm of its share of o_proj's output; [kv_heads]."""
    import torch

    groups = model.config.num_key_value_heads

    def shares(linear: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def measure(inputs: torch.Tensor) -> torch.Tensor:
            pairs = zip(inputs.chunk(groups, dim=-1), linear.weight.float().chunk(groups, dim=1), strict=True)
            return torch.stack([(x @ weight.T).norm(dim=-1) for x, weight in pairs], dim=-1)

        return measure

    outputs = [layer.self_attn.o_proj for layer in model.model.layers]
    return _mean_inputs(model, rows, [(linear, shares(linear)) for linear in outputs])


def hidden_importance(model: PreTrainedModel, rows: list[Ids]) -> torch.Tensor:
    """Of each hidden channel: mean |x| over tokens in all that reads the hidden state, readers alike; [hidden]."""
    import torch

    readers = [linear for layer in model.model.layers for linear in (layer.self_attn.q_proj, layer.mlp.gate_proj)]
    means = _mean_inputs(model, rows, [(reader, lambda inputs: inputs.abs()) for reader in readers])
    head = torch.zeros_like(means[0])
    for hidden in run_hidden(model, batched(rows, model.device)):
        head += hidden.abs().double().sum(dim=0).cpu()
    means.append(head / sum(len(row) for row in rows))
    return torch.stack([mean / mean.mean() for mean in means]).sum(dim=0)


def most_important(importance: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` largest entries' indices, ascending; of equals the first."""
    order = importance.argsort(descending=True, stable=True)
    return order[:count].sort().values


def keep_channels(model: PreTrainedModel, kept: list[torch.Tensor]) -> PreTrainedModel:
    """Cut every FFN of `model`, in place, to the channels `kept` of its layer (as many in each)."""
    for layer, channels in zip(model.model.layers, kept, strict=True):
        keep_outputs(layer.mlp.gate_proj, channels)
        keep_outputs(layer.mlp.up_proj, channels)
        keep_inputs(layer.mlp.down_proj, channels)
        layer.mlp.intermediate_size = len(channels)
    model.config.intermediate_size = len(kept[0])
    return model


def keep_groups(model: PreTrainedModel, kept: list[torch.Tensor]) -> PreTrainedModel:
    """Cut every attention of `model`, in place, to the KV groups `kept` of its layer; head_dim becomes explicit."""
    config = model.config
    ratio = config.num_attention_heads // config.num_key_value_heads
    for layer, groups in zip(model.model.layers, kept, strict=True):
        attention = layer.self_attn
        queries, keys = _spread(groups, ratio * attention.head_dim), _spread(groups, attention.head_dim)
        keep_outputs(attention.q_proj, queries)
        keep_outputs(attention.k_proj, keys)
        keep_outputs(attention.v_proj, keys)
        keep_inputs(attention.o_proj, queries)
        for name, value in (("num_attention_heads", ratio * len(groups)), ("num_key_value_heads", len(groups))):
            if hasattr(attention, name):
                setattr(attention, name, value)
    config.head_dim = model.model.layers[0].self_attn.head_dim
    config.num_attention_heads, config.num_key_value_heads = ratio * len(kept[0]), len(kept[0])
    return model


def keep_hidden(model: PreTrainedModel, kept: torch.Tensor) -> PreTrainedModel:
    """Cut the hidden state of `model`, in place, to the channels `kept`; head_dim becomes explicit.

    Weights of norms over the hidden state grow by sqrt(n / m), see `PruneHidden`.
    """
    import torch

    config = model.config
    size, head_dim = config.hidden_size, model.model.layers[0].self_attn.head_dim
    embedding, head = model.model.embed_tokens, model.lm_head
    tied = head.weight is embedding.weight
    embedding.weight = torch.nn.Parameter(_pick(embedding.weight, kept, 1))
    embedding.embedding_dim = len(kept)
    keep_inputs(head, kept)
    if tied:
        head.weight = embedding.weight
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            keep_inputs(linear, kept)
        for linear in (attention.o_proj, mlp.down_proj):
            keep_outputs(linear, kept)
        for module in (attention, mlp, layer):
            if hasattr(module, "hidden_size"):
                module.hidden_size = len(kept)
    for norm in hidden_norms(model):
        weight = norm.get_parameter("weight")
        scaled = _pick(weight, kept, 0).float() * math.sqrt(size / len(kept))
        norm.weight = torch.nn.Parameter(scaled.to(weight.dtype))
    config.head_dim, config.hidden_size = head_dim, len(kept)
    return model


def hidden_norms(model: PreTrainedModel) -> list[nn.Module]:
    """The norms over the hidden state: whatever the architecture calls them, they lie directly in a layer."""
    inside = [
        module for layer in model.model.layers for name, module in layer.named_children() if name.endswith("layernorm")
    ]
    return [*inside, model.model.norm]


def keep_outputs(linear: nn.Linear, kept: torch.Tensor) -> None:
    """Cut `linear`, in place, to the outputs `kept`: rows of its weight [outputs, inputs], entries of its bias."""
    import torch

    linear.weight = torch.nn.Parameter(_pick(linear.weight, kept, 0))
    if linear.bias is not None:
        linear.bias = torch.nn.Parameter(_pick(linear.bias, kept, 0))
    linear.out_features = len(kept)


def keep_inputs(linear: nn.Linear, kept: torch.Tensor) -> None:
    """Cut `linear`, in place, to the inputs `kept`: columns of its weight [outputs, inputs]."""
    import torch

    linear.weight = torch.nn.Parameter(_pick(linear.weight, kept, 1))
    linear.in_features = len(kept)


def _pick(tensor: torch.Tensor, kept: torch.Tensor, dim: int) -> torch.Tensor:
    return tensor.detach().index_select(dim, kept.to(tensor.device)).clone()


def _spread(groups: torch.Tensor, width: int) -> torch.Tensor:
    """Indices of all `width` channels of each group."""
    import torch

    return (groups[:, None] * width + torch.arange(width)).flatten()


def _mean_inputs(
    model: PreTrainedModel,
    rows: list[Ids],
    measured: Iterable[tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]],
) -> list[torch.Tensor]:
    """Per (module, figure): mean over all real tokens of figure(inputs [tokens, width] in fp32), in fp64."""
    import torch

    sums: list[torch.Tensor | float] = []
    batches = batched(rows, model.device)
    place = [0]  # number of the batch in work

    def watch(number: int, figure: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        def hook(_: object, args: tuple[torch.Tensor, ...]) -> None:
            inputs = args[0][batches[place[0]].real].float()
            sums[number] = sums[number] + figure(inputs).double().sum(dim=0).cpu()

        return hook

    with ExitStack() as stack, torch.no_grad():
        for number, (module, figure) in enumerate(measured):
            sums.append(0.0)
            stack.callback(module.register_forward_pre_hook(watch(number, figure)).remove)
        for number, _ in enumerate(run_hidden(model, batches)):
            place[0] = number + 1
    tokens = sum(len(row) for row in rows)
    return [torch.as_tensor(total) / tokens for total in sums]
