"""Recipes through the store: a prefix is built once, faults leave nothing, keys hold all that decides content."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from compressors.artifact import artifact_key, base_artifact
from compressors.build import build
from compressors.context import Context
from compressors.depth import DropLayers
from compressors.quantize import Quantize
from compressors.step import Conversations, StepContext, StepFault
from compressors.steps import parse_step
from compressors.store import Store

DROP = DropLayers(count=1, calibration_rows=8)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the steps that really ran."""
    ran: list[str] = []
    for kind in (DropLayers, Quantize, Context):
        honest = kind.run

        def run(self: DropLayers, source: Path, target: Path, context: StepContext, honest: object = honest) -> None:
            ran.append(self.step)
            honest(self, source, target, context)  # type: ignore[operator] - a step's own run

        monkeypatch.setattr(kind, "run", run)
    return ran


def test_no_steps_give_the_base_itself(base: Path, tmp_path: Path, data: Conversations) -> None:
    built = build([], base, Store(tmp_path), data)
    assert built.artifact.folder == base and built.artifact.provenance is None
    assert built.stages == []
    assert not list((tmp_path / "artifacts").iterdir())


def test_a_shared_prefix_is_built_once(base: Path, tmp_path: Path, data: Conversations, runs: list[str]) -> None:
    store = Store(tmp_path)
    first = build([DROP, Quantize(scheme="W8A8")], base, store, data)
    second = build([DROP, Context(max_position_embeddings=256)], base, Store(tmp_path), data)
    third = build([DROP, Quantize(scheme="W8A8")], base, store, data)
    assert runs == ["drop_layers", "quantize", "context"]
    assert [stage.cached for stage in first.stages] == [False, False]
    assert [stage.cached for stage in second.stages] == [True, False]
    assert [stage.cached for stage in third.stages] == [True, True]
    assert third.artifact == first.artifact
    assert first.stages[0].key == second.stages[0].key
    assert all(stage.seconds >= 0 and stage.peak_gpu_bytes == 0 for stage in first.stages)


@pytest.mark.parametrize(
    "step",
    [
        {"step": "drop_layers", "count": 1, "calibration_rows": 8},
        {"step": "quantize", "scheme": "W8A8"},
        {"step": "quantize", "scheme": "W4A16", "method": "gptq", "calibration_rows": 8},
        {"step": "sparsify", "method": "wanda", "calibration_rows": 8},
        {"step": "finetune", "tokens": 300, "trains": "lora", "batch_tokens": 256},
    ],
    ids=lambda step: "-".join(map(str, step.values())),
)
def test_no_weight_of_a_step_stays_in_memory(
    base: Path, tmp_path: Path, data: Conversations, step: dict[str, object]
) -> None:
    """Workers live for a whole search: what each trial leaves adds up until the GPU is full."""
    before = bytes_alive()
    build([parse_step(step)], base, Store(tmp_path), data)
    assert bytes_alive() - before < 10_000  # the model has 2 MB


def bytes_alive() -> int:
    """Of all tensors in this process."""
    import torch

    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old names, which torch's own modules answer to when asked what they are
        tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def test_a_damaged_artifact_is_built_again(base: Path, tmp_path: Path, data: Conversations, runs: list[str]) -> None:
    store = Store(tmp_path)
    weights = build([DROP], base, store, data).artifact.folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    again = build([DROP], base, store, data)
    assert runs == ["drop_layers"] * 2
    assert not again.stages[0].cached
    assert weights.read_bytes() == content
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not store.verify(again.artifact.key)
    build([DROP], base, store, data)
    assert runs == ["drop_layers"] * 3
    assert weights.read_bytes() == content


