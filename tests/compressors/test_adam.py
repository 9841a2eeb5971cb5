"""AdamW with moments in bf16 beside torch's own."""

from __future__ import annotations

import pytest


def test_it_goes_where_torchs_own_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from compressors import adam

    monkeypatch.setattr(adam, "CHUNK", 100)  # chunks must add up
    torch.manual_seed(0)
    start, target = torch.randn(3, 150), torch.randn(3, 150)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    small = adam.SmallAdamW([ours], lr=0.02, betas=(0.9, 0.95))
    whole = torch.optim.AdamW([theirs], lr=0.02, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(40):
        for weight, optimizer in ((ours, small), (theirs, whole)):
            optimizer.zero_grad(set_to_none=True)
            ((weight - target) ** 2).sum().backward()
            optimizer.step()
    moved = (theirs - start).detach().norm()
    assert moved > 5.0
    assert (ours - theirs).detach().norm() < 0.01 * moved
    assert small.state[ours]["exp_avg"].dtype == torch.bfloat16
