"""Distillation: its loss and gradient, going on bit for bit, and doing no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.data import Sample, conversations
from compressors.depth import DropLayers
from compressors.recover import Distill
from compressors.shape import check_recipe
from compressors.step import Conversations, EngineTraits, Infeasible, ModelShape, StepFault
from compressors.store import Store

DROP = DropLayers(count=1, calibration_rows=8)
SMALL = {"batch_tokens": 256, "warmup_tokens": 500, "lr": 1e-3}


def test_loss_and_gradient_are_those_of_kldivloss_on_full_logits(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from compressors import training

    monkeypatch.setattr(training, "LOGITS", 512 * 7)  # seven positions at a time: parts must add up
    student, _ = checkpoint.load(base, "cpu")
    teacher, _ = checkpoint.load(base, "cpu")
    torch.manual_seed(0)
    for weight in student.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    student.float()
    teacher.float()
    rows = [(tuple(range(10, 30)), 8), (tuple(range(50, 63)), 5)]
    samples = [Sample(ids, tuple(i >= start for i in range(len(ids)))) for ids, start in rows]
    counted = sum(len(ids) - start for ids, start in rows)

    loss = training.backward_kl(student, teacher, samples, counted)
    gradients = {name: weight.grad.clone() for name, weight in student.named_parameters()}

    student.zero_grad()
    given, wanted = [], []
    for ids, start in rows:  # one by one, unpadded; the logits before an answer token predict it
        given.append(student(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1])
        with torch.no_grad():
            wanted.append(teacher(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1])
    reference = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)(
        torch.log_softmax(torch.cat(given), -1), torch.log_softmax(torch.cat(wanted), -1)
    )
    reference.backward()
    assert loss == pytest.approx(reference.item(), rel=1e-5)
    assert training.mean_kl(student, teacher, samples) == pytest.approx(reference.item(), rel=1e-5)
    for name, weight in student.named_parameters():
        largest = float(weight.grad.abs().max())
        assert torch.allclose(gradients[name], weight.grad, rtol=1e-3, atol=1e-4 * largest), name


@pytest.mark.parametrize("average", [0.1, 0.0])
def test_going_on_equals_training_straight_through(
    base: Path, tmp_path: Path, data: Conversations, average: float
) -> None:
    """Also over the end of an epoch: the 54 training rows hold about 3,400 tokens."""
    short, long = (Distill(tokens=n, average=average, **SMALL) for n in (2_000, 5_000))
    straight = build([DROP, long], base, Store(tmp_path / "straight"), data).artifact
    store = Store(tmp_path / "resumed")
    first = build([DROP, short], base, store, data).artifact
    resumed = build([DROP, long], base, store, data).artifact
    assert straight.provenance is not None and resumed.provenance is not None
    assert straight.provenance.continued_from is None
    assert resumed.provenance.continued_from == first.key
    assert resumed.key == straight.key
    assert resumed.provenance.files == straight.provenance.files  # every byte, optimizer state too
    assert resumed.provenance.notes == straight.provenance.notes
    state = json.loads((resumed.folder / "training" / "state.json").read_text())
    assert state["position"] >= 5_000 and state["place"]["epoch"] == 1


def test_it_goes_on_only_from_the_same_family(base: Path, tmp_path: Path, data: Conversations) -> None:
    store = Store(tmp_path)
    build([DROP, Distill(tokens=300, **SMALL)], base, store, data)
    for other in (
        [DROP, Distill(tokens=600, **{**SMALL, "lr": 2e-3})],
        [DropLayers(count=2, calibration_rows=8), Distill(tokens=600, **SMALL)],
    ):
        provenance = build(other, base, store, data).artifact.provenance
        assert provenance is not None and provenance.continued_from is None


def test_what_was_gone_on_from_gives_up_its_training_state(base: Path, tmp_path: Path, data: Conversations) -> None:
    """The state is several times the model's size; the model itself stays, whole by its checksums."""
    store = Store(tmp_path)
    steps = [[DROP, Distill(tokens=tokens, **SMALL)] for tokens in (300, 600, 900)]
    first, second = (build(one, base, store, data).artifact for one in steps[:2])
    assert not (first.folder / "training").exists()
    assert (second.folder / "training").exists()
    assert store.verify(first.key)
    assert build(steps[0], base, store, data).stages[-1].cached
    third = build(steps[2], base, store, data).artifact
    assert third.provenance is not None and third.provenance.continued_from == second.key
    between = build([DROP, Distill(tokens=450, **SMALL)], base, store, data).artifact
    assert between.provenance is not None and between.provenance.continued_from is None


