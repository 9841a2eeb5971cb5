"""The reference model's files: whole, readable by both transformers, and never scored on what they calibrate with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import BENCHMARKS, Item, read_rows
from evaluation.reference import CALIBRATION, HELDOUT, ITEMS, MODEL, instructions, lookup
from evaluation.reference.corpus import Source, calibration_rows, heldout_texts, scored
from evaluation.reference.tokenizer import CHAT_TEMPLATE, END_OF_TURN, SPECIAL, THINK, VOCABULARY, pieces
from evaluation.reference.words import with_particle
from evaluation.reference.world import World

EXAONE = Path(__file__).parents[2].parent / "shared" / "data" / "exaone-4.0-1.2b"
MOST_BYTES = 16 * 2**20

CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "안녕? {{ x }} 37번"}],
    [{"role": "system", "content": "짧게."}, {"role": "user", "content": "하나"}],
    [
        {"role": "user", "content": "하나"},
        {"role": "assistant", "content": "둘"},
        {"role": "user", "content": "셋"},
    ],
    [{"role": "user", "content": "하나"}, {"role": "assistant", "content": "<think>\n음\n</think>\n\n둘"}],
]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def conversations() -> list[list[dict[str, str]]]:
    return [json.loads(line)["conversations"] for line in CALIBRATION.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def items() -> dict[str, list[Item]]:
    return {
        known.name: known.items(read_rows(ITEMS / f"{known.name}.jsonl", known.columns))
        for known in BENCHMARKS
        if (ITEMS / f"{known.name}.jsonl").exists()
    }


def test_every_benchmark_has_items(items: dict[str, list[Item]]) -> None:
    counts = {name: len(found) for name, found in items.items()}
    assert counts == {"kmmlu_pro": 200, "kmmlu_redux": 200, "ko_longrag": 120, "komt_bench": 64}
    assert all(len({item.id for item in found}) == len(found) for found in items.values())


def test_committed_texts_are_what_the_seed_makes(world: World, conversations: list[list[dict[str, str]]]) -> None:
    for name, rows in scored(world).items():
        written = [json.loads(line) for line in (ITEMS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert written == rows, name
    assert list(calibration_rows(world, 200)) == conversations[:200]
    texts = [json.loads(line)["text"] for line in HELDOUT.read_text(encoding="utf-8").splitlines()]
    assert texts == heldout_texts(world)


def test_scored_questions_are_never_calibrated_with(
    items: dict[str, list[Item]], conversations: list[list[dict[str, str]]]
) -> None:
    shown = "\n\n".join(turn["content"] for turns in conversations for turn in turns if turn["role"] == "user")
    questions = {turn["content"] for turns in conversations for turn in turns if turn["role"] == "user"}
    for found in items.values():
        assert not {item.turns[0] for item in found} & questions
    for name in ("kmmlu_pro", "kmmlu_redux"):
        for item in items[name]:
            asked = item.turns[0].split("\n\n")[1]
            assert f"{asked}\n" not in shown and f"{asked} " not in shown, "neither its phrasing, with any options"


def test_scored_documents_are_never_calibrated_with(conversations: list[list[dict[str, str]]]) -> None:
    rows = read_rows(ITEMS / "ko_longrag.jsonl", ("context",))
    known = {line for turns in conversations for line in turns[0]["content"].splitlines()}
    scored_documents = {line for row in rows for line in row["context"].splitlines()}
    assert len(scored_documents) >= 2 * len(rows) - 2
    assert not scored_documents & known


def test_source_never_asks_a_scored_fact_in_its_phrasing(world: World) -> None:
    kept = {fact.question(world.scored[fact.key]) for fact in world.scored_facts}
    assert len(kept) == len(world.scored_facts) == 400
    source = Source(world, seed=12345)
    for _ in range(500):
        for kind in ("choice", "recall"):
            asked = source.conversation(kind)[0]["content"]
            assert not any(question in asked for question in kept)


def test_right_answers_score_full_marks(world: World) -> None:
    rng = random.Random(7)
    graded = next(known for known in BENCHMARKS if known.name == "komt_bench")
    for number in range(400):
        made = instructions.exchange(rng, world)
        row = {
            "question_id": number,
            "category": made.category,
            "turns": list(made.asked),
            "reference": [list(rules) for rules in made.rules],
        }
        (item,) = graded.items([row])
        assert graded.grade(item, made.answers) == 1, made
    longrag = next(known for known in BENCHMARKS if known.name == "ko_longrag")
    for row in (lookup.scored_row(rng, number) for number in range(100)):
        (item,) = longrag.items([row])
        assert longrag.grade(item, (row["answer"],)) == 1
        if row["answer"] != lookup.NO_ANSWER:
            assert all(part in row["context"] for part in row["answer"].split(", "))


def test_particles() -> None:
    assert with_particle("구리", "은", "는") == "구리는"
    assert with_particle("납", "은", "는") == "납은"
    assert with_particle("화물", "으로", "로") == "화물로"
    assert with_particle("꽃 색", "으로", "로") == "꽃 색으로"
    assert with_particle("13", "은", "는") == "13은"


@pytest.mark.parametrize(
    "text", ["제37번 1427년", "가람솔의 뷁 쀍", "emoji 🙂, tab\t, “quotes”", " 앞 공백", "a\n\n\nb"]
)
def test_texts_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens(tokenizer: Any) -> None:
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(len(SPECIAL)))
    assert tokenizer.eos_token_id == END_OF_TURN and tokenizer.pad_token_id == 0 and tokenizer.bos_token_id == 1
    spoken = tokenizer.encode("<think>\n\n</think>\n\n답[|endofturn|]", add_special_tokens=False)
    assert set(tokenizer.convert_tokens_to_ids(list(THINK))) <= set(spoken)
    assert tokenizer.decode(spoken, skip_special_tokens=True) == "<think>\n\n</think>\n\n답"


def test_prompt_is_tokenized_alike_with_and_without_its_answer(tokenizer: Any) -> None:
    for turns in calibration_rows(World(), 40):
        whole = tokenizer.encode("".join(text for text, _ in pieces(turns)), add_special_tokens=False)
        apart = [token for text, _ in pieces(turns) for token in tokenizer.encode(text, add_special_tokens=False)]
        assert whole == apart
        assert "".join(text for text, _ in pieces(turns)) == tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.mark.skipif(not EXAONE.exists(), reason="needs ../shared/data/exaone-4.0-1.2b")
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize(
    "more", [{}, {"add_generation_prompt": True}, {"add_generation_prompt": True, "enable_thinking": True}]
)
def test_template_yields_what_exaones_does(tokenizer: Any, chat: list[dict[str, str]], more: dict[str, bool]) -> None:
    theirs = (EXAONE / "chat_template.jinja").read_text(encoding="utf-8")
    ours = tokenizer.apply_chat_template(chat, tokenize=False, **more)
    assert ours == tokenizer.apply_chat_template(chat, tokenize=False, chat_template=theirs, **more)
    assert (MODEL / "chat_template.jinja").read_text(encoding="utf-8") == CHAT_TEMPLATE


def test_config_is_read_alike_by_both_transformers() -> None:
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["Exaone4ForCausalLM"]
    assert config["num_hidden_layers"] >= 8 and config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["layer_types"] == ["full_attention"] * config["num_hidden_layers"]
    assert config["rope_parameters"] == {"rope_theta": config["rope_theta"], **config["rope_scaling"]}
    assert config["rope_scaling"]["rope_type"] == "llama3"
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"
    assert config["tie_word_embeddings"] is True and config["vocab_size"] == VOCABULARY
    assert config["hidden_size"] % 128 == 0 and config["intermediate_size"] % 128 == 0


def test_weights_fit_the_config_and_the_limit() -> None:
    from safetensors import safe_open

    config = json.loads((MODEL / "config.json").read_text())
    with safe_open(MODEL / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [VOCABULARY, config["hidden_size"]]
        assert weights.get_slice("model.embed_tokens.weight").get_dtype() == "BF16"
    layers = {int(name.split(".")[2]) for name in names if name.startswith("model.layers.")}
    assert layers == set(range(config["num_hidden_layers"])) and "lm_head.weight" not in names
    assert {f"model.layers.0.self_attn.{norm}_norm.weight" for norm in "qk"} <= names
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= MOST_BYTES
