"""Training of any kind: going on bit for bit, stopping at the best point, and doing no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compressors import checkpoint
from compressors.build import build
from compressors.data import conversations
from compressors.depth import DropLayers
from compressors.distill import Distill
from compressors.finetune import Finetune
from compressors.quantize import Quantize
from compressors.shape import check_recipe
from compressors.step import Conversations, EngineTraits, Infeasible, StepFault
from compressors.steps import parse_step
from compressors.store import Store
from compressors.width import PruneHidden
from tests.shapes import SMALL as SMALL_SHAPE

DROP = DropLayers(count=1, calibration_rows=8)
SMALL = {"batch_tokens": 256, "warmup_tokens": 500, "lr": 1e-3}


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"step": "distill"},
    "no average": {"step": "distill", "average": 0.0},
    "checked": {"step": "distill", "check_every": 700},
    "stored teacher": {"step": "distill", "top": 8},
    "lora": {"step": "finetune", "trains": "lora", "rank": 4},
    "as if int8": {"step": "distill", "fake_quant": "W8A8"},
    "large": {"step": "distill"},  # as a model of a billion weights is trained
}


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_equals_training_straight_through(
    base: Path, tmp_path: Path, data: Conversations, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over the end of an epoch: the 54 training rows hold about 3,400 tokens."""
    if kind == "large":
        monkeypatch.setattr("compressors.training.LARGE", 0)
    short, long = (parse_step({**SMALL, **KINDS[kind], "tokens": n}) for n in (2_000, 5_000))
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
    last = build([DROP, Distill(tokens=1_200, **SMALL)], base, store, data, furthest=1_200).artifact
    assert last.provenance is not None and last.provenance.continued_from == third.key
    assert not (last.folder / "training").exists() and not (third.folder / "training").exists()
    between = build([DROP, Distill(tokens=450, **SMALL)], base, store, data).artifact
    assert between.provenance is not None and between.provenance.continued_from is None


def test_nothing_to_win_back_is_refused() -> None:
    """The base is its own teacher: without a step before it, training has no aim."""
    engine = EngineTraits(name="any", device="cpu", schemes=frozenset())
    with pytest.raises(Infeasible, match="nothing to win back"):
        check_recipe([Distill(tokens=300)], SMALL_SHAPE, engine)
    check_recipe([DROP, Distill(tokens=300)], SMALL_SHAPE, engine)


def test_it_recovers_and_says_so(base: Path, tmp_path: Path, data: Conversations) -> None:
    artifact = build([DROP, Distill(tokens=4_000, **SMALL)], base, Store(tmp_path), data).artifact
    assert artifact.provenance is not None
    notes = artifact.provenance.notes
    assert notes["kept"] == "trained"
    assert notes["after"]["kl"] < 0.9 * notes["before"]["kl"]
    assert notes["after"]["agreement"] > notes["before"]["agreement"]
    assert 4_000 <= notes["trained_tokens"] < 4_000 + 2 * 256


def test_training_that_harms_hands_on_the_input(base: Path, tmp_path: Path, data: Conversations) -> None:
    from safetensors.torch import load_file

    store = Store(tmp_path)
    before = build([DROP], base, store, data).artifact
    built = build([DROP, Distill(tokens=2_000, **{**SMALL, "lr": 3.0})], base, store, data)
    assert built.artifact.provenance is not None
    notes = built.artifact.provenance.notes
    assert notes["kept"] == "input" and notes["after"]["kl"] >= notes["before"]["kl"]
    one, two = (load_file(str(folder / "model.safetensors")) for folder in (before.folder, built.artifact.folder))
    assert one.keys() == two.keys()
    assert all(one[name].equal(two[name]) for name in one)


def test_a_loss_that_is_not_finite_is_a_fault_and_leaves_nothing(
    base: Path, tmp_path: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressors.objective import Match

    honest, calls = Match.backward, []

    def sick(*args: object) -> float:
        calls.append(1)
        return float("nan") if len(calls) == 3 else honest(*args)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Match, "backward", sick)
    store = Store(tmp_path)
    with pytest.raises(StepFault, match=r"optimizer step 3 is nan"):
        build([Distill(tokens=2_000, **SMALL)], base, store, data)
    assert not list((tmp_path / "artifacts").iterdir())
    assert not list((tmp_path / "infeasible").iterdir())