def test_nothing_to_win_back_is_refused() -> None:
    """The base is its own teacher: without a step before it, training has no aim."""
    shape = ModelShape(
        architecture="Exaone4ForCausalLM", layers=8, hidden=128, ffn=256, heads=2, kv_heads=1, head_dim=64, vocab=512,
        tied=True, max_positions=1024,
    )  # fmt: skip
    engine = EngineTraits(name="any", device="cpu", schemes=frozenset())
    with pytest.raises(Infeasible, match="nothing to win back"):
        check_recipe([Distill(tokens=300)], shape, engine)
    check_recipe([DROP, Distill(tokens=300)], shape, engine)


def test_it_recovers_and_says_so(base: Path, tmp_path: Path, data: Conversations) -> None:
    artifact = build([DROP, Distill(tokens=4_000, **SMALL)], base, Store(tmp_path), data).artifact
    assert artifact.provenance is not None
    notes = artifact.provenance.notes
    assert notes["kept"] == "trained"
    assert notes["kl_after"] < 0.9 * notes["kl_before"]
    assert 4_000 <= notes["trained_tokens"] < 4_000 + 2 * 256


def test_training_that_harms_hands_on_the_input(base: Path, tmp_path: Path, data: Conversations) -> None:
    from safetensors.torch import load_file

    store = Store(tmp_path)
    before = build([DROP], base, store, data).artifact
    built = build([DROP, Distill(tokens=2_000, **{**SMALL, "lr": 3.0})], base, store, data)
    assert built.artifact.provenance is not None
    notes = built.artifact.provenance.notes
    assert notes["kept"] == "input" and notes["kl_after"] >= notes["kl_before"]
    one, two = (load_file(str(folder / "model.safetensors")) for folder in (before.folder, built.artifact.folder))
    assert one.keys() == two.keys()
    assert all(one[name].equal(two[name]) for name in one)


def test_a_loss_that_is_not_finite_is_a_fault_and_leaves_nothing(
    base: Path, tmp_path: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressors import training

    honest, calls = training.backward_kl, []

    def sick(*args: object) -> float:
        calls.append(1)
        return float("nan") if len(calls) == 3 else honest(*args)  # type: ignore[arg-type] - passed through

    monkeypatch.setattr(training, "backward_kl", sick)
    store = Store(tmp_path)
    with pytest.raises(StepFault, match=r"optimizer step 3 is nan"):
        build([Distill(tokens=2_000, **SMALL)], base, store, data)
    assert not list((tmp_path / "artifacts").iterdir())
    assert not list((tmp_path / "infeasible").iterdir())


def test_data_without_answers_is_a_fault(base: Path, tmp_path: Path) -> None:
    silent = conversations([[{"role": "user", "content": "old boats"}]] * 20)
    with pytest.raises(StepFault, match="no row with an answer"):
        build([Distill(tokens=100, **SMALL)], base, Store(tmp_path), silent)


def test_training_state_stays_out_of_the_next_step(base: Path, tmp_path: Path, data: Conversations) -> None:
    from compressors.context import Context
    from compressors.quantize import Quantize

    store = Store(tmp_path)
    trained = [DROP, Distill(tokens=300, **SMALL)]
    assert (build(trained, base, store, data).artifact.folder / checkpoint.PRIVATE[0]).is_dir()
    for last in (Context(max_position_embeddings=256), Quantize(scheme="W8A8")):
        folder = build([*trained, last], base, store, data).artifact.folder
        assert not (folder / checkpoint.PRIVATE[0]).exists()
