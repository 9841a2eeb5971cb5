"""Losses and their gradients against torch on full logits, one row at a time, unpadded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from compressors import checkpoint, logits
from compressors.data import Sample
from compressors.harm import Watch
from compressors.objective import Match, Say, hidden_distance
from compressors.step import Infeasible
from compressors.teacher import LiveTeacher, StoredTeacher

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ROWS = [(tuple(range(10, 30)), 8), (tuple(range(50, 63)), 5)]
SAMPLES = [Sample(ids, tuple(i >= start for i in range(len(ids)))) for ids, start in ROWS]
COUNTED = sum(len(ids) - start for ids, start in ROWS)


@pytest.fixture
def pair(base: Path) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student that differs from its teacher, both fp32."""
    import torch

    student, teacher = (checkpoint.load(base, "cpu")[0].float() for _ in range(2))
    torch.manual_seed(0)
    for weight in student.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return student, teacher


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    """[positions, vocabulary] before each answer token."""
    import torch

    return torch.cat([model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1] for ids, start in ROWS])


def expected(kind: str, student: PreTrainedModel, teacher: PreTrainedModel) -> torch.Tensor:
    """By KLDivLoss; of top: over 8 + 1 categories, put together by hand."""
    import torch

    to = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)  # of (q, p): KL(p || q)
    q = torch.log_softmax(logits_of(student), -1)
    with torch.no_grad():
        p = torch.log_softmax(logits_of(teacher), -1)
    if kind == "say":
        return torch.nn.functional.nll_loss(q, torch.cat([torch.tensor(ids[start:]) for ids, start in ROWS]))
    if kind == "top":
        best = p.exp().topk(8)
        left, given = best.values, q.exp().gather(-1, best.indices)
        p, q = (torch.cat([x, 1 - x.sum(-1, keepdim=True)], -1).log() for x in (left, given))
    if kind == "reverse_kl":
        return to(p, q)
    if kind == "jsd":
        middle = ((p.exp() + q.exp()) / 2).log()
        return 0.5 * to(middle, p) + 0.5 * to(middle, q)
    return to(q, p)


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jsd", "top", "say"])
def test_loss_and_gradient(pair: Any, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(logits, "AT_ONCE", 512 * 7)  # seven positions at a time: parts must add up
    student, teacher = pair
    aim: Any = Match(LiveTeacher(teacher), kind)
    if kind == "top":
        aim = Match(StoredTeacher(teacher, tmp_path, 8), "kl")
    if kind == "say":
        aim = Say()
    loss = aim.backward(student, SAMPLES, COUNTED)
    gradients = {name: weight.grad.clone() for name, weight in student.named_parameters()}
    student.zero_grad()
    reference = expected(kind, student, teacher)
    reference.backward()
    loose = 1e-3 if kind == "top" else 1e-5  # stored in fp16
    assert loss == pytest.approx(reference.item(), rel=loose)
    for name, weight in student.named_parameters():
        largest = float(weight.grad.abs().max())
        assert torch.allclose(gradients[name], weight.grad, rtol=1e-3, atol=10 * loose * largest), name


def test_top_of_the_whole_vocabulary_is_the_whole(pair: Any, tmp_path: Path) -> None:
    student, teacher = pair
    whole = Match(LiveTeacher(teacher)).backward(student, SAMPLES, COUNTED)
    stored = Match(StoredTeacher(teacher, tmp_path, 512)).backward(student, SAMPLES, COUNTED)
    assert stored == pytest.approx(whole, rel=1e-3)


def test_hidden_states_pull_together(pair: Any) -> None:
    import torch

    student, teacher = pair
    plain = Match(LiveTeacher(teacher)).backward(student, SAMPLES, COUNTED)
    student.zero_grad()
    both = Match(LiveTeacher(teacher), hidden=0.5).backward(student, SAMPLES, COUNTED)
    states = [torch.cat([model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, start - 1 : -1]
                         for ids, start in ROWS]) for model in pair]  # fmt: skip
    distance = ((states[0] - states[1]) ** 2).mean() / (states[1] ** 2).mean()
    assert both - plain == pytest.approx(0.5 * float(distance.detach()), rel=1e-4)
    with pytest.raises(Infeasible, match="equal widths"):
        hidden_distance(states[0][:, :64], states[1])


def test_readings_are_those_of_full_logits(pair: Any) -> None:
    import torch

    student, teacher = pair
    reading = Watch(teacher, student, SAMPLES).read(student)
    given, wanted = logits_of(student), logits_of(teacher)
    targets = torch.cat([torch.tensor(ids[start:]) for ids, start in ROWS])
    assert reading.kl == pytest.approx(float(expected("kl", student, teacher).detach()), rel=1e-5)
    assert reading.loss == pytest.approx(float(torch.nn.functional.cross_entropy(given, targets).detach()), rel=1e-5)
    assert reading.agreement == pytest.approx(float((given.argmax(-1) == wanted.argmax(-1)).float().mean()))