def test_data_without_answers_is_a_fault(base: Path, tmp_path: Path) -> None:
    silent = conversations([[{"role": "user", "content": "old boats"}]] * 20)
    with pytest.raises(StepFault, match="no row of the calibration data has an answer"):
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


def read_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(str(folder / "model.safetensors"))


@pytest.mark.parametrize(("trains", "changed"), [("norms", "norm"), ("head", "embed_tokens"), ("lora", "_proj")])
def test_only_the_chosen_weights_change(
    base: Path, tmp_path: Path, data: Conversations, trains: Any, changed: str
) -> None:
    """The test model's head is tied: the one matrix stands under the embedding's name."""
    store = Store(tmp_path)
    before = read_weights(build([DROP], base, store, data).artifact.folder)
    step = Distill(tokens=1_500, trains=trains, **{**SMALL, "lr": 5e-3})
    built = build([DROP, step], base, store, data).artifact
    assert built.provenance is not None and built.provenance.notes["kept"] == "trained"
    after = read_weights(built.folder)
    assert after.keys() == before.keys()
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and all(changed in name for name in moved)


def test_merged_adapters_compute_what_the_adapted_model_did(base: Path) -> None:
    import torch

    from compressors.trainable import make_trainable

    model, _ = checkpoint.load(base, "cpu")
    model.float()
    merge = make_trainable(model, "lora", 4, seed=0)
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.02 * torch.randn_like(weight)
    ids = torch.arange(10, 60)[None]
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        merge()
        merged = model(input_ids=ids).logits
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert torch.allclose(adapted, merged, rtol=1e-4, atol=1e-4)


def test_a_file_of_its_own_is_read_and_decides_the_key(base: Path, tmp_path: Path, data: Conversations) -> None:
    rows = [{"conversations": [{"role": "user", "content": "old"}, {"role": "assistant", "content": f"boats {i}"}]}
            for i in range(30)]  # fmt: skip
    path = tmp_path / "own.json"
    path.write_text(json.dumps(rows))
    store = Store(tmp_path / "store")
    step = Finetune(tokens=300, data=str(path), harm=100.0, **SMALL)
    first = build([step], base, store, data).artifact
    path.write_text(json.dumps(rows[:-1]))
    assert build([step], base, store, data).artifact.key != first.key
    path.write_text("[]")
    with pytest.raises(Infeasible, match=r"finetune data .*no rows"):
        build([step], base, store, data)


@pytest.mark.parametrize("scheme", ["W8A8", "W4A16"])
def test_norms_are_trained_beside_quantized_weights(
    base: Path, tmp_path: Path, data: Conversations, scheme: Any
) -> None:
    from compressors.quantize import Quantize

    store = Store(tmp_path)
    quantized = [DROP, Quantize(scheme=scheme)]
    step = Distill(tokens=1_500, trains="norms", **{**SMALL, "lr": 5e-3})
    before = read_weights(build(quantized, base, store, data).artifact.folder)
    built = build([*quantized, step], base, store, data).artifact
    assert built.provenance is not None and built.provenance.notes["kept"] == "trained"
    after = read_weights(built.folder)
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and all("norm" in name for name in moved)
    assert "quantization_config" in json.loads((built.folder / "config.json").read_text())


