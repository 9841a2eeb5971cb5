"""Does every question fit the engine's context? Counted as the engine will see it, before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressors.shape import read_shape
from evaluation.benchmarks.base import Benchmark, Item
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.benchmarks.likelihood import ByLikelihood
from evaluation.suite import Suite
from search.errors import BadInput
from search.space import Space

LONGEST = 8  # items of each benchmark that are counted in tokens, the longest in characters


def check_lengths(suite: Suite, spec: Space, folder: Path) -> None:
    """Of each benchmark the longest first prompt, through the base's chat template, or every trial would fail by it.

    Raises `BadInput`.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    positions = read_shape(folder).max_positions
    for name, grader in suite.graders.items():
        for part in suite.slices:
            if part.benchmark != name or not part.items:
                continue
            try:
                tokens, item = _longest(grader, part.items, tokenizer, spec.thinking)
            except Exception as fault:  # a template is a program: it may raise anything
                told = f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
                raise BadInput(f"{name} cannot be put to the base {folder}: {told}") from fault
            if tokens >= min(spec.max_model_len, positions):
                raise BadInput(
                    f"{name}: the item {item} takes {tokens} tokens with the chat template and what is shown before "
                    f"it, which do not fit max_model_len {spec.max_model_len} and the base's {positions} positions"
                )


def _longest(grader: Benchmark, items: Sequence[Item], tokenizer: Any, thinking: bool) -> tuple[int, str]:
    """Tokens of the longest prompt, an option weighed after it included, and the item's id."""
    if isinstance(grader, HarnessTask):
        return grader.longest(items, tokenizer, thinking)
    by_length = sorted(items, key=lambda item: -len(item.turns[0]))
    return max((_tokens(grader, item, tokenizer, thinking), item.id) for item in by_length[:LONGEST])


def _tokens(grader: Benchmark, item: Item, tokenizer: Any, thinking: bool) -> int:
    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    options = grader.options(item) if isinstance(grader, ByLikelihood) else ()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": item.turns[0]}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking and not options,
    )
    return count(prompt) + max(map(count, options), default=0)
