"""What is handed over, and what verify refuses to touch."""

import contextlib
import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from search.errors import BadInput, RunFailed
from search.export import pack, pick
from search.ledger import trials_of
from search.unpack import BadSubmission, unpack
from tests.search.conftest import end_line, rung_line


@pytest.fixture
def folder(tmp_path):
    """A model folder as a step leaves it: with provenance and training state beside the model."""
    model = tmp_path / "artifact"
    (model / "training").mkdir(parents=True)
    save_file({"w": torch.ones(4, 4)}, model / "model.safetensors")
    save_file({"m": torch.ones(4)}, model / "training" / "state.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "provenance.json"):
        (model / name).write_text(json.dumps({}))
    return model


@pytest.fixture
def submission(folder, tmp_path):
    target = tmp_path / "submit.zip"
    pack(folder, target)
    return target


def rewritten(submission, change):
    """The zip with its entries changed by `change(name, content) -> (name, content) | None`."""
    with zipfile.ZipFile(submission) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(submission, "w") as archive:
        for entry in entries:
            changed = change(*entry)
            if changed is not None:
                archive.writestr(*changed)
    return submission


def add(submission, name, content=b"x"):
    with zipfile.ZipFile(submission, "a") as archive:
        archive.writestr(name, content)
    return submission


def test_only_the_model_is_in_the_zip(submission):
    assert sorted(zipfile.ZipFile(submission).namelist()) == [
        "model/config.json",
        "model/generation_config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
    ]


def test_a_good_submission_is_unpacked_unchanged(submission, folder, tmp_path):
    model = unpack(submission, tmp_path / "out")
    assert (model / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("readme.txt", "beside model/"),
        ("model/../../evil.json", "leads out"),
        ("/etc/evil.json", "leads out"),
        ("model/sub/config.json", "not part of a model"),
        ("model/modeling.py", "not part of a model"),
        ("model/pytorch_model.bin", "not part of a model"),
    ],
)
def test_entries_that_do_not_belong_are_refused(submission, tmp_path, name, said):
    with pytest.raises(BadSubmission, match=said):
        unpack(add(submission, name), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil.json").exists()


def test_a_symbolic_link_is_refused(submission, tmp_path):
    link = zipfile.ZipInfo("model/vocab.json")
    link.external_attr = 0o120777 << 16
    with pytest.raises(BadSubmission, match="symbolic link"):
        unpack(add(submission, link, b"/etc/passwd"), tmp_path / "out")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_missing_parts_are_named(submission, tmp_path, missing):
    rewritten(submission, lambda name, content: None if name.endswith("/" + missing) else (name, content))
    with pytest.raises(BadSubmission, match=missing.removeprefix("model")):
        unpack(submission, tmp_path / "out")


def test_a_truncated_zip_is_refused(submission, tmp_path):
    submission.write_bytes(submission.read_bytes()[:-200])
    with pytest.raises(BadSubmission, match="not a whole zip"):
        unpack(submission, tmp_path / "out")


def test_a_flipped_byte_of_a_packed_model_is_refused(submission, tmp_path):
    """Wherever it lies: in a name, in a header, in what is deflated. What is not refused must come out unchanged."""
    whole = submission.read_bytes()
    good = {path.name: path.read_bytes() for path in unpack(submission, tmp_path / "good").iterdir()}
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        submission.write_bytes(changed)
        try:
            model = unpack(submission, tmp_path / f"out{place}")
        except BadSubmission:
            continue
        assert {path.name: path.read_bytes() for path in model.iterdir()} == good, place


@pytest.mark.parametrize("name", ["./", "model/config.json"])
def test_nameless_and_doubled_entries_are_refused(submission, tmp_path, name):
    with pytest.warns(UserWarning) if name.startswith("model") else contextlib.nullcontext():
        add(submission, name, b"{}")
    with pytest.raises(BadSubmission, match="twice, or is no name"):
        unpack(submission, tmp_path / "out")


def test_a_flipped_byte_is_noticed(folder, tmp_path):
    submission = tmp_path / "stored.zip"
    with zipfile.ZipFile(submission, "w") as archive:  # stored, so that the byte lies in a tensor
        for path in folder.glob("*.*"):
            archive.write(path, f"model/{path.name}")
    rewritten(submission, lambda name, content: None if "provenance" in name else (name, content))
    content = bytearray(submission.read_bytes())
    content[content.index(torch.ones(8).numpy().tobytes())] ^= 1
    submission.write_bytes(content)
    with pytest.raises(BadSubmission, match="checksum"):
        unpack(submission, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "said"), [(b"\x00" * 100, "cannot be read"), (b"", "cannot be read")], ids=["zeros", "empty"]
)
def test_a_corrupt_tensor_file_is_refused(submission, tmp_path, content, said):
    rewritten(submission, lambda name, old: (name, content if name.endswith(".safetensors") else old))
    with pytest.raises(BadSubmission, match=said):
        unpack(submission, tmp_path / "out")


def test_a_tensor_with_nan_is_refused(submission, tmp_path):
    bad = tmp_path / "bad.safetensors"
    save_file({"w": torch.tensor([1.0, float("nan")])}, bad)
    rewritten(submission, lambda name, old: (name, bad.read_bytes() if name.endswith(".safetensors") else old))
    with pytest.raises(BadSubmission, match="tensor w"):
        unpack(submission, tmp_path / "out")


def records():
    return list(
        trials_of([
            rung_line("t000", 2, 0.60, perf_norm=0.99, speed_norm=0.21, size_bytes=900), end_line("t000", "finished"),
            rung_line("t001", 2, 0.65, perf_norm=0.80, speed_norm=0.50, size_bytes=800), end_line("t001", "finished"),
            rung_line("t002", 2, 0.40, perf_norm=0.70, speed_norm=0.10, size_bytes=100), end_line("t002", "finished"),
            rung_line("t003", 0, 0.99), end_line("t003", "stopped"),
        ]).values()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "name"), [("score", "t001"), ("quality", "t000"), ("size", "t002"), ("speed", "t001"), ("t000", "t000")]
)
def test_which_trial_is_handed_over(how, name):
    assert pick(records(), how, last_rung=2).name == name


def test_the_best_by_score_is_who_is_ranked_first():
    """A score as it was measured may be luck of its timing: see `TrialRecord.standing`."""
    trials = records()
    trials[1].judged = 0.55
    assert pick(trials, "score", last_rung=2).name == "t000"


def test_a_trial_stopped_early_is_not_handed_over():
    with pytest.raises(BadInput, match="t003"):
        pick(records(), "t003", last_rung=2)
    with pytest.raises(RunFailed, match="measured in full"):
        pick(records()[3:], "score", last_rung=2)
