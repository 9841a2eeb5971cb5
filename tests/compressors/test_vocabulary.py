"""A trimmed vocabulary against the whole one: the same cuts, the same logits, every id in every file right."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import TEMPLATE, make_model

from compressors import checkpoint
from compressors.artifact import artifact_key
from compressors.build import build
from compressors.context import Context
from compressors.corpus import corpus_texts
from compressors.data import conversations, read_records
from compressors.files import model_files
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, EngineTraits, Infeasible, StepContext
from compressors.steps import parse_step
from compressors.store import Store
from compressors.tokens import Vocabulary, choose, kept_tokens, read_vocabulary, remap_ids, rows_in, trim_files
from compressors.vocabulary import TrimVocab, load_tokenizer, refuse_difference, trim_rows

KINDS = ["exaone4", "llama", "qwen2", "qwen3"]
SPECIAL = ["[PAD]", "[BOS]", "[|endofturn|]", "[|user|]", "[|assistant|]", "[|system|]"]
FIRST_SPECIAL = 506  # they come last, so that every trim moves them
REAL = Path(__file__).parents[3] / "shared" / "data"


def say(*texts: str) -> Conversations:
    return conversations(
        [[{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in texts]
    )


DRAW = random.Random(1)
RARE = ["".join(DRAW.choices("aeioudnrst", k=DRAW.randint(2, 8))) for _ in range(300)]
MANY = say(" ".join(RARE[:60]))
FEW = say("the red fox has", "the cold river")
FEWER = say("the fox")


def write_tokenizer(folder: Path, plain: bool) -> None:
    """512 tokens, specials last; as tokenizer.json, or as vocab.json and merges.txt the way EXAONE ships them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=FIRST_SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(RARE + ["the", "red", "fox", "has", "cold", "river"] * 20, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    assert tokenizer.get_vocab_size() == 512
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", FIRST_SPECIAL + 1)]
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    settings: dict[str, Any] = {
        "tokenizer_class": "GPT2Tokenizer" if plain else "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(FIRST_SPECIAL + place): {
                "content": name,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for place, name in enumerate(SPECIAL)
        },
        "pad_token": "[PAD]",
        "bos_token": "[BOS]",
        "eos_token": "[|endofturn|]",
        "unk_token": "[PAD]",
        "add_bos_token": False,
        "add_prefix_space": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    content = json.loads(tokenizer.to_str())
    if plain:
        ids = content["model"]["vocab"] | {name: FIRST_SPECIAL + place for place, name in enumerate(SPECIAL)}
        (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    else:
        (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))


def special_last(folder: Path, plain: bool = False) -> Path:
    """The model in `folder` with that tokenizer, and its ids in the configs."""
    write_tokenizer(folder, plain)
    ids = {"pad_token_id": FIRST_SPECIAL, "bos_token_id": FIRST_SPECIAL + 1}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | ids | {"eos_token_id": FIRST_SPECIAL + 2}))
    eos = [FIRST_SPECIAL + 2, FIRST_SPECIAL + 3]
    extra = {"suppress_tokens": [400, FIRST_SPECIAL]}
    (folder / "generation_config.json").write_text(json.dumps(ids | extra | {"eos_token_id": eos}))
    return folder


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("spoken")
    folders = {kind: special_last(make_model(kind, root / kind, layers=2)) for kind in KINDS}
    return folders | {"plain": special_last(make_model("exaone4", root / "plain", layers=2), plain=True)}


