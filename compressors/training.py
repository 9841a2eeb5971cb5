"""One optimizer's life: fp32 weights, moments, average and place in the data, saved to go on later."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.artifact import TRAINING as STATE
from compressors.batches import Batch, Place, pad
from compressors.data import Sample
from compressors.step import StepFault

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ACTIVATIONS = 2**30  # values kept for the backward pass at once (2 to 4 bytes each)
LOGITS = 2**25  # logits worked on at once (128 MiB in fp32, a few tensors of them)
BETAS = (0.9, 0.95)
PADDING = 1.25  # padded tokens a token, at most, in what goes through the models together
CLIP = 1.0  # largest norm of a gradient


class Trainer:
    """AdamW on `student` (fp32, changed in place) towards a teacher's distributions.

    The learning rate at token position t is lr · min(t / warmup, sqrt(warmup / t)): it never depends on how
    far training will go. The average follows the weights over the last `average` share of all tokens so far.
    """

    def __init__(self, student: PreTrainedModel, *, lr: float, warmup_tokens: int, average: float) -> None:
        import torch

        self.student, self.lr, self.warmup_tokens, self.average = student, lr, warmup_tokens, average
        self.weights = dict(student.named_parameters())
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=lr, betas=BETAS, weight_decay=0.0, fused=True)
        self.mean = {name: weight.detach().clone() for name, weight in self.weights.items()} if average else {}
        self.position, self.steps, self.place, self.kl_before = 0, 0, Place(), math.nan

    def step(self, teacher: PreTrainedModel, batch: Batch) -> float:
        """One optimizer step on `batch`; returns its loss, the mean KL in nats over the tokens counted.

        Raises `StepFault` naming step and value when that is NaN or Inf; the weights are then as before.
        """
        import torch

        counted = sum(sum(sample.answer[1:]) for sample in batch.samples)
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum(backward_kl(self.student, teacher, piece, counted) for piece in pieces(batch.samples, self.student))
        if not math.isfinite(loss):
            raise StepFault(f"distill diverged: the loss of optimizer step {self.steps + 1} is {loss}")
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), CLIP, error_if_nonfinite=False)
        self.position += batch.tokens
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(
                self.position / self.warmup_tokens, math.sqrt(self.warmup_tokens / self.position)
            )
        self.optimizer.step()
        if self.average:
            pace = min(1.0, batch.tokens / (self.average * self.position))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.mean.values()), list(self.weights.values()), pace)
        self.steps, self.place = self.steps + 1, batch.after
        return loss

    def show_average(self) -> None:
        """Put what is handed on, the average rounded to bf16, into the student. Ends training."""
        import torch

        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.mean.get(name, weight).to(torch.bfloat16))

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on to `folder`/training."""
        from safetensors.torch import save_file

        tensors = {}
        for name, weight in self.weights.items():
            moments = self.optimizer.state[weight]
            tensors[f"weight/{name}"] = weight.detach().contiguous()
            tensors[f"exp_avg/{name}"] = moments["exp_avg"].contiguous()
            tensors[f"exp_avg_sq/{name}"] = moments["exp_avg_sq"].contiguous()
        tensors |= {f"mean/{name}": mean.contiguous() for name, mean in self.mean.items()}
        state = folder / STATE
        state.mkdir()
        save_file(tensors, str(state / "state.safetensors"))
        place = {"epoch": self.place.epoch, "window": self.place.window, "batch": self.place.batch}
        figures = {
            "position": self.position,
            "steps": self.steps,
            "place": place,
            "kl_before": self.kl_before,
        }
        (state / "state.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on where the artifact in `folder` stopped."""
        import torch
        from safetensors import safe_open

        figures: dict[str, Any] = json.loads((folder / STATE / "state.json").read_text(encoding="utf-8"))
        self.position, self.steps = figures["position"], figures["steps"]
        self.place, self.kl_before = Place(**figures["place"]), figures["kl_before"]
        with safe_open(str(folder / STATE / "state.safetensors"), framework="pt") as tensors, torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(tensors.get_tensor(f"weight/{name}"))
                self.optimizer.state[weight] = {
                    "step": torch.tensor(float(self.steps), device=weight.device),
                    "exp_avg": tensors.get_tensor(f"exp_avg/{name}").to(weight.device),
                    "exp_avg_sq": tensors.get_tensor(f"exp_avg_sq/{name}").to(weight.device),
                }
            for name, mean in self.mean.items():
                mean.copy_(tensors.get_tensor(f"mean/{name}"))


def kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of logits [positions, vocabulary], summed over positions, in nats, in fp32."""
    import torch

    wanted = torch.log_softmax(teacher.float(), dim=-1)
    given = torch.log_softmax(student.float(), dim=-1)
    return (wanted.exp() * (wanted - given)).sum()


def mean_kl(student: PreTrainedModel, teacher: PreTrainedModel, samples: Sequence[Sample]) -> float:
    """KL(teacher || student) in nats, mean over the counted tokens of `samples`."""
    import torch

    total, counted = 0.0, 0
    with torch.no_grad():
        for piece in pieces(samples, student):
            learner, guide = _hidden(student, teacher, piece)
            for part in _parts(learner, student):
                total += float(kl(student.lm_head(learner[part]), teacher.lm_head(guide[part])))
            counted += len(learner)
    return total / counted


def backward_kl(student: PreTrainedModel, teacher: PreTrainedModel, piece: Sequence[Sample], counted: int) -> float:
    """Add the gradient of the piece's summed KL over `counted` to the student's weights; returns that share.

    The head sees only the tokens counted, a part of them at a time: logits are what fills memory.
    """
    import torch

    learner, guide = _hidden(student, teacher, piece)
    leaf = learner.detach().requires_grad_()
    total = 0.0
    for part in _parts(leaf, student):
        with torch.autocast(leaf.device.type, torch.bfloat16, enabled=leaf.is_cuda):
            with torch.no_grad():
                wanted = teacher.lm_head(guide[part])
            loss = kl(student.lm_head(leaf[part]), wanted) / counted
        loss.backward()
        total += float(loss.detach())
    learner.backward(leaf.grad)
    return total


def pieces(samples: Sequence[Sample], model: PreTrainedModel) -> Iterator[Sequence[Sample]]:
    """Split samples into runs of like length whose activations fit `ACTIVATIONS`."""
    config = model.config
    a_token = config.num_hidden_layers * (8 * config.hidden_size + 3 * config.intermediate_size)
    limit = ACTIVATIONS // a_token
    ordered = sorted(samples, key=lambda sample: len(sample.ids))
    start = tokens = 0
    for end, sample in enumerate(ordered):
        padded = (end + 1 - start) * len(sample.ids)
        tokens += len(sample.ids)
        if end > start and (padded > limit or padded > PADDING * tokens):
            yield ordered[start:end]
            start, tokens = end, len(sample.ids)
    yield ordered[start:]


def _hidden(
    student: PreTrainedModel, teacher: PreTrainedModel, piece: Sequence[Sample]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states of both models where the next token counts: [positions, hidden] each."""
    import torch

    ids, counted = pad(piece, str(student.device))
    with torch.autocast(student.device.type, torch.bfloat16, enabled=student.device.type == "cuda"):
        with torch.no_grad():
            guide = teacher.model(input_ids=ids, use_cache=False).last_hidden_state[counted]
        learner = student.model(input_ids=ids, use_cache=False).last_hidden_state[counted]
    return learner, guide


def _parts(hidden: torch.Tensor, model: PreTrainedModel) -> Iterator[slice]:
    size = max(1, LOGITS // model.config.vocab_size)
    for start in range(0, len(hidden), size):
        yield slice(start, start + size)
