"""Which files of a model folder are the model. Knows nothing of what is in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

NAMES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
    }
)


TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})  # any of these is one


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether these file names hold a whole tokenizer."""
    return any(kind <= set(names) for kind in TOKENIZERS)


def is_model_file(name: str) -> bool:
    """Whether a file of this name is handed over: weights, configs, tokenizer; no code or pickles."""
    return name in NAMES or name.endswith(".safetensors")


def model_files(folder: Path) -> list[Path]:
    """The model's files in `folder`, sorted by name; training state and provenance are not among them."""
    return sorted(path for path in folder.iterdir() if path.is_file() and is_model_file(path.name))