@pytest.mark.parametrize("kind", [*KINDS, "plain"])
def test_an_exact_trim_changes_ids_and_nothing_else(spoken: dict[str, Path], kind: str, tmp_path: Path) -> None:
    import torch

    folder = build([TrimVocab()], spoken[kind], Store(tmp_path), FEW).artifact.folder
    kept = kept_tokens(folder)
    assert kept is not None
    assert kept == sorted(kept)
    assert len(kept) % 64 == 0
    assert len(kept) < 512
    whole, before = checkpoint.load(spoken[kind], "cpu")
    small, after = checkpoint.load(folder, "cpu")
    assert len(after) == small.config.vocab_size == len(kept)
    for _, text in corpus_texts(before, FEW, ()):
        old, new = before(text)["input_ids"], after(text)["input_ids"]
        assert before.convert_ids_to_tokens(old) == after.convert_ids_to_tokens(new)
        assert old == [kept[number] for number in new]
        assert after.decode(new) == text if kind == "plain" else text in after.decode(new)
        with torch.no_grad():
            expected = whole(input_ids=torch.tensor([old])).logits[..., kept]
            assert torch.equal(small(input_ids=torch.tensor([new])).logits, expected)
    # bytes that no text holds can still be said, and special ids are where the files say
    assert after.decode(after("漢字 Ω")["input_ids"], skip_special_tokens=True) == "漢字 Ω"
    names = [SPECIAL[0], SPECIAL[1], SPECIAL[2]]
    config = json.loads((folder / "config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    for fields in (config, generation):
        end = fields["eos_token_id"][0] if isinstance(fields["eos_token_id"], list) else fields["eos_token_id"]
        assert after.convert_ids_to_tokens([fields["pad_token_id"], fields["bos_token_id"], end]) == names
    assert [kept[number] for number in generation["eos_token_id"]] == [FIRST_SPECIAL + 2, FIRST_SPECIAL + 3]
    assert [kept[number] for number in generation["suppress_tokens"]] == [FIRST_SPECIAL]
    decoder = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert {kept[int(number)]: token["content"] for number, token in decoder.items()} == dict(
        enumerate(SPECIAL, FIRST_SPECIAL)
    )
    assert (kind == "llama") == (small.lm_head.weight is not small.model.embed_tokens.weight)


def test_a_second_trim_counts_in_the_first_ids_and_travels_on(spoken: dict[str, Path], tmp_path: Path) -> None:
    store = Store(tmp_path)
    once = build([TrimVocab()], spoken["exaone4"], store, MANY).artifact.folder
    again, _ = checkpoint.load(once, "cpu")
    step = TrimVocab(mode="lossy", keep=1)
    quantize = parse_step({"step": "quantize", "scheme": "W8A8"})
    twice = build([TrimVocab(), step, quantize, Context(max_position_embeddings=256)], spoken["exaone4"], store, MANY)
    folder = twice.artifact.folder
    first, kept = kept_tokens(once), kept_tokens(folder)
    assert first is not None
    assert kept is not None
    assert set(kept) < set(first)
    after = load_tokenizer(folder)
    text = " ".join(RARE[:20])
    whole = load_tokenizer(spoken["exaone4"])
    names = after.convert_ids_to_tokens(after(text)["input_ids"])
    assert whole.convert_ids_to_tokens([kept[number] for number in after(text)["input_ids"]]) == names
    assert len(names) > len(whole(text)["input_ids"])  # lossy: cut finer
    assert "kept_tokens.json" not in [path.name for path in model_files(folder)]
    # what a teacher needs: the base's own rows for the student's ids, whether or not the base was trimmed itself
    base = spoken["exaone4"]
    assert (rows_in(base, once), rows_in(base, folder), rows_in(once, once)) == (first, kept, None)
    assert [first[row] for row in rows_in(once, folder) or ()] == kept
    assert rows_in(base, base) is None
    teacher, _ = checkpoint.load(spoken["exaone4"], "cpu")
    trim_rows(teacher, first)
    assert teacher.model.embed_tokens.weight.equal(again.model.embed_tokens.weight)
    assert teacher.lm_head.weight is teacher.model.embed_tokens.weight
    assert kept_tokens(spoken["exaone4"]) is None


def test_lossy_keeps_what_is_frequent_and_counts_as_damage(
    spoken: dict[str, Path], tmp_path: Path, engine: EngineTraits
) -> None:
    step = TrimVocab(mode="lossy", keep=3)
    context = StepContext(base=spoken["qwen3"], data=FEW)
    step.run(spoken["qwen3"], tmp_path, context)
    kept = kept_tokens(tmp_path)
    assert kept is not None
    assert context.notes["kept"] == len(kept) < 512
    shape = read_shape(spoken["qwen3"])
    assert check_recipe([step], shape, engine).damaged
    assert not check_recipe([TrimVocab()], shape, engine).damaged


def test_all_ways_to_merge_a_token_are_kept_and_low_ids_fill_up() -> None:
    ids = {name: number for number, name in enumerate(["a", "b", "c", "ab", "bc", "abc", "cc", *map(str, range(200))])}
    parts = {3: [0, 1], 4: [1, 2], 5: [3, 2, 0, 4], 6: [2, 2]}
    vocabulary = Vocabulary(ids, parts, frozenset({206}))
    assert vocabulary.with_ancestors([5]) == {0, 1, 2, 3, 4, 5}
    kept = choose(vocabulary, [5], 256)
    assert kept == [*range(63), 206]
    with pytest.raises(Infeasible, match="nothing to trim: 7 of 64 tokens are needed"):
        choose(vocabulary, [5], 64)


def test_tokens_without_a_row_stay_out_or_are_named(spoken: dict[str, Path], tmp_path: Path) -> None:
    vocabulary = Vocabulary({str(number): number for number in range(300)}, {}, frozenset({3, 298, 299}))
    with pytest.raises(Infeasible, match="the tokenizer's token '299' has id 299, and the model's embedding 256 rows"):
        choose(vocabulary, [5], 256)
    unneeded = Vocabulary(vocabulary.ids, {}, frozenset({*range(60), *range(64, 190)}))
    assert max(choose(unneeded, [5], 256)) < 256
    checkpoint.copy_companions(spoken["llama"], tmp_path)
    for path in model_files(spoken["llama"]):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"].append(content["added_tokens"][-1] | {"id": 512, "content": "[|extra|]"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "made").mkdir()
    with pytest.raises(Infeasible, match=r"token '\[\|extra\|\]' has id 512, and the model's embedding 512 rows"):
        TrimVocab().run(tmp_path, tmp_path / "made", StepContext(base=tmp_path, data=FEW))


def test_a_text_that_is_cut_otherwise_is_named(spoken: dict[str, Path], tmp_path: Path) -> None:
    checkpoint.copy_companions(spoken["plain"], tmp_path)
    (tmp_path / "config.json").write_bytes((spoken["plain"] / "config.json").read_bytes())
    kept = sorted(read_vocabulary(spoken["plain"]).needed)
    trim_files(tmp_path, kept)
    before, after = load_tokenizer(spoken["plain"]), load_tokenizer(tmp_path)
    refuse_difference(before, after, [("bytes", "Q!Z")], kept)
    with pytest.raises(Infeasible, match="trim_vocab exact: row 7 is not tokenized as before"):
        refuse_difference(before, after, [("bytes", "Q!Z"), ("row 7", "the river")], kept)


def test_corpus_files_count_and_their_content_is_in_the_key(spoken: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"conversations": FEW.rows[0], "turns": ["river"], "number": 3}) + "\n")
    step = TrimVocab(corpus=(str(file),))
    tokenizer = load_tokenizer(spoken["qwen2"])
    texts = [text for _, text in corpus_texts(tokenizer, FEWER, step.corpus)]
    assert "river" in texts
    assert "[|user|]\nriver[|endofturn|]\n[|assistant|]\n" in texts
    assert any(text.startswith("[|user|]\nthe red fox has") for text in texts)
    notes = []
    for words in ("river", "cold river stone"):
        file.write_text(json.dumps([words]))
        context = StepContext(base=spoken["qwen2"], data=FEWER)
        (tmp_path / words).mkdir()
        step.run(spoken["qwen2"], tmp_path / words, context)
        notes.append((context.notes["used"], artifact_key(step, "source", "data", 0, "cpu")))
    assert notes[0][0] < notes[1][0]
    assert notes[0][1] != notes[1][1]
    file.unlink()
    with pytest.raises(ValueError, match=r"trim_vocab reads .*texts.jsonl: no such file"):
        artifact_key(step, "source", "data", 0, "cpu")