def test_fields_that_do_not_go_together_are_refused() -> None:
    for fields, said in (
        ({"step": "distill", "tokens": 9, "trains": "lora", "fake_quant": "W8A8"}, "choose one"),
        ({"step": "distill", "tokens": 9, "rank": 4}, "trains is all"),
        ({"step": "distill", "tokens": 9, "top": 4, "hidden": 1.0}, "choose one"),
        ({"step": "distill", "tokens": 9, "loss": "l2"}, "loss"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_step(fields)


@pytest.mark.parametrize("top", [None, 128])
def test_a_trimmed_model_learns_from_a_base_trimmed_alike(
    base: Path, tmp_path: Path, data: Conversations, top: Any
) -> None:
    from compressors.vocabulary import TrimVocab

    steps = [DROP, TrimVocab(mode="exact"), Distill(tokens=2_000, top=top, **SMALL)]
    artifact = build(steps, base, Store(tmp_path), data).artifact
    assert artifact.provenance is not None
    notes = artifact.provenance.notes
    assert notes["kept"] == "trained"
    assert notes["before"]["kl"] < 5.0  # ids of two vocabularies would be worlds apart
    assert notes["after"]["kl"] < notes["before"]["kl"]


def test_zeros_of_a_sparsified_model_stay(
    base: Path, tmp_path: Path, data: Conversations, engine: EngineTraits
) -> None:
    from compressors.shape import read_shape
    from compressors.sparsify import Sparsify

    store = Store(tmp_path)
    sparse = Sparsify(method="magnitude", sparsity=0.5)
    before = read_weights(build([sparse], base, store, data).artifact.folder)
    built = build([sparse, Distill(tokens=3_000, **SMALL)], base, store, data).artifact
    assert built.provenance is not None and built.provenance.notes["kept"] == "trained"
    after = read_weights(built.folder)
    names = [name for name in before if name.endswith("proj.weight")]
    assert all(bool((after[name][before[name] == 0] == 0).all()) for name in names)
    assert not all(before[name].equal(after[name]) for name in names)
    with pytest.raises(Infeasible, match="fill the zeros"):
        check_recipe([sparse, Distill(tokens=9, trains="lora")], read_shape(base), engine)


def test_which_tokens_were_kept_is_known_after_norms_beside_quantized_weights(
    base: Path, tmp_path: Path, data: Conversations
) -> None:
    from compressors.quantize import Quantize
    from compressors.tokens import kept_tokens
    from compressors.vocabulary import TrimVocab

    store = Store(tmp_path)
    for lr in (5e-3, 1e4):  # handed on trained, and as it came in
        steps = [TrimVocab(mode="exact"), Quantize(scheme="W4A16"), Distill(tokens=300, trains="norms", lr=lr)]
        artifact = build(steps, base, store, data).artifact
        assert kept_tokens(artifact.folder)


def test_what_cannot_be_is_refused_before_any_work(base: Path, engine: EngineTraits) -> None:
    from compressors.shape import read_shape

    shape = read_shape(base)
    with pytest.raises(Infeasible, match="no such file"):
        check_recipe([Finetune(tokens=9, data="nowhere.json")], shape, engine)
    with pytest.raises(Infeasible, match="128 divides, not 192"):
        narrow = shape.model_copy(update={"ffn": 192})
        check_recipe([Distill(tokens=9, fake_quant="W4A16")], narrow, engine)
    check_recipe([Finetune(tokens=9), Distill(tokens=9)], shape, engine)
    with pytest.raises(Infeasible, match="prune_hidden has left 64 channels"):
        check_recipe([PruneHidden(hidden=64), Distill(tokens=9, hidden=0.5)], shape, engine)
    with pytest.raises(Infeasible, match="were measured with the old ones"):
        check_recipe([Quantize(scheme="W8A8_STATIC"), Finetune(tokens=9, trains="norms")], shape, static(engine))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (None, "trained as if quantized by W8A8, and no quantize step"),
        ({"scheme": "FP8_DYNAMIC"}, "scheme FP8_DYNAMIC is not what was trained for: fake_quant W8A8"),
        ({"scheme": "W8A8"}, None),
        ({"scheme": "W8A8", "method": "gptq"}, None),
    ],
)
def test_what_is_trained_for_a_scheme_is_quantized_by_it(
    fields: dict[str, Any] | None, reason: str | None, engine: EngineTraits
) -> None:
    steps: list[Any] = [DROP, Distill(tokens=9, fake_quant="W8A8")]
    steps += [Quantize.model_validate(fields)] if fields else []
    if reason is None:
        assert check_recipe(steps, SMALL_SHAPE, engine).trained_for is None
        return
    with pytest.raises(Infeasible, match=reason):
        check_recipe(steps, SMALL_SHAPE, engine)


def static(engine: EngineTraits) -> EngineTraits:
    return engine.model_copy(update={"schemes": engine.schemes | {"W8A8_STATIC"}})


def test_a_data_file_is_read_before_any_work(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "no conversation"}\n')
    with pytest.raises(Infeasible, match=r"finetune data .*rows\.jsonl.*conversations"):
        Finetune(tokens=9, data=str(tmp_path / "rows.jsonl")).preflight(base)
