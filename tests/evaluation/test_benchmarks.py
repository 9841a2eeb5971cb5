"""The benchmarks: answers are read as they are meant, texts compared as documented, bad rows refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.benchmarks import BENCHMARKS, BadData, benchmark, read_rows
from evaluation.benchmarks.ko_longrag import refuses, token_f1, words
from evaluation.benchmarks.multiple_choice import chosen_option
from evaluation.benchmarks.rules import RULES, is_rule, passes

CHOICE = {
    "question": "수도는?",
    "options": ["가", "나", "다", "라", "마"],
    "solution": "3",
    "license_name": "x",
    "subject": "y",
}
LOOKUP = {
    "id": 1,
    "titles": "갑",
    "context": "갑의 색은 {question}이다.",
    "question": "갑의 색은?",
    "answer": "붉은 구리",
    "prompt": "{titles}|{context}|{question}",
    "task": "singledocQA",
}


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("3", 3),
        ("３", 3),
        ("③", 3),
        ("3번", 3),
        ("3번입니다.", 3),
        ("4입니다", 4),
        ("3. 서울", 3),
        ("(B)", 2),
        ("B", 2),
        ("정답은 3번입니다.", 3),
        ("정답: ②", 2),
        ("**정답: 5**", 5),
        ("정답 번호는 4", 4),
        ("답은 2", 2),
        ("The answer is C.", 3),
        ("정답은 C) 서울", 3),
        ("\\boxed{4}", 4),
        ("정답은 3번이 아니라 2번입니다.", 2),
        ("1번은 틀렸고 2번이 맞습니다", 2),
        ("1번이 옳지 않으므로 3번", 3),
        ("처음에는 정답이 1번 같지만, 다시 보면 정답은 4번이다.", 4),
        ("<think>1번?</think>\n\n4번", 4),
        ("<think>\n\n</think>\n\n정답은 2번입니다.", 2),
        ("<think>3번일까", None),
        ("7번", None),
        ("정답은 9번", None),
        ("사과 3개가 있다", None),
        ("1427년", None),
        ("모르겠습니다", None),
        ("", None),
    ],
)
def test_option_is_read(answer: str, option: int | None) -> None:
    assert chosen_option(answer, 5) == option


def test_option_beyond_those_offered_is_no_answer() -> None:
    assert chosen_option("정답은 5번입니다.", 4) is None
    assert chosen_option("E", 4) is None


def test_multiple_choice_grades_the_number_and_nothing_else() -> None:
    asked = benchmark("kmmlu_pro")
    (item,) = asked.items([CHOICE])
    assert asked.grade(item, ("정답은 3번입니다.",)) == 1
    assert asked.grade(item, ("정답은 2번입니다.",)) == 0
    assert asked.grade(item, ("",)) == 0
    assert "3. 다" in item.turns[0] and "수도는?" in item.turns[0]


@pytest.mark.parametrize("change", [{"solution": "6"}, {"solution": "가"}, {"options": "가 나"}, {"options": ["가"]}])
def test_unusable_multiple_choice_rows_are_named(change: dict[str, object]) -> None:
    with pytest.raises(BadData, match="row 1"):
        benchmark("kmmlu_pro").items([CHOICE, CHOICE | change])


@pytest.mark.parametrize("name", ["kmmlu_pro", "kmmlu_redux", "kmmlu_pro_likelihood"])
@pytest.mark.parametrize("solution", ["①", "3번", "", None, 2.5, "0"])
def test_a_solution_that_is_no_number_is_told_with_what_is_allowed(name: str, solution: object) -> None:
    with pytest.raises(BadData, match=rf"{name}, row 1: column solution holds '{solution}', and must be .*, 1 to 5"):
        benchmark(name).items([CHOICE, CHOICE | {"solution": solution}])


def test_words_are_normalised() -> None:
    decomposed = "\u1100\u1161"  # 가 as two letters
    assert words(f"{decomposed}, Seoul! '붉은　구리' １２％") == ["가", "seoul", "붉은", "구리", "12"]
    assert words("구리는") != words("구리"), "particles are not cut off"


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("붉은 구리", "붉은 구리", 1.0),
        ("붉은 구리.", "'붉은 구리'", 1.0),
        ("붉은 소금", "붉은 구리", 0.5),
        ("답은 붉은 구리", "붉은 구리", 0.8),  # precision 2/3, recall 1
        ("구리", "붉은 구리 붉은 소금", 0.4),  # precision 1, recall 1/4
        ("구리 구리", "구리 소금", 0.5),  # the second 구리 finds no partner
        ("소금", "구리", 0.0),
        ("", "구리", 0.0),
    ],
)
def test_token_f1_by_hand(answer: str, reference: str, expected: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(expected)


def test_lookup_item_and_refusals() -> None:
    asked = benchmark("ko_longrag")
    answered, empty = asked.items([LOOKUP, LOOKUP | {"id": 2, "answer": "문서에 정보가 없어 답할 수 없습니다."}])
    assert answered.turns[0] == "갑|갑의 색은 {question}이다.|갑의 색은?", "a text's own braces are left alone"
    assert asked.grade(answered, ("붉은 구리",)) == 1
    assert asked.grade(answered, ("문서에서 알 수 없습니다.",)) == 0
    assert asked.grade(empty, ("주어진 문서에는 관련 정보가 없습니다.",)) == 1
    assert asked.grade(empty, ("붉은 구리",)) == 0
    figures = asked.details(
        [answered, answered, empty, empty], [("'붉은　구리'.",), ("구리",), ("모릅니다.",), ("구리",)]
    )
    assert figures == {"exact_match": 0.5, "unanswerable": 0.5}
    assert asked.details([answered], [("",)]) == {"exact_match": 0.0}, "no item without an answer, no share of them"
    assert not refuses("붉은 구리") and refuses("This is not mentioned.")


def test_lookup_row_without_fields_in_its_prompt_is_named() -> None:
    with pytest.raises(BadData, match=r"row 0: column prompt lacks \{context\}"):
        benchmark("ko_longrag").items([LOOKUP | {"prompt": "{question}"}])


@pytest.mark.parametrize("change", [{"titles": None}, {"context": 5}])
def test_lookup_row_whose_document_is_no_text_is_named(change: dict[str, object]) -> None:
    with pytest.raises(BadData, match=rf"row 1: column {next(iter(change))} must be a text or a list of texts"):
        benchmark("ko_longrag").items([LOOKUP, LOOKUP | {"id": 2} | change])


@pytest.mark.parametrize("value", ["①", "many", None, -1, 1.5])
def test_a_count_that_is_none_makes_no_rule(value: object) -> None:
    assert not is_rule({"rule": "words", "value": value})
    assert not is_rule({"rule": "count", "value": {"text": "갑", "times": value}})


@pytest.mark.parametrize(
    ("rule", "value", "good", "bad"),
    [
        ("equals", "a, b", " a,  b. ", "a b"),
        ("contains", "구리", "붉은 구리가", "소금"),
        ("lacks", "구리", "소금", ""),
        ("starts_with", "5개", "5개입니다", "모두 5개"),
        ("ends_with", "입니다.", "저는 갑입니다", "입니다 저는"),
        ("count", {"text": "갑", "times": 2}, "갑 갑", "갑 갑 갑"),
        ("words", 2, "갑 을", "갑"),
    ],
)
def test_rules(rule: str, value: object, good: str, bad: str) -> None:
    assert is_rule({"rule": rule, "value": value}) and rule in RULES
    assert passes({"rule": rule, "value": value}, good) == 1
    assert passes({"rule": rule, "value": value}, bad) == 0


def test_two_turns_are_graded_by_rule() -> None:
    row = {
        "question_id": 1,
        "category": "writing",
        "turns": ["하나", "둘"],
        "reference": [
            {"rule": "equals", "value": "갑"},
            [{"rule": "contains", "value": "을"}, {"rule": "words", "value": 1}],
        ],
    }
    asked = benchmark("komt_bench")
    for item in asked.items([row, row | {"reference": json.dumps(row["reference"])}]):
        assert asked.grade(item, ("갑", "을")) == 1
        assert asked.grade(item, ("갑", "을 병")) == 0.75
        assert asked.grade(item, ("갑",)) == 0.5
        assert asked.grade(item, ()) == 0


@pytest.mark.parametrize("reference", [None, ["자유로운 글", "둘째"], [{"rule": "unknown", "value": 1}] * 2, [{}]])
def test_rows_without_rules_are_refused(reference: object) -> None:
    row = {"question_id": 1, "category": "writing", "turns": ["하나", "둘"], "reference": reference}
    with pytest.raises(BadData, match="holds no rule for each turn"):
        benchmark("komt_bench").items([row])


def test_names_are_found_and_unknown_ones_refused() -> None:
    assert [benchmark(known.name) for known in BENCHMARKS] == list(BENCHMARKS)
    with pytest.raises(BadData, match="there are kmmlu_pro"):
        benchmark("mmlu")


def test_rows_of_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(BadData, match="no benchmark items"):
        read_rows(path, ("question",))
    path.write_text('{"question": "하나"}\n{"answer": "둘"}\n', encoding="utf-8")
    with pytest.raises(BadData, match="row 1: no column question"):
        read_rows(path, ("question",))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(BadData, match="cannot be read as jsonl"):
        read_rows(path, ("question",))
    for suffix, text, told in (
        ("csv", "question,answer\n", r"cannot be read: files of rows are \.jsonl, \.json, \.parquet$"),
        ("json", "5", "holds no list of rows"),
        ("json", "[]", "holds no rows"),
    ):
        (tmp_path / f"rows.{suffix}").write_text(text)
        with pytest.raises(BadData, match=told):
            read_rows(tmp_path / f"rows.{suffix}", ("question",))
