"""One checkpoint, four readers: transformers 5 and vLLM 0.32 here, transformers 4.57.3 and vLLM 0.14.1 elsewhere.

`make contest` makes the other environment, `make test` does so by itself; tests find it beside our own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.engines import CONTEST, has_bf16
from compressors import checkpoint
from compressors.build import build
from compressors.data import conversations
from compressors.quantize import Quantize
from compressors.store import Store
from evaluation.engine import Engine
from evaluation.protocol import EngineSettings
from tests.compressors.conftest import VOCAB, make_rows
from tests.compressors.test_schemes_served import make_wide

ELSEWHERE = Path(__file__).with_name("logits_elsewhere.py")
TEXT = "the red fox has seven lamps near the cold river and one old blue door " * 8
MOST = 160  # tokens of TEXT
WITHIN = 1e-2  # relative, in bf16
# Activations in int8: where two readers differ by a bit of bf16, some are rounded the other way, by 1 of 127. Any
# two kernels then differ by about 0.024, and transformers, which simulates with scales in bf16, by 0.034 from them.
ROUNDED = 5e-2

Rows = list[list[float]]

if not has_bf16():
    pytest.skip(
        "the contest's CPU build of vLLM needs AVX-512 BF16, which this processor lacks", allow_module_level=True
    )


def test_the_contest_environment_is_there() -> None:
    assert CONTEST.exists(), "run `make contest` (`make test` does)"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The Exaone4 with llama3 RoPE as we write it; its W8A8; and a config that a careless writer would leave."""
    root = tmp_path_factory.mktemp("readers")
    base = make_wide(root / "base")
    source = root / "source"
    source.mkdir()
    model, tokenizer = checkpoint.load(base, "cpu")
    checkpoint.save(model, tokenizer, source, files_from=base)
    said = json.loads((source / "tokenizer_config.json").read_text())
    # what a model published before transformers 5 says; steps copy tokenizers as they are
    (source / "tokenizer_config.json").write_text(json.dumps(said | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    store, data = Store(root / "store"), conversations(make_rows(8))
    found = {"bf16": source, "W8A8": build([Quantize(scheme="W8A8")], source, store, data).artifact.folder}
    gptq = Quantize(scheme="W8A8", method="gptq", calibration_rows=8)
    found["W8A8 by gptq"] = build([gptq], source, store, data).artifact.folder
    careless = root / "careless"
    careless.mkdir()
    for path in source.iterdir():
        (careless / path.name).symlink_to(path)
    config = json.loads((source / "config.json").read_text())
    (careless / "config.json").unlink()
    (careless / "config.json").write_text(
        json.dumps({name: v for name, v in config.items() if name not in ("rope_theta", "rope_scaling")})
    )
    return found | {"careless": careless}


@pytest.fixture(scope="module")
def rows(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Rows]]:
    """By reader and model: log-probabilities [positions, vocabulary], in our vLLM's order of likelihood."""
    log = tmp_path_factory.mktemp("logs")
    read: dict[str, dict[str, Rows]] = {"vllm 0.32": {}, "vllm 0.14.1": {}}
    ids, tokens = {}, []
    with (
        Engine(settings(sys.executable), log / "ours") as ours,
        Engine(settings(str(CONTEST)), log / "theirs") as theirs,
    ):
        for name, folder in folders.items():
            ours.load(folder)
            (here,) = ours.score([TEXT], top=VOCAB, max_tokens=MOST)
            ids[name], tokens, read["vllm 0.32"][name] = here.top_ids, here.tokens, here.top_logprobs
            theirs.load(folder)
            (there,) = theirs.score([TEXT], top=VOCAB, max_tokens=MOST)
            assert there.tokens == tokens
            known = [dict(zip(a, b, strict=True)) for a, b in zip(there.top_ids, there.top_logprobs, strict=True)]
            read["vllm 0.14.1"][name] = [[of[one] for one in some] for of, some in zip(known, ids[name], strict=True)]
    for reader, python in (("transformers 5.", sys.executable), ("transformers 4.57.3", str(CONTEST))):
        asked = json.dumps({"tokens": tokens, "ids": {str(folders[name]): some for name, some in ids.items()}})
        done = subprocess.run([python, str(ELSEWHERE)], input=asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        answer = json.loads(done.stdout.splitlines()[-1])
        assert f"transformers {answer['version']}".startswith(reader)
        read[reader] = {name: answer["rows"][str(folder)] for name, folder in folders.items()}
    return read


def settings(python: str) -> EngineSettings:
    return EngineSettings(
        device="cpu", clock="cpu", python=python, max_model_len=512, max_num_batched_tokens=512, max_logprobs=VOCAB
    )


def apart(rows: dict[str, dict[str, Rows]], name: str, one: str, other: str) -> float:
    """Relative difference of two readers' logits.

    Logits are log-probabilities up to a number that a whole position shares, so its mean is taken out.
    """
    import torch

    def logits(reader: str) -> torch.Tensor:
        values = torch.tensor(rows[reader][name])
        return values - values.mean(-1, keepdim=True)

    return float((logits(one) - logits(other)).norm() / logits(other).norm())


def test_four_readers_see_one_model(rows: dict[str, dict[str, Rows]]) -> None:
    found = {reader: apart(rows, "bf16", reader, "transformers 5.") for reader in rows}
    assert max(found.values()) < WITHIN, found


@pytest.mark.parametrize("name", ["W8A8", "W8A8 by gptq"])
def test_four_readers_see_one_quantized_model(rows: dict[str, dict[str, Rows]], name: str) -> None:
    found = {
        "kernels": apart(rows, name, "vllm 0.14.1", "vllm 0.32"),
        "simulations": apart(rows, name, "transformers 4.57.3", "transformers 5."),
        "both": apart(rows, name, "vllm 0.32", "transformers 5."),
    }
    assert found["simulations"] < WITHIN, found
    assert max(found["kernels"], found["both"]) < ROUNDED, found


def test_a_careless_config_is_read_otherwise(rows: dict[str, dict[str, Rows]]) -> None:
    """Without `rope_theta` and `rope_scaling` the older readers see another model, and say nothing."""
    found = {reader: apart(rows, "careless", reader, "transformers 5.") for reader in rows}
    assert found["vllm 0.32"] < WITHIN
    assert min(found["transformers 4.57.3"], found["vllm 0.14.1"]) > 3 * WITHIN, found
