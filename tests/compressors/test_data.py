"""Conversations: read from three kinds of file, and the assistant's tokens marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressors.data import conversations, load_conversations, read_conversations, tokenize

ROWS = [
    [{"role": "user", "content": "old boats"}, {"role": "assistant", "content": "seven lamps"}],
    [{"role": "user", "content": "the fox"}, {"role": "assistant", "content": "문이 열린다"}],
]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"rows.{kind}"
    records = [{"conversations": row, "id": n} for n, row in enumerate(ROWS)]
    if kind == "jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(records), encoding="utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_all_kinds_give_the_same_rows_and_fingerprint(tmp_path: Path, kind: str) -> None:
    read = read_conversations(write(tmp_path, kind))
    assert [list(row) for row in read.rows] == ROWS
    assert read.fingerprint == conversations(ROWS).fingerprint
    assert read_conversations(write(tmp_path, kind), limit=1).fingerprint == conversations(ROWS[:1]).fingerprint


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.jsonl", '{"text": "x"}\n', "no column 'conversations'"),
        ("a.jsonl", "", "has no rows"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.jsonl", '{"conversations": ["x"]}\n', "list of"),
        ("a.json", "{}", "row 1 has no column 'conversations'"),
        ("a.json", "[{]", "a.json cannot be read as json: "),
        (
            "a.jsonl",
            b'{"conversations": [{"role": "user", "content": "\xff"}]}',
            r"a\.jsonl cannot be .*utf-8",
        ),
        ("a.parquet", "no Parquet", "a.parquet cannot be read as parquet: "),
        ("a.jsonl", '{"conversations": [{"role": "user", "content": null}]}', "a.jsonl row 1: content None is no text"),
        (
            "a.json",
            '[{"conversations": [{"role": "user", "content": [{"type": "text"}]}]}]',
            r"content \[\{'type'",
        ),
        ("a.json", '[{"conversations": [{"role": 1, "content": "x"}]}]', "a.json row 1: role 1 is no text"),
        ("a.csv", "x", "neither"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=reason):
        read_conversations(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read_conversations(tmp_path / "absent.jsonl")


def marked(folder: Path, row: list[dict[str, str]], template: str | None = "") -> str:
    """The text of the tokens marked as answers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if template != "":
        tokenizer.chat_template = template
    sample = tokenize(tokenizer, conversations([row]).rows[0], 1000)
    return str(tokenizer.decode([i for i, said in zip(sample.ids, sample.answer, strict=True) if said]))


def test_answers_are_marked_with_their_end_of_turn(base: Path) -> None:
    row = [*ROWS[0], {"role": "user", "content": "a seven lamps door"}, {"role": "assistant", "content": "rain"}]
    assert marked(base, row) == "seven lamps[|endofturn|]rain[|endofturn|]"


def test_answers_are_marked_where_a_template_rewrites_earlier_turns(base: Path) -> None:
    template = (
        "{% for m in messages %}[|{{ m.role }}|]{% if loop.last %}<think></think>{% endif %}"
        "{{ m.content }}[|endofturn|]{% endfor %}"
    )
    row = [*ROWS[0], {"role": "user", "content": "a door"}, {"role": "assistant", "content": "rain"}]
    assert marked(base, row, template) == "seven lamps[|endofturn|]rain[|endofturn|]"


def test_without_a_template_contents_stand_line_by_line(base: Path) -> None:
    assert marked(base, ROWS[0], None) == "seven lamps"


def test_long_rows_are_cut(base: Path) -> None:
    from transformers import AutoTokenizer

    sample = tokenize(AutoTokenizer.from_pretrained(str(base)), conversations(ROWS).rows[0], 3)
    assert len(sample.ids) == len(sample.answer) == 3


def test_exaone_template_if_at_hand() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "exaone-4.0-1.2b"
    if not folder.is_dir():
        pytest.skip("../shared/data/exaone-4.0-1.2b is not at hand")
    row = [*ROWS[1], {"role": "user", "content": "more"}, {"role": "assistant", "content": "그렇다"}]
    assert marked(folder, row) == "문이 열린다[|endofturn|]그렇다[|endofturn|]"


def test_a_hub_data_set_is_read_through_datasets(tmp_path: Path) -> None:
    """A folder of Parquet files is to `datasets` what a repository on the hub is."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    turns = [{"content": "old boats", "role": "user"}, {"content": "red fox", "role": "assistant"}]
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.table({"conversations": [turns] * 3}), tmp_path / "data" / "train-00000-of-00001.parquet")
    loaded = load_conversations(f"hub:{tmp_path}")
    assert loaded == conversations([turns] * 3)


def test_an_empty_data_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(lambda: ()))
    with pytest.raises(ValueError, match="the hub's some/set has no rows"):
        load_conversations("hub:some/set")


def test_parquet_without_the_column_is_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet .*no column 'conversations' \(it has: text\)"):
        read_conversations(tmp_path / "t.parquet")


def test_a_data_set_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # read from the environment when they were imported: set there now, the hub would be asked for half a minute
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the hub does not give no/such-set"):
        load_conversations("hub:no/such-set")
