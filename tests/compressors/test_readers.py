"""One checkpoint, four readers: transformers 5 and vLLM 0.32 here, transformers 4.57.3 and vLLM 0.14.1 elsewhere.

`make contest` makes the other environment, `make test` does so by itself; tests find it beside our own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.engines import CONTEST, has_bf16
from compressors import checkpoint
from compressors.build import build
from compressors.data import conversations
from compressors.quantize import Quantize
from compressors.store import Store
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.health import ModelFault, look
from evaluation.protocol import EngineFault
from search.serving import engine_settings
from tests.compressors import logits_elsewhere
from tests.compressors.conftest import VOCAB, make_rows
from tests.compressors.test_schemes_served import make_wide
from tests.evaluation import broken

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
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The contest's engine."""
    settings = engine_settings(max_model_len=1024, engine="contest").model_copy(update={"max_logprobs": VOCAB})
    with Engine(settings, tmp_path_factory.mktemp("theirs") / "engine.log") as started:
        yield started


@pytest.fixture(scope="module")
def rows(folders: dict[str, Path], served: Engine, theirs: Engine) -> dict[str, dict[str, Rows]]:
    """By reader and model: log-probabilities [positions, vocabulary], in our vLLM's order of likelihood."""
    read: dict[str, dict[str, Rows]] = {"vllm 0.32": {}, "vllm 0.14.1": {}}
    ids, tokens = {}, []
    for name, folder in folders.items():
        served.load(folder)
        (here,) = served.score([TEXT], top=VOCAB, max_tokens=MOST)
        ids[name], tokens, read["vllm 0.32"][name] = here.top_ids, here.tokens, here.top_logprobs
        theirs.load(folder)
        (there,) = theirs.score([TEXT], top=VOCAB, max_tokens=MOST)
        assert there.tokens == tokens
        known = [dict(zip(a, b, strict=True)) for a, b in zip(there.top_ids, there.top_logprobs, strict=True)]
        read["vllm 0.14.1"][name] = [[of[one] for one in some] for of, some in zip(known, ids[name], strict=True)]
    asked = {"tokens": tokens, "ids": {str(folders[name]): some for name, some in ids.items()}}
    for reader, ask in (("transformers 5.", logits_elsewhere.answer), ("transformers 4.57.3", elsewhere)):
        answer = ask(asked)
        assert f"transformers {answer['version']}".startswith(reader)
        read[reader] = {name: answer["rows"][str(folder)] for name, folder in folders.items()}
    return read


def elsewhere(asked: dict[str, Any]) -> dict[str, Any]:
    """`logits_elsewhere.answer`, of the contest's environment."""
    command = [str(CONTEST), logits_elsewhere.__file__]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


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


def test_the_contests_engine_is_told_what_is_broken(theirs: Engine, tmp_path: Path) -> None:
    """vLLM 0.14.1 serves NaN without a word too, and its tokenizer's class is another one."""
    nan, mute = (folder / "model" for folder in (tmp_path / "nan", tmp_path / "mute"))
    broken.number_in(nan, "model.norm.weight", float("nan"), 3)
    theirs.load(nan)
    with pytest.raises(ModelFault, match="logits are NaN or infinite"):
        look(theirs)
    theirs.load(broken.without_template(mute))
    look(theirs)
    with pytest.raises(EngineFault, match="no chat template"):
        theirs.generate([[{"role": "user", "content": "1"}]], [Decoding(max_tokens=2)])
