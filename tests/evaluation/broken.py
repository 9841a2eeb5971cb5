"""Models that are broken in one way each: copies of the reference model with a few numbers or files changed."""

import json
import shutil

from evaluation.reference import MODEL

EOS = 8  # "[|endofturn|]"
WEIGHTS = "model.safetensors"


def copy_of(folder):
    return shutil.copytree(MODEL, folder)


def with_weights(folder, edit):
    """A copy in `folder` whose tensors `edit` changed in place or replaced."""
    from safetensors.torch import load_file, save_file

    copy_of(folder)
    weights = load_file(folder / WEIGHTS)
    edit(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def number_in(folder, tensor, value, place=...):
    """`value` where `place` says, in `tensor`."""

    def edit(weights):
        weights[tensor][place] = value

    return with_weights(folder, edit)


def endless(folder):
    """The end of a turn gets logit 0, less than the likeliest token's."""
    return number_in(folder, "model.embed_tokens.weight", 0.0, EOS)


def silent(folder):
    """Whatever it says first ends the answer."""
    return with_config(copy_of(folder), "generation_config.json", eos_token_id=list(range(2048)))


def bytes_alone(folder):
    """Only tokens that are a part of a character have a logit but 0, and for each there is one with the opposite."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    parts = [number for number in range(len(tokenizer)) if tokenizer.decode([number]) == "\ufffd"]

    def edit(weights):
        rows = weights["model.embed_tokens.weight"]
        head = torch.zeros_like(rows)
        half = len(parts) // 2
        head[parts[:half]], head[parts[half : 2 * half]] = rows[parts[:half]], -rows[parts[:half]]
        weights["lm_head.weight"] = head

    return with_config(with_weights(folder, edit), "config.json", tie_word_embeddings=False)


def beyond_its_tokenizer(folder):
    """64 more rows than the tokenizer has tokens, three times as likely as the first 64."""
    import torch

    def edit(weights):
        rows = weights["model.embed_tokens.weight"]
        weights["model.embed_tokens.weight"] = torch.cat([rows, 3 * rows[:64]])

    return with_config(with_weights(folder, edit), "config.json", vocab_size=2048 + 64)


def without_template(folder):
    copy_of(folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def with_template(folder, template):
    copy_of(folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def with_config(folder, name, **fields):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder
