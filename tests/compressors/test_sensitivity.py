"""The sensitivity table against a plain-torch rewrite, its file, and the layers it chooses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressors import checkpoint
from compressors import sensitivity as sensitivity_module
from compressors.build import build
from compressors.data import tokenize
from compressors.quantize import Quantize
from compressors.sensitivity import kept_table, sensitivity, within
from compressors.step import Conversations
from compressors.store import Store


def fake(values: object, scheme: str, activations: bool) -> object:
    """Round to nearest: int8 by row for W8A8, int4 by groups of 64 inputs for W4A16."""
    import torch

    assert isinstance(values, torch.Tensor)
    if scheme == "W8A8":
        step = values.abs().amax(-1, keepdim=True) / 127.5
        return torch.clamp(torch.round(values / step), -128, 127) * step
    if activations:
        return values
    groups = values.unflatten(-1, (-1, 64))
    step = groups.abs().amax(-1, keepdim=True) / 7.5
    return (torch.clamp(torch.round(groups / step), -8, 7) * step).flatten(-2)


@pytest.mark.parametrize("scheme", ["W8A8", "W4A16"])
def test_table_is_that_of_a_plain_rewrite(base: Path, data: Conversations, scheme: str) -> None:
    import torch
    import torch.nn.functional as functional

    model, tokenizer = checkpoint.load(base, "cpu")
    model.float()
    rows = [list(tokenize(tokenizer, row, 128).ids) for row in data.rows[:4]]
    group = 64 if scheme == "W4A16" else None
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    table = sensitivity(model, scheme, group, rows)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())

    plain = functional.linear
    with torch.no_grad():
        whole = [model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1) for row in rows]
        for index, layer in enumerate(model.model.layers):
            modules = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
            for module in modules:
                module.weight.data = fake(module.weight.data, scheme, False)
                module.forward = lambda x, m=module: plain(fake(x, scheme, True), m.weight)  # type: ignore[method-assign] - a rewrite
            given = [model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1) for row in rows]
            divergence = [
                functional.kl_div(a, b, log_target=True, reduction="sum") for a, b in zip(given, whole, strict=True)
            ]
            wanted = float(sum(divergence)) / sum(len(row) for row in rows)
            assert table[index] == pytest.approx(wanted, rel=0.02)
            for module in modules:
                del module.forward
            model.load_state_dict(weights)
    assert len(table) == 4 and min(table) > 0


def test_the_most_sensitive_layer_keeps_bf16_and_the_table_is_read_again(
    base: Path, data: Conversations, tmp_path: Path
) -> None:
    """All layers but 2 add next to nothing to the stream; the second build reads the first one's table."""
    import torch
    from safetensors.torch import load_file

    model, tokenizer = checkpoint.load(base, "cpu")
    with torch.no_grad():
        for index in (0, 1, 3):
            model.model.layers[index].post_attention_layernorm.weight *= 0.01
            model.model.layers[index].post_feedforward_layernorm.weight *= 0.01
    source = tmp_path / "outliers"
    source.mkdir()
    checkpoint.save(model, tokenizer, source, files_from=base)
    store = Store(tmp_path / "store")
    first = build([Quantize(scheme="W4A16", sensitive=1, calibration_rows=8)], source, store, data).artifact
    assert first.provenance is not None
    notes = first.provenance.notes
    assert notes["sensitive_layers"] == [2]
    kept = {
        name for name, t in load_file(str(first.folder / "model.safetensors")).items() if name.endswith("proj.weight")
    }
    assert {name.split(".")[2] for name in kept} == {"2"} and len(kept) == 7

    (table,) = store.cache.glob("sensitivity-*.json")
    found = json.loads(table.read_text())
    assert found["kl"] == notes["sensitivity"]
    table.write_text(json.dumps(found | {"kl": [9.0, 0.0, 0.0, 8.0]}))
    step = Quantize(scheme="W4A16", sensitive=2, sensitive_scheme="W8A8", calibration_rows=8)
    second = build([step], source, store, data).artifact
    assert second.provenance is not None
    assert second.provenance.notes["sensitive_layers"] == [0, 3]
    weights = load_file(str(second.folder / "model.safetensors"))
    eight = {
        name.split(".")[2] for name, t in weights.items() if name.endswith("proj.weight") and t.dtype == torch.int8
    }
    assert eight == {"0", "3"}

    # what `keep` leaves in bf16 anyway is not chosen again: of [9, 0, 0, 8] layer 0 is out, whole
    table.write_text(json.dumps(found | {"kl": [9.0, 0.0, 0.0, 8.0]}))
    step = Quantize(scheme="W4A16", sensitive=1, keep=(r"model\.layers\.0\..*",), calibration_rows=8)
    third = build([step], source, store, data).artifact
    assert third.provenance is not None
    assert third.provenance.notes["sensitive_layers"] == [3]
    weights = load_file(str(third.folder / "model.safetensors"))
    assert {name.split(".")[2] for name in weights if name.endswith("proj.weight")} == {"0", "3"}

    other = build([Quantize(scheme="W8A8", sensitive=1, calibration_rows=8)], source, store, data).artifact
    assert other.provenance is not None and len(list(store.cache.glob("sensitivity-*.json"))) == 2


def test_the_table_is_measured_anew_where_what_decides_it_differs(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device, rows, and the code of all three modules that compute the numbers."""
    made: list[int] = []

    def ask(device: str = "cpu", rows: list[list[int]] | None = None) -> int:
        def make() -> list[float]:
            made.append(1)
            return [0.5]

        assert kept_table(tmp_path, base, "W8A8", None, "data", rows or [[1, 2]], device, make) == [0.5]
        return len(made)

    assert [ask(), ask(), ask(device="cuda"), ask(device="cuda"), ask(rows=[[1, 3]])] == [1, 1, 2, 2, 3]
    honest = sensitivity_module.file_sha256
    for count, name in enumerate(("sensitivity", "logits", "divergence"), start=4):
        monkeypatch.setattr(
            sensitivity_module,
            "file_sha256",
            lambda path, name=name: "changed" if path.name == f"{name}.py" else honest(path),
        )
        assert ask() == count, name


def test_rows_are_cut_to_a_budget() -> None:
    assert within([[1] * 10, [2] * 5, [3] * 9], tokens=16) == [[1] * 10, [2] * 5]
    assert within([[1] * 10], tokens=4) == [[1] * 4]
