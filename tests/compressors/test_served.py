"""Every new kind of shape in a real vLLM: it says of a text what transformers says of the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import VOCAB, make_tokenizer
from test_vocabulary import FEW, special_last

from compressors import checkpoint
from compressors.build import build
from compressors.step import Step
from compressors.store import Store
from compressors.vocabulary import TrimVocab
from compressors.width import PruneFFN, PruneHeads, PruneHidden
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine

FFN, HEADS, HIDDEN = PruneFFN(width=128), PruneHeads(kv_heads=1), PruneHidden(hidden=128)
TEXT = "the red fox has the cold river the fox has red river"


def make_wide(kind: str, folder: Path) -> Path:
    """2 layers, hidden 256, FFN 256, 4 heads of 64 sharing 2 KV heads."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {"layer_types": ["full_attention"] * 2, "sliding_window": None} if kind == "exaone4" else {}
    config = AutoConfig.for_model(
        kind,
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=kind != "llama",
        initializer_range=0.1,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        **fields,
    )
    torch.manual_seed(5)
    folder.mkdir()
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(str(folder))
    make_tokenizer(folder)
    return special_last(folder)


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("exaone4", [FFN]),
        ("exaone4", [HEADS]),
        ("exaone4", [HIDDEN]),
        ("exaone4", [TrimVocab()]),
        ("llama", [FFN, HEADS, HIDDEN, TrimVocab()]),
        ("qwen2", [HIDDEN, HEADS]),  # apart, neither could be served
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(step.step for step in value),
)
def test_served_as_transformers_reads_it(served: Engine, kind: str, steps: list[Step], tmp_path: Path) -> None:
    import torch

    folder = build(steps, make_wide(kind, tmp_path / "base"), Store(tmp_path / "store"), FEW).artifact.folder
    served.load(folder)
    [scored] = served.score([TEXT], top=5, max_tokens=64)
    model, tokenizer = checkpoint.load(folder, "cpu")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert scored.tokens == ids
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    wanted = expected[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    torch.testing.assert_close(torch.tensor(scored.actual), wanted, rtol=0.03, atol=0.1)  # bf16, other kernels
    chat = [{"role": "user", "content": "the red fox"}]
    [answer] = served.generate([chat], [Decoding(max_tokens=6)]).answers
    assert answer.tokens > 0
