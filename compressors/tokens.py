"""A BPE tokenizer's files with fewer tokens: what must stay, and every id in them counted anew.

Files are edited as JSON, never saved anew by transformers, whose versions write tokenizers differently. Works on
`tokenizer.json`, on `vocab.json` with `merges.txt`, and on both side by side. Knows nothing of models' weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressors.step import Infeasible

KEPT = "kept_tokens.json"
MULTIPLE = 64  # rows of embedding and head: what kernels tile by

# Fields of config.json and generation_config.json that hold token ids besides those that end in _token_id
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
UNREADABLE = ("forced_decoder_ids", "force_words_ids", "sequence_bias", "bad_words_ids")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their ids, and which ids each token can be merged from, by whichever merges."""

    ids: dict[str, int]
    parts: dict[int, list[int]]
    needed: frozenset[int]  # ids of added tokens and of single bytes

    def with_ancestors(self, wanted: Iterable[int]) -> set[int]:
        """`wanted` and all tokens that any merge on the way to them uses."""
        found: set[int] = set()
        left = list(wanted)
        while left:
            number = left.pop()
            if number not in found:
                found.add(number)
                left.extend(self.parts.get(number, ()))
        return found


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of the tokenizer in `folder`.

    Raises `Infeasible` for a tokenizer that is not BPE or has none of the files named above.
    """
    whole, plain = folder / "tokenizer.json", folder / "vocab.json"
    if whole.is_file():
        content = _read(whole)
        model = content["model"]
        if model.get("type", "BPE") != "BPE":
            raise Infeasible(f"trim_vocab works on BPE tokenizers; this one is {model['type']}")
        if model.get("continuing_subword_prefix"):
            raise Infeasible("trim_vocab does not work on tokenizers with a continuing_subword_prefix")
        ids, merges = dict(model["vocab"]), [_pair(merge) for merge in model["merges"]]
        added = {token["content"]: token["id"] for token in content.get("added_tokens") or []}
        if model.get("unk_token") in ids:
            added[model["unk_token"]] = ids[model["unk_token"]]
    elif plain.is_file() and (folder / "merges.txt").is_file():
        ids, merges, added = dict(_read(plain)), [_pair(line) for line in _merge_lines(folder)[1]], {}
    else:
        raise Infeasible("trim_vocab needs a tokenizer.json, or a vocab.json and a merges.txt; the model has neither")
    added |= {token["content"]: int(number) for number, token in _decoder(folder).items()}
    if (folder / "added_tokens.json").is_file():
        added |= _read(folder / "added_tokens.json")
    parts: dict[int, list[int]] = {}
    for pair in merges:
        parts.setdefault(ids["".join(pair)], []).extend(ids[part] for part in pair)
    single = _byte_tokens()
    needed = {number for name, number in ids.items() if name in single} | set(added.values())
    return Vocabulary(ids | added, parts, frozenset(needed))


def choose(vocabulary: Vocabulary, wanted: Iterable[int], rows: int) -> list[int]:
    """Ids to keep, ascending: `wanted`, all that is needed, their ancestors, and low ids up to a multiple of 64.

    `rows` is the size of the embedding; rows without a token fill up last. Raises `Infeasible` if nothing can go, or
    a token that must stay has no row.
    """
    kept = vocabulary.with_ancestors({*wanted, *vocabulary.needed})
    size = -(-len(kept) // MULTIPLE) * MULTIPLE
    if size >= rows:
        raise Infeasible(f"trim_vocab finds nothing to trim: {len(kept)} of {rows} tokens are needed")
    beyond = max(kept)
    if beyond >= rows:
        name = next((repr(token) for token, number in vocabulary.ids.items() if number == beyond), "unnamed")
        raise Infeasible(
            f"trim_vocab: the tokenizer's token {name} has id {beyond}, and the model's embedding {rows} rows: "
            "take the token out of the tokenizer's files, or give the model more rows"
        )
    named = sorted(number for number in set(vocabulary.ids.values()) - kept if number < rows)
    while len(kept) < size and named:
        later = []
        for number in named:  # one whose ancestors stay fits any room: so each pass adds at least one
            if len(kept) == size:
                break
            family = vocabulary.with_ancestors([number]) - kept
            if len(kept) + len(family) <= size:
                kept |= family
            else:
                later.append(number)
        named = later
    unnamed = (number for number in range(rows) if number not in kept)
    while len(kept) < size:
        kept.add(next(unnamed))
    return sorted(kept)


def trim_files(folder: Path, kept: list[int]) -> None:
    """Rewrite all files in `folder` that name token ids, config.json apart, so that token kept[i] gets id i."""
    new = {number: place for place, number in enumerate(kept)}
    names: set[str] = set()

    def edit(name: str, change: Callable[[Any], Any]) -> None:
        path = folder / name
        if path.is_file():
            text = json.dumps(change(_read(path)), ensure_ascii=False, indent=2)
            path.write_text(text + "\n", encoding="utf-8")

    def shorter(ids: Mapping[str, int]) -> dict[str, int]:
        left = {name: new[number] for name, number in ids.items() if number in new}
        names.update(left)
        return dict(sorted(left.items(), key=lambda pair: pair[1]))

    def whole(content: dict[str, Any]) -> dict[str, Any]:
        model = content["model"]
        model["vocab"] = shorter(model["vocab"])
        model["merges"] = [merge for merge in model["merges"] if _survives(_pair(merge), names)]
        for token in content.get("added_tokens") or []:
            token["id"] = new[token["id"]]
        if content.get("padding"):
            content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
        content["post_processor"] = _processor(content.get("post_processor"), new)
        return content

    def settings(content: dict[str, Any]) -> dict[str, Any]:
        decoder = content.get("added_tokens_decoder")
        if decoder is not None:
            content["added_tokens_decoder"] = {str(new[int(number)]): token for number, token in decoder.items()}
        return content

    edit("tokenizer.json", whole)
    edit("vocab.json", shorter)
    if (folder / "merges.txt").is_file():
        head, lines = _merge_lines(folder)
        left = [line for line in lines if _survives(_pair(line), names)]
        (folder / "merges.txt").write_text("\n".join([*head, *left]) + "\n", encoding="utf-8")
    edit("added_tokens.json", shorter)
    edit("tokenizer_config.json", settings)
    edit("generation_config.json", lambda fields: fields | remap_ids(fields, new))
    (folder / "tokenizer.model").unlink(missing_ok=True)  # SentencePiece's form of what tokenizer.json now says


def special_ids(fields: Mapping[str, Any]) -> set[int]:
    """Token ids that a config or generation config names, and that must therefore stay."""
    found: set[int] = set()
    for name, value in fields.items():
        if name.endswith("_token_id") and value is not None:
            found |= set(value if isinstance(value, list) else [value])
    return found


def remap_ids(fields: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """Those of a config's fields that hold token ids, with the ids that `new` gives them.

    A suppressed token that is gone needs no mention. Raises `Infeasible` for fields in forms not known here.
    """
    changed: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if name in UNREADABLE:
            raise Infeasible(f"trim_vocab cannot count the ids in {name} anew")
        if name in ID_LISTS:
            changed[name] = [new[number] for number in value if number in new]
        elif name.endswith("_token_id"):
            changed[name] = (
                [new.get(number, number) for number in value] if isinstance(value, list) else new.get(value, value)
            )
    return changed


def kept_tokens(folder: Path) -> list[int] | None:
    """The original ids of the tokens of a trimmed model, in the order of its own; None for one never trimmed."""
    path = folder / KEPT
    return [int(number) for number in _read(path)] if path.is_file() else None


def rows_in(base: Path, folder: Path) -> list[int] | None:
    """Rows of the embedding of `base` that belong to the tokens of `folder`, made from it; None if these are all.

    Right for a base that was itself trimmed before.
    """
    kept, before = kept_tokens(folder), kept_tokens(base)
    if kept is None or kept == before:
        return None
    places = {original: row for row, original in enumerate(before)} if before is not None else None
    return kept if places is None else [places[original] for original in kept]


def write_kept(source: Path, target: Path, kept: list[int]) -> None:
    """Note in `target` what is kept of the model in `source`, counted in the ids before the first trim."""
    before = kept_tokens(source)
    original = kept if before is None else [before[number] for number in kept]
    (target / KEPT).write_text(json.dumps(original, separators=(",", ":")) + "\n", encoding="utf-8")


def _processor(processor: Any, new: Mapping[int, int]) -> Any:
    """A post-processor of tokenizer.json with new ids, whichever of its types it is."""
    if not isinstance(processor, dict):
        return processor
    changed = dict(processor)
    if "processors" in changed:
        changed["processors"] = [_processor(one, new) for one in changed["processors"]]
    if isinstance(changed.get("special_tokens"), dict):
        changed["special_tokens"] = {
            name: token | {"ids": [new[number] for number in token["ids"]]}
            for name, token in changed["special_tokens"].items()
        }
    for name in ("sep", "cls"):
        if name in changed:
            token, number = changed[name]
            changed[name] = [token, new[number]]
    return changed


def _byte_tokens() -> set[str]:
    """The tokens that stand for one byte, in byte-level BPE and in SentencePiece's byte fallback."""
    from tokenizers import pre_tokenizers

    return {*pre_tokenizers.ByteLevel.alphabet(), *(f"<0x{byte:02X}>" for byte in range(256))}


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _survives(pair: tuple[str, str], names: set[str]) -> bool:
    return pair[0] in names and pair[1] in names and "".join(pair) in names


def _merge_lines(folder: Path) -> tuple[list[str], list[str]]:
    """Header and merges of merges.txt, one a line."""
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    head = lines[:1] if lines[0].startswith("#version") else []
    return head, [line for line in lines[len(head) :] if line]


def _decoder(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "tokenizer_config.json"
    decoder: dict[str, dict[str, Any]] = _read(path).get("added_tokens_decoder", {}) if path.is_file() else {}
    return decoder


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