def test_a_fault_is_not_remembered(
    base: Path, tmp_path: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StepFault("the disk was full")

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(DropLayers, "apply", fail)
        with pytest.raises(StepFault, match="the disk was full"):
            build([DROP], base, store, data)
    assert not list((tmp_path / "artifacts").iterdir()) and not list((tmp_path / "drafts").iterdir())
    assert not build([DROP], base, store, data).stages[0].cached


def test_two_processes_build_a_key_once(base: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from compressors.build import build; from compressors.store import Store;"
        "from compressors.depth import DropLayers; from compressors.data import conversations;"
        "rows = [[{'role': 'user', 'content': 'old boats'}]];"
        "built = build([DropLayers(count=1)], pathlib.Path(sys.argv[1]), Store(pathlib.Path(sys.argv[2])),"
        " conversations(rows)); print(built.stages[0].cached, built.artifact.key)"
    )
    command = [sys.executable, "-c", code, str(base), str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate() for process in both]
    assert all(process.returncode == 0 for process in both), answers
    said = sorted(out.split() for out, _ in answers)
    assert [cached for cached, _ in said] == ["False", "True"]
    assert said[0][1] == said[1][1]


def test_keys_hold_what_decides_the_content(base: Path, data: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressors import artifact

    key = artifact_key(DROP, "base", data.fingerprint, 0, "cpu")
    assert len(key) == 32 and int(key, 16) >= 0
    assert key == artifact_key(DropLayers(count=1, calibration_rows=8), "base", data.fingerprint, 0, "cpu")
    others = [
        artifact_key(DropLayers(count=2, calibration_rows=8), "base", data.fingerprint, 0, "cpu"),
        artifact_key(DROP, "other", data.fingerprint, 0, "cpu"),
        artifact_key(DROP, "base", "other", 0, "cpu"),
        artifact_key(DROP, "base", data.fingerprint, 1, "cpu"),
        artifact_key(DROP, "base", data.fingerprint, 0, "cuda:0"),
    ]
    monkeypatch.setattr(artifact, "libraries", lambda: {"torch": "0"})
    others.append(artifact_key(DROP, "base", data.fingerprint, 0, "cpu"))
    monkeypatch.setattr(artifact, "_code_hash", lambda modules: "+".join(modules))
    others.append(artifact_key(DROP, "base", data.fingerprint, 0, "cpu"))
    assert len({key, *others}) == 8
    rtn = Quantize(scheme="W8A8")
    assert artifact_key(rtn, "base", "one", 0, "cpu") == artifact_key(rtn, "base", "two", 0, "cpu")  # it reads no data


def test_every_module_a_step_imports_for_its_work_is_in_its_key() -> None:
    """A change of `compressors` code that a step uses must change the step's artifacts."""
    import ast
    import inspect
    import sys

    from compressors.artifact import EVERY_STEP
    from compressors.steps import STEPS

    # They decide what is said, where files lie and what is refused before any work, not what is made.
    quiet = {"compressors.quiet", "compressors.artifact", "compressors.sharding"}
    for kind in STEPS:
        declared = {*EVERY_STEP, kind.__module__, *kind.code}
        used: set[str] = set()
        for name in declared:
            __import__(name)
            for node in ast.walk(ast.parse(inspect.getsource(sys.modules[name]))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("compressors"):
                    names = {f"compressors.{alias.name}" for alias in node.names}
                    used |= names if node.module == "compressors" else {str(node.module)}
        assert used <= declared | quiet, f"{kind.__name__} does not declare {used - declared - quiet}"


def test_a_base_is_named_by_its_content(models: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    base = models["exaone4"]
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    assert base_artifact(copy).key == base_artifact(base).key != base_artifact(models["qwen3"]).key
    (copy / "README.md").write_text("about")
    assert base_artifact(copy).key == base_artifact(base).key
    (copy / "chat_template.jinja").write_text("another")
    assert base_artifact(copy).key != base_artifact(base).key


def test_the_device_is_asked_for_before_work_and_only_then(base: Path, tmp_path: Path, data: Conversations) -> None:
    """On a GPU the engine gives its memory back there; what is in the store costs it nothing."""
    asked: list[int] = []
    for _ in range(2):
        build([DROP], base, Store(tmp_path), data, before_work=lambda: asked.append(1))
    assert asked == [1]
