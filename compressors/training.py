"""One optimizer's life: fp32 weights, moments, average, best point and place in the data, saved to go on later."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.adam import SmallAdamW
from compressors.artifact import TRAINING as STATE
from compressors.batches import Batch, Place, pieces
from compressors.harm import Reading
from compressors.objective import Objective
from compressors.step import StepFault

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BETAS = (0.9, 0.95)
CLIP = 1.0  # largest norm of a gradient
AVERAGE_EVERY = 4  # optimizer steps between two updates of the average, which may live in another memory
LARGE = 200_000_000  # weights from which moments are kept in bf16, and a GPU's average in the host's memory


class Trainer:
    """AdamW on those weights of `student` (fp32, changed in place) that ask for gradients, towards an objective.

    The learning rate at token position t is lr · min(t / warmup, sqrt(warmup / t)): it never depends on how
    far training will go. The average follows the weights over the last `average` share of all tokens so far.
    Weights that a sparsified model holds at zero stay there.
    """

    def __init__(self, student: PreTrainedModel, *, lr: float, warmup_tokens: int, average: float) -> None:
        import torch

        self.student, self.lr, self.warmup_tokens, self.average = student, lr, warmup_tokens, average
        self.weights = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
        self.large = sum(weight.numel() for weight in self.weights.values()) > LARGE
        self.optimizer: Any = (
            SmallAdamW(self.weights.values(), lr, BETAS)
            if self.large
            else torch.optim.AdamW(self.weights.values(), lr=lr, betas=BETAS, weight_decay=0.0, fused=True)
        )
        if sum(weight.numel() for weight in student.parameters()) > LARGE:
            # activations of one long row alone would take 7 GB at EXAONE-4.0-1.2B's shape
            student.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            student.train()  # without dropout in any of these models, this turns checkpointing on and no more
        self.masks = masks_of(student, self.weights)
        home = torch.device("cpu") if self.large else student.device
        self.mean = {n: w.detach().to(home, copy=True) for n, w in self.weights.items()} if average else {}
        self.best: dict[str, torch.Tensor] = {}  # weights in bf16 at the best point seen, in the host's memory
        self.best_reading: Reading | None = None
        self.before: Reading | None = None  # of the input, ahead of all training
        self.position, self.steps, self.place = 0, 0, Place()
        self.unaveraged = 0  # tokens since the average was last updated
        self.checks, self.fruitless = 0, 0  # readings that were due so far; those in a row that were no gain

    def step(self, objective: Objective, batch: Batch) -> float:
        """One optimizer step on `batch`; returns its loss, the mean over the tokens counted.

        Raises `StepFault` naming step and value when that is NaN or Inf; the weights are then as before.
        """
        import torch

        counted = sum(sum(sample.answer[1:]) for sample in batch.samples)
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum(objective.backward(self.student, part, counted) for part in pieces(batch.samples, self.student))
        if not math.isfinite(loss):
            raise StepFault(f"training diverged: the loss of optimizer step {self.steps + 1} is {loss}")
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.weights.values()), CLIP, error_if_nonfinite=False))
        if not math.isfinite(norm):
            raise StepFault(f"training diverged: the gradient's norm at optimizer step {self.steps + 1} is {norm}")
        self.position += batch.tokens
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(
                self.position / self.warmup_tokens, math.sqrt(self.warmup_tokens / self.position)
            )
        self.optimizer.step()
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.weights[name].mul_(mask)
        self.steps, self.place, self.unaveraged = self.steps + 1, batch.after, self.unaveraged + batch.tokens
        if self.average and self.steps % AVERAGE_EVERY == 0:
            self._average(self.mean)
            self.unaveraged = 0
        return loss

    def check(self, read: Callable[[PreTrainedModel], Reading], rank: Callable[[Reading], float]) -> Reading:
        """Read the average on held-out data; keep it if it ranks (less is better) below the input and all before."""
        import torch

        with torch.no_grad():
            current = {name: weight.detach().to("cpu", copy=True) for name, weight in self.weights.items()}
            for name, weight in self.weights.items():
                weight.copy_(self.mean.get(name, weight))
            reading = read(self.student)
            assert self.before is not None  # read at the start, and carried by the training state
            if rank(reading) < rank(self.best_reading or self.before):
                self.best_reading, self.fruitless = reading, 0
                self.best = {n: w.detach().to("cpu", torch.bfloat16, copy=True) for n, w in self.weights.items()}
            else:
                self.fruitless += 1
            for name, weight in self.weights.items():
                weight.copy_(current[name])
        return reading

    def show_average(self) -> None:
        """Put the average of all training so far into the student. Ends training; `save` before."""
        import torch

        with torch.no_grad():
            if self.unaveraged and self.average:
                self._average(self.mean)
            for name, weight in self.weights.items():
                weight.copy_(self.mean.get(name, weight))

    def show_best(self) -> None:
        """Put the weights of the best reading into the student. Ends training."""
        import torch

        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.best[name])

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
        tensors |= {f"best/{name}": best.contiguous() for name, best in self.best.items()}
        state = folder / STATE
        state.mkdir()
        save_file(tensors, str(state / "state.safetensors"))
        figures = {
            "position": self.position,
            "steps": self.steps,
            "unaveraged": self.unaveraged,
            "checks": self.checks,
            "fruitless": self.fruitless,
            "place": {"epoch": self.place.epoch, "window": self.place.window, "batch": self.place.batch},
            "before": self.before.model_dump() if self.before else None,
            "best": self.best_reading.model_dump() if self.best_reading else None,
        }
        (state / "state.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on where the artifact in `folder` stopped."""
        import torch
        from safetensors import safe_open

        figures: dict[str, Any] = json.loads((folder / STATE / "state.json").read_text(encoding="utf-8"))
        self.position, self.steps, self.unaveraged = figures["position"], figures["steps"], figures["unaveraged"]
        self.checks, self.fruitless, self.place = figures["checks"], figures["fruitless"], Place(**figures["place"])
        self.before, self.best_reading = _reading(figures["before"]), _reading(figures["best"])
        with safe_open(str(folder / STATE / "state.safetensors"), framework="pt") as tensors, torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(tensors.get_tensor(f"weight/{name}"))
                self.optimizer.state[weight] = {
                    "step": torch.tensor(float(self.steps), device="cpu" if self.large else weight.device),
                    "exp_avg": tensors.get_tensor(f"exp_avg/{name}").to(weight.device),
                    "exp_avg_sq": tensors.get_tensor(f"exp_avg_sq/{name}").to(weight.device),
                }
            for name, mean in self.mean.items():
                mean.copy_(tensors.get_tensor(f"mean/{name}"))
            if self.best_reading is not None:
                self.best = {name: tensors.get_tensor(f"best/{name}") for name in self.weights}

    def _average(self, mean: dict[str, torch.Tensor]) -> None:
        import torch

        pace = min(1.0, self.unaveraged / (self.average * self.position))
        with torch.no_grad():
            for name, weight in self.weights.items():
                mean[name].lerp_(weight.to(mean[name].device), pace)


def masks_of(student: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Where the decoder's matrices may be other than zero, of a model that was sparsified; of others nothing."""
    from compressors.quantizers import SPARSE, zeros

    if zeros(student) < SPARSE:
        return {}
    return {name: weight != 0 for name, weight in weights.items() if name.endswith("_proj.weight")}


def _reading(fields: dict[str, float] | None) -> Reading | None:
    return Reading(**fields) if fields is not None else None
