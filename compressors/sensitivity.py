"""How much each decoder layer suffers from a quantization scheme, measured once per model and scheme and kept.

Knows nothing of how layers are then chosen.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.artifact import base_artifact, file_sha256, libraries
from compressors.schemes import arguments

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CODE = ("compressors.sensitivity", "compressors.logits", "compressors.divergence")  # what the numbers come out of
TOKENS = 4096  # calibration tokens the table is measured on


def kept_table(
    cache: Path | None,
    source: Path,
    scheme: str,
    group_size: int | None,
    data: str,
    rows: Sequence[Sequence[int]],
    device: str,
    make: Callable[[], list[float]],
) -> list[float]:
    """The table of the model in `source`, from `cache` or made now by `make` and left there.

    The file is named by all that decides it: weights, scheme, data, rows, kind of device ("cpu" or "cuda"), code
    and libraries. Two processes may make it at once; the same numbers then replace each other whole.
    """
    if cache is None:
        return make()
    ingredients = [base_artifact(source).key, arguments(scheme, group_size), data, [list(row) for row in rows], TOKENS]
    text = json.dumps([*ingredients, device, libraries(), [_source_hash(name) for name in CODE]], sort_keys=True)
    path = cache / f"sensitivity-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    if path.is_file():
        return [float(kl) for kl in json.loads(path.read_text(encoding="utf-8"))["kl"]]
    table = make()
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    aside.write_text(json.dumps({"scheme": scheme, "group_size": group_size, "kl": table}) + "\n", encoding="utf-8")
    aside.replace(path)
    return table


def _source_hash(module: str) -> str:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ValueError(f"module {module} has no source file to name the sensitivity table by")
    return file_sha256(Path(found.origin))


def sensitivity(
    model: PreTrainedModel, scheme: str, group_size: int | None, rows: Sequence[Sequence[int]]
) -> list[float]:
    """KL(model || model with only that layer quantized), in nats, mean over all tokens of `rows`: one a layer.

    Weights are rounded to nearest; activations, where the scheme quantizes them, with scales of their own values
    (also for static schemes, whose scales are not known yet). `model` is as before afterwards.
    """
    import torch

    from compressors.logits import summed_kl

    with torch.no_grad():
        whole = [_hidden(model, row) for row in rows]
        table = []
        for layer in model.model.layers:
            total = 0.0
            with quantized(layer, scheme, group_size):
                for row, wanted in zip(rows, whole, strict=True):
                    total += summed_kl(model.lm_head, wanted, _hidden(model, row), model.config.vocab_size)
            table.append(total / sum(len(row) for row in rows))
    return table


def within(rows: Sequence[Sequence[int]], tokens: int = TOKENS) -> list[list[int]]:
    """The first rows that fit in `tokens` together; of the first row at least so much."""
    chosen: list[list[int]] = []
    for row in rows:
        room = tokens - sum(len(one) for one in chosen)
        if room <= 0 or (chosen and len(row) > room):
            break
        chosen.append(list(row[:room]))
    return chosen


@contextmanager
def quantized(layer: torch.nn.Module, scheme: str, group_size: int | None) -> Iterator[None]:
    """The linear layers of `layer` compute as if quantized while this lasts; weights come back to the last bit."""
    import torch
    from compressed_tensors.quantization import QuantizationScheme

    how = QuantizationScheme(targets=["Linear"], **arguments(scheme, group_size))
    with ExitStack() as undo:
        for module in layer.modules():
            if not isinstance(module, torch.nn.Linear):
                continue
            undo.callback(setattr, module.weight, "data", module.weight.data)
            module.weight.data = _rounded_weight(module, how.weights)
            if how.input_activations is not None:
                undo.callback(module.register_forward_pre_hook(_rounds_inputs(how.input_activations)).remove)
        yield


def _rounded_weight(module: torch.nn.Linear, args: Any) -> torch.Tensor:
    from compressed_tensors.quantization import fake_quantize
    from llmcompressor.observers import Observer

    observer = Observer.load_from_registry("memoryless_minmax", base_name="weight", args=args)
    observer(module.weight.data)
    found = observer.get_qparams()
    weight: torch.Tensor = fake_quantize(module.weight.data, found["scale"], found["zero_point"], args)
    return weight


def _rounds_inputs(args: Any) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]:
    def hook(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        from compressed_tensors.quantization import fake_quantize
        from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

        scale, point = compute_dynamic_scales_and_zp(given[0], args, module)
        return (fake_quantize(given[0], scale, point, args), *given[1:])

    return hook


def _hidden(model: PreTrainedModel, row: Sequence[int]) -> torch.Tensor:
    """Last hidden states of one row of token ids: [tokens, hidden]."""
    import torch

    ids = torch.tensor([list(row)], device=model.device)
    hidden: torch.Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
    return hidden
