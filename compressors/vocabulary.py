"""Vocabulary trimming: tokens that no text needs leave the tokenizer, the embedding and the head.

Knows nothing of training, quantization or scores; what becomes of a tokenizer's files is `tokens`' business.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from compressors.data import KINDS
from compressors.sharding import VOCAB_MULTIPLE
from compressors.step import Conversations, EngineTraits, Infeasible, ModelShape, Step, StepContext
from compressors.tokens import choose, read_vocabulary, remap_ids, special_ids, trim_files, write_kept

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 256  # texts tokenized at once
NOTHING = Conversations(rows=(), fingerprint="none")


class TrimVocab(Step):
    """Drop tokens that a corpus does not need: the conversations at hand as the model sees them, and `corpus`.

    exact keeps every token of every text, all single bytes, all added tokens, and all ancestors of these: the tokens
    that any merge on the way to them uses. Then the texts are cut as before. For BPE applies, step by step, the
    merge of lowest rank among those that fit. Every token that arises on the way lies inside a token of the result,
    so it is an ancestor and stays, and with it the merge. By induction: if trimmed and whole tokenizer stand at the
    same pieces, the merge the whole one takes next is there in the trimmed one too, and none of lower rank fits,
    since the trimmed merges are some of the whole ones in the same order. Still all texts are tokenized again and
    compared token by token; `Infeasible` names a text that differs. Texts outside the corpus may be cut finer: those
    of `heldout` are not counted, only compared, and one that is cut otherwise is refused too.

    lossy keeps the `keep` tokens that the texts use most, and what is needed besides; other words are cut finer.

    The number of tokens is rounded up to a multiple of 64 by further ones of low id. How many stay is known only
    when the texts have been read: until then the shape holds the number before. The original ids of what is kept
    go along in kept_tokens.json. Raises `Infeasible` when nothing can go, for tokenizers that are not BPE, and where as
    many GPUs as share the model do not divide 64.
    """

    step: Literal["trim_vocab"] = "trim_vocab"
    mode: Literal["exact", "lossy"] = Field(
        "exact", description="exact: all texts are tokenized as before; lossy: rare tokens leave too"
    )
    keep: PositiveInt | None = Field(None, description="by lossy: how many of the most frequent tokens stay")
    corpus: tuple[str, ...] = Field(
        (), description="text, JSON, JSON-lines or Parquet files whose every string counts, besides the conversations"
    )

    heldout: tuple[str, ...] = Field(
        (), description="by exact: files of the same kinds that must be tokenized as before, though they do not count"
    )

    uses_data: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("compressors.corpus", "compressors.data", "compressors.tokens")

    @model_validator(mode="after")
    def _belonging(self) -> Self:
        if self.mode == "lossy" and self.keep is None:
            raise ValueError("field keep is missing: mode lossy needs it")
        if self.mode == "exact" and self.keep is not None:
            raise ValueError(f"field keep = {self.keep} is not for mode exact")
        if self.mode == "lossy" and self.heldout:
            raise ValueError("field heldout is for mode exact: lossy cuts other texts finer")
        return self

    def check(self, shape: ModelShape, engine: EngineTraits) -> None:
        if self.keep is not None and self.keep >= shape.vocab:
            raise Infeasible(f"trim_vocab keep {self.keep} is not below the model's {shape.vocab} tokens")
        if VOCAB_MULTIPLE % engine.gpus:  # how many stay is known only when it was done
            raise Infeasible(
                f"trim_vocab: {engine.gpus} GPUs do not divide {VOCAB_MULTIPLE}, of which it leaves a multiple"
            )
        for name, files in (("corpus", self.corpus), ("heldout", self.heldout)):
            for file in files:
                if Path(file).suffix not in KINDS:
                    raise Infeasible(f"trim_vocab {name} {file} is none of {', '.join(KINDS)}")
                if not Path(file).is_file():
                    raise Infeasible(f"trim_vocab {name} {file}: no such file")

    def reshape(self, shape: ModelShape) -> ModelShape:
        return shape.model_copy(update={"trimmed": True, "damaged": shape.damaged or self.mode == "lossy"})

    def reads(self) -> tuple[Path, ...]:
        return tuple(Path(file) for file in (*self.corpus, *self.heldout))

    def preflight(self, base: Path) -> None:
        from compressors.data import read_records

        read_vocabulary(base)
        for path in self.reads():
            try:
                read_records(path)
            except ValueError as fault:
                raise Infeasible(f"trim_vocab: {fault}") from fault

    def run(self, source: Path, target: Path, context: StepContext) -> None:
        from compressors import checkpoint

        with TemporaryDirectory() as name:
            scratch = Path(name)  # tokenizer files are changed and tried here before any weight is read
            checkpoint.copy_companions(source, scratch)
            shutil.copyfile(source / "config.json", scratch / "config.json")
            kept = self.trim_tokenizer(source, scratch, context)
            write_kept(source, scratch, kept)
            model, tokenizer = checkpoint.load(source, "cpu")
            checkpoint.save(trim_rows(model, kept), tokenizer, target, files_from=scratch)

    def trim_tokenizer(self, source: Path, scratch: Path, context: StepContext) -> list[int]:
        """Trim the tokenizer files in `scratch`; returns the ids kept, ascending."""
        from compressors.corpus import corpus_texts

        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        rows, special = config["vocab_size"], special_ids(config)
        if (source / "generation_config.json").is_file():
            special |= special_ids(json.loads((source / "generation_config.json").read_text(encoding="utf-8")))
        vocabulary = read_vocabulary(source)
        tokenizer = load_tokenizer(source)
        try:
            texts = list(corpus_texts(tokenizer, context.data, self.corpus))
            apart = list(corpus_texts(tokenizer, NOTHING, self.heldout))
        except ValueError as fault:
            raise Infeasible(f"trim_vocab corpus: {fault}") from fault
        used = count_tokens(tokenizer, texts)
        ranked = sorted(used, key=lambda number: (-used[number], number))
        wanted = {*ranked[: self.keep], *(number for number in special if 0 <= number < rows)}
        kept = choose(vocabulary, wanted, rows)
        trim_files(scratch, kept)
        if self.mode == "exact":
            refuse_difference(tokenizer, load_tokenizer(scratch), [*texts, *apart], kept)
        context.notes.update(kept=len(kept), gone=rows - len(kept), texts=len(texts), used=len(used))
        context.progress(f"trim_vocab: {len(kept):,} of {rows:,} tokens stay")
        return kept


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder. Raises `Infeasible` for one without the fast form, which alone has BPE parts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise Infeasible(f"trim_vocab needs a fast tokenizer; {type(tokenizer).__name__} is none")
    return tokenizer


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[tuple[str, str]]) -> Counter[int]:
    """How often each token id occurs in (name, text) pairs."""
    used: Counter[int] = Counter()
    for batch in _batches(texts):
        for ids in tokenizer([text for _, text in batch], add_special_tokens=False)["input_ids"]:
            used.update(ids)
    return used


def refuse_difference(
    whole: PreTrainedTokenizerBase,
    trimmed: PreTrainedTokenizerBase,
    texts: Iterable[tuple[str, str]],
    kept: list[int],
) -> None:
    """Raise `Infeasible` naming the first text that `trimmed` cuts into other tokens, by name or by id."""
    for batch in _batches(texts):
        strings = [text for _, text in batch]
        before = whole(strings, add_special_tokens=False)
        after = trimmed(strings, add_special_tokens=False)
        for number, (name, _) in enumerate(batch):
            same = before.tokens(number) == after.tokens(number)
            if not same or before["input_ids"][number] != [kept[new] for new in after["input_ids"][number]]:
                raise Infeasible(f"trim_vocab exact: {name} is not tokenized as before")


def trim_rows(model: PreTrainedModel, kept: list[int]) -> PreTrainedModel:
    """Keep the rows `kept` of embedding and head, in place, tied or not; special ids in the configs follow."""
    import torch

    embedding, head = model.model.embed_tokens, model.lm_head
    tied = head.weight is embedding.weight
    rows = torch.tensor(kept, device=embedding.weight.device)
    trains = embedding.weight.requires_grad
    embedding.weight = torch.nn.Parameter(embedding.weight.detach()[rows].clone(), requires_grad=trains)
    head.weight = (
        embedding.weight if tied else torch.nn.Parameter(head.weight.detach()[rows].clone(), requires_grad=trains)
    )
    embedding.num_embeddings = head.out_features = len(kept)
    new = {number: place for place, number in enumerate(kept)}
    if embedding.padding_idx is not None:
        embedding.padding_idx = new.get(embedding.padding_idx)
    for part in (model, model.model):
        part.vocab_size = len(kept)
    model.config.vocab_size = len(kept)
    for settings in (model.config, model.generation_config):
        for name, value in remap_ids(settings.to_dict(), new).items():
            setattr(settings, name, value)
    return model


def _batches(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    left = iter(texts)
    while batch := list(islice(left, BATCH)):
        yield batch
