"""Small random models of the four architectures and a small tokenizer with a chat template."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from compressors.data import conversations
from compressors.step import Conversations, EngineTraits

VOCAB = 512
TEMPLATE = (
    "{% for m in messages %}[|{{ m['role'] }}|]\n{{ m['content'] }}[|endofturn|]\n{% endfor %}"
    "{% if add_generation_prompt %}[|assistant|]\n{% endif %}"
)
ARCHITECTURES = ("exaone4", "llama", "qwen2", "qwen3")
WORDS = (
    "the",
    "red",
    "fox",
    "has",
    "seven",
    "lamps",
    "one",
    "blue",
    "door",
    "near",
    "cold",
    "river",
    "old",
    "boats",
)


def make_rows(count: int, seed: int = 0) -> list[list[dict[str, str]]]:
    """Conversations of random words: one or two question-answer pairs each."""
    draw = random.Random(seed)

    def words() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 30)))

    return [
        [
            turn
            for _ in range(draw.randint(1, 2))
            for turn in ({"role": "user", "content": words()}, {"role": "assistant", "content": words()})
        ]
        for _ in range(count)
    ]


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[BOS]", "[|endofturn|]", "[|user|]", "[|assistant|]", "[|system|]"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((t["content"] for row in make_rows(50) for t in row), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="[BOS]", eos_token="[|endofturn|]"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(str(folder))


def make_model(kind: str, folder: Path, layers: int = 4, hidden: int = 128, ffn: int = 256) -> Path:
    """A random-weight model in `folder`, written by transformers alone, with llama3 RoPE for Exaone4."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields: dict[str, object] = {
        "vocab_size": VOCAB,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": kind != "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    }
    if kind == "exaone4":
        fields |= {"sliding_window": None, "layer_types": ["full_attention"] * layers}
        fields["rope_parameters"] = {
            "rope_type": "llama3",
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        }
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder))
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each architecture: 4 layers, hidden 128, FFN 256, 2 heads of 64, 1 KV head."""
    import torch

    torch.set_num_threads(1)  # models this small gain nothing from two, and lose much beside other work
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(kind, root / kind) for kind in ARCHITECTURES}


@pytest.fixture(scope="session")
def base(models: dict[str, Path]) -> Path:
    """The Exaone4 one, which most tests use."""
    return models["exaone4"]


@pytest.fixture(scope="session")
def data() -> Conversations:
    return conversations(make_rows(60))


@pytest.fixture
def engine() -> EngineTraits:
    return EngineTraits(name="vllm 0.32.0 on cpu", device="cpu", schemes=frozenset({"W8A8", "W4A16", "FP8_DYNAMIC"}))
