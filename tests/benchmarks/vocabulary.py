"""What an exact trim leaves of a real tokenizer: `python -m tests.benchmarks.vocabulary FOLDER TEXTS...`.

FOLDER holds config and tokenizer, no weights; TEXTS are files of text, JSON, JSON lines or Parquet. Prints how many
tokens go and whether every text is tokenized as before; exit code 1 when one is not.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from compressors.checkpoint import copy_companions
from compressors.corpus import corpus_texts
from compressors.data import conversations
from compressors.step import Infeasible, StepContext
from compressors.vocabulary import TrimVocab, load_tokenizer


def main() -> None:
    folder, files = Path(sys.argv[1]), tuple(sys.argv[2:])
    context = StepContext(base=folder, data=conversations([]))
    begin = time.perf_counter()
    with TemporaryDirectory() as name:
        scratch = Path(name)
        copy_companions(folder, scratch)
        (scratch / "config.json").write_bytes((folder / "config.json").read_bytes())
        try:
            kept = TrimVocab(corpus=files).trim_tokenizer(folder, scratch, context)
        except Infeasible as refused:
            raise SystemExit(str(refused)) from None
        tokenizer = load_tokenizer(scratch)
        tokens = sum(
            len(tokenizer(text, add_special_tokens=False)["input_ids"])
            for _, text in corpus_texts(tokenizer, context.data, files)
        )
    notes = context.notes
    print(f"{notes['gone']:,} of {len(kept) + notes['gone']:,} tokens go, {len(kept):,} stay", end="; ")
    print(f"the texts use {notes['used']:,} different ones")
    print(f"{notes['texts']:,} texts, {tokens:,} tokens: every one is tokenized as before")
    print(f"{time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