def test_held_out_texts_are_compared_and_do_not_count(spoken: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "known.txt").write_text(" ".join(turn["content"] for turn in FEW.rows[0]))
    (tmp_path / "other.txt").write_text("the cold river near seven old boats and a lamp")
    known, other = (TrimVocab(heldout=(str(tmp_path / name),)) for name in ("known.txt", "other.txt"))
    without = build([TrimVocab()], spoken["qwen2"], Store(tmp_path / "store"), FEW).artifact
    same = build([known], spoken["qwen2"], Store(tmp_path / "store"), FEW).artifact
    assert without.provenance is not None and same.provenance is not None
    assert same.provenance.notes["kept"] == without.provenance.notes["kept"]
    with pytest.raises(Infeasible, match=r"other\.txt row 1 is not tokenized as before"):
        build([other], spoken["qwen2"], Store(tmp_path / "store"), FEW)


def test_records_of_every_kind(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": ["x", "y"]}), tmp_path / "t.parquet")
    (tmp_path / "t.txt").write_text("some text\n")
    (tmp_path / "t.json").write_text('{"a": 1}')
    assert read_records(tmp_path / "t.parquet") == [{"a": "x"}, {"a": "y"}]
    assert read_records(tmp_path / "t.txt") == ["some text\n"]
    assert read_records(tmp_path / "t.json") == [{"a": 1}]
    (tmp_path / "t.jsonl").write_text("{")
    for name, words in (("t.jsonl", "cannot be read as jsonl"), ("n.json", "no such file"), ("t.csv", "none of .txt")):
        with pytest.raises(ValueError, match=words):
            read_records(tmp_path / name)


def test_refusals(spoken: dict[str, Path], tmp_path: Path, engine: EngineTraits) -> None:
    shape = read_shape(spoken["llama"])
    for fields, words in (
        ({"mode": "lossy"}, "trim_vocab: field keep is missing"),
        ({"keep": 9}, "trim_vocab: field keep = 9 is not for mode exact"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_step({"step": "trim_vocab", **fields})
    for step, words in (
        (TrimVocab(mode="lossy", keep=512), "keep 512 is not below the model's 512 tokens"),
        (TrimVocab(corpus=("nowhere.txt",)), r"corpus nowhere\.txt: no such file"),
        (TrimVocab(corpus=("rows.csv",)), r"corpus rows\.csv is none of \.txt"),
    ):
        with pytest.raises(Infeasible, match=words):
            check_recipe([step], shape, engine)
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(Infeasible, match=r"trim_vocab corpus: .*bad\.jsonl cannot be read as jsonl"):
        build([TrimVocab(corpus=(str(tmp_path / "bad.jsonl"),))], spoken["llama"], Store(tmp_path / "store"), FEW)
    with pytest.raises(Infeasible, match="quantized weights cannot be changed by trim_vocab"):
        check_recipe([parse_step({"step": "quantize", "scheme": "W8A8"}), TrimVocab()], shape, engine)
    with pytest.raises(Infeasible, match=r"needs a tokenizer\.json"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(Infeasible, match="this one is Unigram"):
        read_vocabulary(tmp_path)
    with pytest.raises(Infeasible, match="cannot count the ids in sequence_bias anew"):
        remap_ids({"sequence_bias": [[[1], 2.0]]}, {})


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data with EXAONE-4.0-1.2B's tokenizer is not here")
def test_the_real_tokenizer_over_komt_bench_and_manta(tmp_path: Path) -> None:
    source = REAL / "exaone-4.0-1.2b"
    checkpoint.copy_companions(source, tmp_path)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    files = (str(REAL / "komt-bench" / "question_ko.jsonl"), str(REAL / "manta" / "val.json"))
    context = StepContext(base=source, data=FEW)
    kept = TrimVocab(corpus=files).trim_tokenizer(source, tmp_path, context)
    assert context.notes["gone"] == 102_400 - len(kept) > 70_000
    before, after = load_tokenizer(source), load_tokenizer(tmp_path)
    rows = [json.loads(line) for line in (REAL / "komt-bench" / "question_ko.jsonl").read_text().splitlines()]
    for row in rows[:20]:  # the whole corpus was compared within; these once more, in plain words
        for turn in row["turns"]:
            assert before.tokenize(turn) == after.tokenize(turn)
    assert after.convert_tokens_to_ids("[|endofturn|]") == kept.index(361)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == kept.index(361)
