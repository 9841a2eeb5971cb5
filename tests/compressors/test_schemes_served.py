"""Every scheme and feature that our engine is said to serve answers in a real vLLM, as transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.resources import find_device
from compressors.build import build
from compressors.data import conversations
from compressors.quantize import Quantize
from compressors.shape import check_recipe, read_shape
from compressors.store import Store
from evaluation.engine import Engine
from evaluation.serves import FEATURES, installed, row
from search.serving import traits
from tests.compressors.conftest import VOCAB, make_rows, make_tokenizer

TEXT = "the red fox has seven lamps near the cold river"
SEEN = row(installed(), find_device()).seen
CASES: dict[str, dict[str, Any]] = {scheme: {"scheme": scheme} for scheme in sorted(SEEN - FEATURES)}
CASES |= {
    "W4A16 in groups of 32": {"scheme": "W4A16", "group_size": 32},
    "W4A16_ASYM in groups of 64": {"scheme": "W4A16_ASYM", "group_size": 64},
    "W4A16 by gptq": {"scheme": "W4A16", "method": "gptq"},
    "mixed": {"scheme": "W4A16", "sensitive": 1, "sensitive_scheme": "W8A8"},
    "mixed with bf16": {"scheme": "W4A16", "sensitive": 1},
}
if "int8_lm_head" in SEEN:
    CASES["int8 head"] = {"scheme": "W8A8", "head": "int8"}
    CASES["int8 head of W4A16"] = {"scheme": "W4A16", "head": "int8"}
if "fp8_kv_cache" in SEEN:
    CASES["fp8 cache"] = {"scheme": "W8A8", "kv_cache": "fp8"}


def make_wide(folder: Path) -> Path:
    """Two Exaone4 layers whose widths are all multiples of 128, as blocks of fp8 want them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    rope = {"rope_type": "llama3", "rope_theta": 1e6, "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = AutoConfig.for_model(
        "exaone4",
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        sliding_window=None,
        layer_types=["full_attention"] * 2,
        initializer_range=0.05,
        rope_parameters={**rope, "original_max_position_embeddings": 512},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(3)
    folder.mkdir(parents=True, exist_ok=True)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(str(folder))
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wide(tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def log_probabilities(folder: Path, tokens: list[int]) -> list[float]:
    """Of each token after the first, as transformers computes the checkpoint (simulated quantization)."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([tokens])).logits[0].float().log_softmax(-1)
    return [float(row[token]) for row, token in zip(rows, tokens[1:], strict=False)]


@pytest.mark.parametrize("name", CASES)
def test_it_answers(served: Engine, wide: Path, store: Store, name: str) -> None:
    """Fewer than 0.1 nats beside transformers a token: rounding of activations, and no wrong scale or order."""
    step = Quantize(calibration_rows=8, **CASES[name])
    check_recipe([step], read_shape(wide), traits(find_device()))
    folder = build([step], wide, store, conversations(make_rows(8))).artifact.folder
    served.load(folder)
    (scored,) = served.score([TEXT], top=1, max_tokens=64)
    wanted = log_probabilities(folder, scored.tokens)
    apart = [abs(a - b) for a, b in zip(scored.actual, wanted, strict=True)]
    assert sum(apart) / len(apart) < 0.1, (scored.actual, wanted)
