"""Stop tokens and sampling defaults: one file changes, also after quantization and a trim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compressors.build import build
from compressors.generation import Generation
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, EngineTraits, Infeasible, StepContext
from compressors.steps import parse_step
from compressors.store import Store
from compressors.tokens import kept_tokens


def run(step: Generation, source: Path, target: Path, data: Conversations) -> dict[str, Any]:
    target.mkdir(exist_ok=True)
    step.run(source, target, StepContext(base=source, data=data))
    written: dict[str, Any] = json.loads((target / "generation_config.json").read_text())
    return written


def test_only_the_generation_config_changes_also_after_quantization(
    base: Path, tmp_path: Path, data: Conversations
) -> None:
    from transformers import GenerationConfig

    quantize = parse_step({"step": "quantize", "scheme": "W8A8"})
    step = Generation(stop=("[|user|]", 5, 2))
    store = Store(tmp_path)
    before = build([quantize], base, store, data).artifact.folder
    after = build([quantize, step], base, store, data).artifact.folder
    was, now = (json.loads((folder / "generation_config.json").read_text()) for folder in (before, after))
    assert now.pop("eos_token_id") == [2, 3, 5]
    assert was.pop("eos_token_id") == 2
    assert was == now
    for path in before.iterdir():
        if path.name not in ("generation_config.json", "provenance.json"):
            assert (after / path.name).read_bytes() == path.read_bytes()
    assert GenerationConfig.from_pretrained(str(after)).eos_token_id == [2, 3, 5]


def test_sampling_changes_only_where_asked(base: Path, tmp_path: Path, data: Conversations) -> None:
    plain = run(Generation(stop=(3,)), base, tmp_path / "plain", data)
    assert not {"temperature", "top_p", "top_k", "repetition_penalty", "do_sample"} & set(plain)
    warm = run(Generation(temperature=0.6, top_p=0.95), base, tmp_path / "warm", data)
    assert (warm["temperature"], warm["top_p"], warm["do_sample"], warm["eos_token_id"]) == (0.6, 0.95, True, 2)
    assert "top_k" not in warm
    assert run(Generation(temperature=0), base, tmp_path / "cold", data)["do_sample"] is False


def test_a_missing_file_is_written_from_the_config(base: Path, tmp_path: Path, data: Conversations) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in base.iterdir():
        if path.name != "generation_config.json":
            (source / path.name).symlink_to(path)
    written = run(Generation(stop=(7,)), source, tmp_path / "target", data)
    assert written == {"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": 0}


def test_ids_are_those_before_a_trim(base: Path, tmp_path: Path, data: Conversations) -> None:
    trim = parse_step({"step": "trim_vocab", "mode": "lossy", "keep": 1})
    store = Store(tmp_path)
    kept = kept_tokens(build([trim], base, store, data).artifact.folder)
    assert kept is not None
    folder = build([trim, Generation(stop=(kept[-1], "[|user|]"))], base, store, data).artifact.folder
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, len(kept) - 1, 3]
    gone = next(number for number in range(512) if number not in kept)
    with pytest.raises(Infeasible, match=f"generation stop {gone} left the model when its vocabulary was trimmed"):
        build([trim, Generation(stop=(gone,))], base, store, data)


def test_strings_are_text_as_the_model_says_it(base: Path, tmp_path: Path, data: Conversations) -> None:
    """A byte-level tokenizer stores a newline as Ċ and a space as Ġ; the same holds after a trim."""
    stored = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    written = run(Generation(stop=("\n", " the", "[|user|]")), base, tmp_path / "plain", data)
    assert written["eos_token_id"] == [2, stored["Ċ"], stored["Ġthe"], 3]
    with pytest.raises(Infeasible, match="generation stop 'Ċ' is no token of this model: its tokenizer cuts it into 2"):
        run(Generation(stop=("Ċ",)), base, tmp_path / "stored", data)
    trim = parse_step({"step": "trim_vocab", "mode": "lossy", "keep": 1})
    folder = build([trim, Generation(stop=("\n",))], base, Store(tmp_path / "store"), data).artifact.folder
    kept = kept_tokens(folder)
    assert kept is not None
    own = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert [kept[number] for number in own] == [2, stored["Ċ"]]


def test_what_a_tokenizer_does_not_know_is_refused_by_this_steps_name(
    base: Path, tmp_path: Path, data: Conversations
) -> None:
    """Of a kind that cannot be trimmed: one token a word, and one for all others."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "stop": 1, "here": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    source = tmp_path / "words"
    source.mkdir()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(str(source))
    (source / "config.json").write_bytes((base / "config.json").read_bytes())
    assert run(Generation(stop=("here",)), source, tmp_path / "to", data)["eos_token_id"] == [2]
    with pytest.raises(Infeasible, match="generation stop 'nowhere' is no token of this model: its tokenizer does not"):
        run(Generation(stop=("nowhere",)), source, tmp_path / "to", data)
    (source / "tokenizer.json").unlink()
    with pytest.raises(Infeasible, match="generation stop 'here' needs a tokenizer, and the model has none"):
        run(Generation(stop=("here",)), source, tmp_path / "to", data)


def test_refusals(base: Path, tmp_path: Path, data: Conversations, engine: EngineTraits) -> None:
    with pytest.raises(ValueError, match="step generation: nothing to change: give stop or one of temperature"):
        parse_step({"step": "generation"})
    with pytest.raises(ValueError, match=r"step generation: field top_p = 1\.5"):
        parse_step({"step": "generation", "top_p": 1.5})
    with pytest.raises(Infeasible, match="generation stop 512 is no token of this model, which has 512"):
        check_recipe([Generation(stop=(512,))], read_shape(base), engine)
    with pytest.raises(Infeasible, match="generation stop 'no such token' is no token"):
        run(Generation(stop=("no such token",)), base, tmp_path, data)
