"""The reference model's tokenizer: byte-level BPE with EXAONE's special tokens and turn markers.

`python -m evaluation.reference.tokenizer` trains it on the project's own texts. Every digit and every line break is
a token of its own, so that a prompt is tokenized alike with and without the answer that follows it. Knows no weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.reference import MODEL
from evaluation.reference.choice import Turns
from evaluation.reference.corpus import Source
from evaluation.reference.world import World

PAD, BOS, EOS, UNK = range(4)
MARKERS = ("[|system|]", "[|user|]", "[|assistant|]", "[|tool|]", "[|endofturn|]")
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]", *MARKERS)
THINK = ("<think>", "</think>")  # markers, but part of the text: decoding keeps them
END_OF_TURN = SPECIAL.index("[|endofturn|]")
VOCABULARY = 2048

# The same output as EXAONE-4.0's template for system, user and assistant turns; no tools.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {%- if message.role not in ('system', 'user', 'assistant') %}
        {{- raise_exception('Unknown role: ' ~ message.role) }}
    {%- endif %}
    {{- '[|' ~ message.role ~ '|]\\n' }}
    {%- if message.role == 'assistant' and message.content %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
        {%- if '</think>' in message.content %}
            {{- message.content.split('</think>')[-1].strip() }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- else %}
        {{- message.content }}
    {%- endif %}
    {{- '[|endofturn|]\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[|assistant|]\\n' }}
    {%- if enable_thinking is defined and enable_thinking is true %}
        {{- '<think>\\n' }}
    {%- else %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def pieces(turns: Turns) -> list[tuple[str, bool]]:
    """The chat text of `turns` in pieces, each with whether the model says it; joined, what the template yields."""
    parts: list[tuple[str, bool]] = []
    for message in turns:
        if message["role"] == "assistant":
            parts.append(("[|assistant|]\n<think>\n\n</think>\n\n", False))
            parts.append((message["content"] + "[|endofturn|]", True))
            parts.append(("\n", False))
        else:
            parts.append((f"[|{message['role']}|]\n{message['content']}[|endofturn|]\n", False))
    return parts


def build(texts: list[str], vocabulary: int = VOCABULARY):  # type: ignore[no-untyped-def]  # tokenizers.Tokenizer
    """A `tokenizers.Tokenizer` trained on `texts`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[
            *(AddedToken(token, special=True, normalized=False) for token in (*SPECIAL, *THINK)),
        ],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def sample_texts(world: World, rows: int = 6000) -> list[str]:
    """Texts in the proportions of the training mix, without markers."""
    source = Source(world, world.seed + 4)
    texts = []
    for number in range(rows):
        kind = ("choice", "recall", "lookup", "instructions", "instructions")[number % 5]
        texts += [turn["content"] for turn in source.conversation(kind, 3)]
        texts.append(source.text())
    return texts


def save(tokenizer, folder: Path) -> None:  # type: ignore[no-untyped-def]  # as above
    """Write tokenizer.json, its config and the chat template as transformers 4.57 and 5 both read them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] not in THINK  # the trainer makes every given token special
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    named: dict[str, str] = {
        "bos_token": "[BOS]",
        "eos_token": "[|endofturn|]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
    }
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "padding_side": "left",
        "additional_special_tokens": [marker for marker in MARKERS if marker != "[|endofturn|]"],
        **named,
    }
    for name, written in (("tokenizer_config.json", settings), ("special_tokens_map.json", named)):
        (folder / name).write_text(json.dumps(written, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def main() -> None:
    """Train on the project's texts and write into the model folder."""
    save(build(sample_texts(World())), MODEL)


if __name__ == "__main__":
    main()
