"""Which decoder layers a model misses least: measured on calibration tokens, without copying the model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compressors.calibration import CalibrationBatch, Ids, batched, run_hidden
from compressors.logits import summed_kl

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MOST_SWITCHES = 3  # layers that one mutation may exchange

Layers = tuple[int, ...]  # dropped layers, ascending


def block_influence(model: PreTrainedModel, rows: list[Ids]) -> list[float]:
    """1 - cos(h_in, h_out) of every decoder layer, mean over all tokens of `rows` (Men et al., 2024, eq. 2)."""
    import torch

    total = torch.zeros(len(model.model.layers), dtype=torch.float64)
    for batch, streams in _streams(model, batched(rows, model.device)):
        for index in range(len(total)):
            cosine = torch.cosine_similarity(streams[index].float(), streams[index + 1].float(), dim=-1)
            total[index] += (1 - cosine)[batch.real].double().sum().cpu()
    return [float(value) for value in total / sum(len(row) for row in rows)]


def angular_distance(model: PreTrainedModel, rows: list[Ids], count: int) -> list[float]:
    """arccos(cos(h_l, h_l+count)) / pi for every first layer l of a block of `count` layers.

    h_l is what enters layer l at the last token of a row; mean over rows (Gromov et al., 2024, eq. 7).
    """
    import torch

    starts = len(model.model.layers) - count + 1
    total = torch.zeros(starts, dtype=torch.float64)
    for batch, streams in _streams(model, batched(rows, model.device)):
        place = (torch.arange(len(batch.ids), device=batch.ids.device), batch.real.sum(dim=1) - 1)
        last = [stream[place].double() for stream in streams]
        for start in range(starts):
            cosine = torch.cosine_similarity(last[start], last[start + count], dim=-1).clamp(-1, 1)
            total[start] += (cosine.arccos() / math.pi).sum().cpu()
    return [float(value) for value in total / len(rows)]


class Divergence:
    """KL(whole || without some layers) in nats, mean over tokens; the whole model's last hidden states are kept.

    Its logits are made anew, a part at a time, whenever they are compared: tokens x vocabulary would fill memory.
    """

    def __init__(self, model: PreTrainedModel, rows: list[Ids], tokens: int) -> None:
        enough: list[Ids] = []
        left = tokens
        for row in rows:
            if left <= 0:
                break
            enough.append(row[:left])
            left -= len(enough[-1])
        self.model = model
        self.batches = batched(enough, model.device)
        self.whole = list(run_hidden(model, self.batches))

    def __call__(self, dropped: Layers, chosen: Sequence[int] | None = None) -> float:
        """Mean KL over the batches `chosen` (their numbers), all of them by default."""
        numbers = range(len(self.batches)) if chosen is None else chosen
        total, tokens = 0.0, 0
        with without(self.model, dropped):
            hidden = run_hidden(self.model, [self.batches[number] for number in numbers])
            for number, mine in zip(numbers, hidden, strict=True):
                total += summed_kl(self.model.lm_head, self.whole[number], mine, self.model.config.vocab_size)
                tokens += len(mine)
        return total / tokens


def greedy(measure: Divergence, count: int, say: Callable[[str], None]) -> tuple[Layers, list[float]]:
    """Take out the layer whose absence costs least, `count` times over; also the KL after each of them."""
    dropped: Layers = ()
    path: list[float] = []
    for _ in range(count):
        left = [layer for layer in range(len(measure.model.model.layers)) if layer not in dropped]
        costs = {layer: measure(tuple(sorted((*dropped, layer)))) for layer in left}
        best = min(left, key=lambda layer: (costs[layer], layer))
        dropped = tuple(sorted((*dropped, best)))
        path.append(costs[best])
        say(f"drop_layers: without {', '.join(map(str, dropped))} the KL is {costs[best]:.4f}")
    return dropped, path


def evolve(
    measure: Divergence,
    count: int,
    *,
    generations: int,
    offspring: int,
    survivors: int,
    few_tokens: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[Layers, list[float]]:
    """Evolutionary search, (1 + offspring) with level switches (EvoPress, Sieberling et al., 2024, alg. 1).

    A mutation exchanges min(u, v) dropped layers for kept ones, u and v drawn from 1 to 3. Offspring are measured
    on a draw of batches of at least `few_tokens` tokens; the best `survivors` again on all tokens, where the parent
    holds its place unless one is better. The first parent is the best of `offspring` draws.
    Also the parent's KL after each generation.
    """
    draw = random.Random(seed)
    layers = len(measure.model.model.layers)
    known: dict[Layers, float] = {}  # KL on all tokens

    def fully(dropped: Layers) -> float:
        if dropped not in known:
            known[dropped] = measure(dropped)
        return known[dropped]

    def best_of(candidates: list[Layers]) -> Layers:
        few = _some(measure.batches, few_tokens, draw)
        fresh = sorted(set(candidates))  # sorted: ties fall the same way everywhere
        if len(few) < len(measure.batches) and len(fresh) > survivors:
            fresh = sorted(fresh, key=lambda one: (measure(one, few), one))[:survivors]
        return min(fresh, key=lambda one: (fully(one), one))

    parent = best_of([tuple(sorted(draw.sample(range(layers), count))) for _ in range(offspring)])
    path: list[float] = []
    for number in range(generations):
        challenger = best_of([_mutate(parent, layers, draw) for _ in range(offspring)])
        if fully(challenger) < fully(parent):
            parent = challenger
        path.append(fully(parent))
        say(f"drop_layers: generation {number + 1} of {generations}, KL {path[-1]:.4f}")
    return parent, path


@contextmanager
def without(model: PreTrainedModel, dropped: Sequence[int]) -> Iterator[None]:
    """`model` runs without the layers `dropped` while this lasts; it shares all weights and is not for caches."""
    import torch

    layers, config = model.model.layers, model.config
    kinds = getattr(config, "layer_types", None)
    kept = [index for index in range(len(layers)) if index not in set(dropped)]
    try:
        model.model.layers = torch.nn.ModuleList(layers[index] for index in kept)
        config.num_hidden_layers = len(kept)
        if kinds is not None:  # masks are chosen by a layer's place, not by the layer
            config.layer_types = [kinds[index] for index in kept]
        yield
    finally:
        model.model.layers = layers
        config.num_hidden_layers = len(layers)
        if kinds is not None:
            config.layer_types = kinds


def _streams(
    model: PreTrainedModel, batches: list[CalibrationBatch]
) -> Iterator[tuple[CalibrationBatch, list[torch.Tensor]]]:
    """Per batch what enters each layer, and last what leaves the last one: [rows, longest, hidden] each."""
    streams: list[torch.Tensor] = []

    def entering(_: object, args: tuple, kwargs: dict) -> None:
        streams.append(args[0] if args else kwargs["hidden_states"])

    def leaving(_: object, __: tuple, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        streams.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_pre_hook(entering, with_kwargs=True) for layer in model.model.layers]
    handles.append(model.model.layers[-1].register_forward_hook(leaving))
    try:
        for batch, _ in zip(batches, run_hidden(model, batches), strict=True):
            yield batch, streams
            streams.clear()
    finally:
        for handle in handles:
            handle.remove()


def _some(batches: list[CalibrationBatch], tokens: int, draw: random.Random) -> list[int]:
    """Numbers of batches drawn until they hold `tokens` tokens, or all there are."""
    order = list(range(len(batches)))
    draw.shuffle(order)
    chosen: list[int] = []
    for number in order:
        if tokens <= 0:
            break
        chosen.append(number)
        tokens -= batches[number].tokens
    return sorted(chosen)


def _mutate(dropped: Layers, layers: int, draw: random.Random) -> Layers:
    kept = [layer for layer in range(layers) if layer not in dropped]
    most = min(MOST_SWITCHES, len(dropped), len(kept))
    switches = min(draw.randint(1, most), draw.randint(1, most))
    leaving, returning = draw.sample(kept, switches), draw.sample(dropped, switches)
    return tuple(sorted((set(dropped) - set(returning)) | set(leaving)))
