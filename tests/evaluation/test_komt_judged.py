"""KoMT-Bench with a judge: templates, references, the rule for answers that are not Korean, and being left out."""

import json
import math
from pathlib import Path

import pytest

from evaluation.benchmarks.base import BadData
from evaluation.benchmarks.komt_judged import KoMtJudged, is_korean, worth
from evaluation.suite import Suite, SuiteSpec

REAL = Path(__file__).parents[3] / "shared" / "data" / "komt-bench"
NAMES = ("single-v1", "single-v1-multi-turn", "single-math-v1", "single-math-v1-multi-turn")
ROWS = [
    {"question_id": 1, "category": "writing", "turns": ["시를 쓰세요.", "더 짧게 {줄여} 쓰세요."]},
    {"question_id": 2, "category": "math", "turns": ["2+2?", "그 제곱은?"], "reference": ["4", "16"]},
    {"question_id": 138, "category": "extraction", "turns": ["영어로 답하세요.", "다시."]},
]
ANSWERS = [("바람이 분다", "바람이 {answer_1} 불었다"), ("4", "16입니다"), ("In English.", "Again in English.")]


class Panel:
    """Rates the prompts it is shown by what it was told to."""

    def __init__(self, *ratings):
        self.ratings, self.shown = ratings, []

    def rate(self, prompts):
        self.shown += prompts
        return list(self.ratings[: len(prompts)])


@pytest.fixture
def templates(tmp_path):
    texts = {
        "single-v1": "Q {question} A {answer}",
        "single-v1-multi-turn": "{question_1}|{answer_1}|{question_2}|{answer_2}",
        "single-math-v1": "Q {question} REF {ref_answer_1} A {answer}",
        "single-math-v1-multi-turn": "{ref_answer_1}|{ref_answer_2}|{question_2}|{answer_2}",
    }
    path = tmp_path / "judge_prompts.jsonl"
    rows = [{"name": n, "system_prompt": f"system of {n}", "prompt_template": text} for n, text in texts.items()]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_each_turn_has_its_template(templates):
    panel = Panel(8, 6, 10, 2, 9, 4)
    judged = KoMtJudged(panel, templates, None)
    items = judged.items(ROWS)
    grades = judged.grade_all(items, ANSWERS)
    assert panel.shown == [
        ("system of single-v1", "Q 시를 쓰세요. A 바람이 분다"),
        ("system of single-v1-multi-turn", "시를 쓰세요.|바람이 분다|더 짧게 {줄여} 쓰세요.|바람이 {answer_1} 불었다"),
        ("system of single-math-v1", "Q 2+2? REF 4 A 4"),
        ("system of single-math-v1-multi-turn", "4|16|그 제곱은?|16입니다"),
        ("system of single-v1", "Q 영어로 답하세요. A In English."),
        ("system of single-v1-multi-turn", "영어로 답하세요.|In English.|다시.|Again in English."),
    ]
    assert grades == pytest.approx([0.7, 0.6, 0.65])
    assert [judged.decoding(item).temperature for item in items] == [0.7, 0.0, 0.0]
    assert all(judged.decoding(item).max_tokens == 1024 for item in items)


@pytest.mark.parametrize(
    ("rating", "answer", "question", "value"),
    [
        (9, "This is not Korean.", "5", 0.3),
        (9, "This is not Korean.", "140", 0.9),
        (9, "한국어 답변에 API, HTTP 같은 말이 있다", "5", 0.9),
        (4, "```python\nprint('hello world, this is code')\n```\n위 코드를 쓰세요.", "5", 0.4),
        (7, "42", "5", 0.7),
        (2, "これは日本語です", "5", math.sqrt(2) / 10),
    ],
)
def test_what_is_not_korean_counts_as_its_root(rating, answer, question, value):
    assert worth(rating, answer, question) == pytest.approx(value)


def test_thinking_is_not_judged(templates):
    panel = Panel(5, 5)
    judged = KoMtJudged(panel, templates, None)
    judged.grade(judged.items(ROWS[:1])[0], ("<think>\nhm\n</think>\n\n바람", "<think> 끝나지 않는"))
    assert [text for _, text in panel.shown] == ["Q 시를 쓰세요. A 바람", "시를 쓰세요.|바람|더 짧게 {줄여} 쓰세요.|"]


def test_math_needs_references_and_a_file_may_give_them(templates, tmp_path):
    bare = [{"question_id": 7, "category": "math", "turns": ["1", "2"]}]
    with pytest.raises(BadData, match="row 0: math is graded beside a reference, and question 7 has none"):
        KoMtJudged(None, templates, None).items(bare)
    file = tmp_path / "references.jsonl"
    file.write_text(json.dumps({"question_id": 7, "choices": [{"index": 0, "turns": ["one", "two"]}]}))
    [item] = KoMtJudged(None, templates, file).items(bare)
    assert item.reference["answers"] == ("one", "two")


def test_templates_that_are_not_there_are_named(templates, tmp_path):
    rows = templates.read_text().splitlines()[:3]
    templates.write_text("\n".join(rows))
    with pytest.raises(BadData, match="lacks the judge's template single-math-v1-multi-turn"):
        KoMtJudged(None, templates, None)


def test_templates_and_references_of_another_form_are_named(templates, tmp_path):
    for choices in (5, [], ["turns"]):
        file = tmp_path / "references.jsonl"
        file.write_text(json.dumps({"question_id": 7, "choices": choices}))
        with pytest.raises(BadData, match=r"references\.jsonl, row 0: column choices must be a list that begins"):
            KoMtJudged(None, templates, file)
    templates.write_text(json.dumps({"name": "single-v1", "system_prompt": None, "prompt_template": ""}))
    with pytest.raises(BadData, match=r"judge_prompts\.jsonl, row 0: column system_prompt must be a text, not None"):
        KoMtJudged(None, templates, None)


@pytest.fixture
def spec(templates, tmp_path):
    rows, other = tmp_path / "komt.jsonl", tmp_path / "prompts.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)))
    other.write_text('{"prompt": "Say hello."}\n')
    judge = {"url": "http://127.0.0.1:9/v1", "model": "j", "key": "A_JUDGES_KEY", "templates": str(templates)}
    return {"benchmarks": {"komt_bench": str(rows)}, "prompts": str(other), "judge": judge}


@pytest.mark.parametrize("field", ["templates", "references"])
def test_a_file_that_is_not_there_is_told_though_nothing_is_judged(spec, field, tmp_path, monkeypatch):
    monkeypatch.delenv("A_JUDGES_KEY", raising=False)
    parsed = SuiteSpec.model_validate(spec | {"benchmarks": {}, "judge": spec["judge"] | {field: str(tmp_path / "no")}})
    with pytest.raises(BadData, match=rf"evaluation\.judge\.{field}: no file at .*no$"):
        Suite(parsed, (1.0,))
    assert set(Suite(parsed, (1.0,), left_out={}).graders) == {"likeness"}  # a run that began without them goes on


def test_without_a_key_it_is_left_out_and_said(spec, monkeypatch):
    monkeypatch.delenv("A_JUDGES_KEY", raising=False)
    suite = Suite(SuiteSpec.model_validate(spec), (1.0,))
    assert suite.left_out == {"komt_bench": "the judge's key A_JUDGES_KEY is not in the environment"}
    assert set(suite.graders) == {"likeness"}
    with pytest.raises(BadData, match="left out: komt_bench, since the judge's key"):
        Suite(SuiteSpec.model_validate(spec | {"prompts": None}), (1.0,))
    nobody = Suite(SuiteSpec.model_validate(spec | {"judge": None}), (1.0,))
    assert "evaluation.judge names none" in nobody.left_out["komt_bench"]


def test_a_run_keeps_to_what_it_began_with(spec, monkeypatch):
    parsed = SuiteSpec.model_validate(spec)
    monkeypatch.setenv("A_JUDGES_KEY", "x")
    assert set(Suite(parsed, (1.0,)).graders) == {"komt_bench", "likeness"}
    assert set(Suite(parsed, (1.0,), left_out={"komt_bench": "no key then"}).graders) == {"likeness"}
    monkeypatch.delenv("A_JUDGES_KEY")
    with pytest.raises(BadData, match="komt_bench: the judge's key A_JUDGES_KEY is not in the environment"):
        Suite(parsed, (1.0,), left_out={})


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data with KoMT-Bench is not here")
def test_the_real_questions_templates_and_references():
    judged = KoMtJudged(Panel(), REAL / "judge_prompts_ko.jsonl", REAL / "reference_gpt-4.jsonl")
    rows = [json.loads(line) for line in (REAL / "question_ko.jsonl").read_text().splitlines()]
    items = judged.items(rows)
    assert len(items) == 80
    for item in items:
        for turn in (0, 1):
            system, text = judged.prompt(item, ("첫 답변입니다", "둘째 답변입니다"), turn)
            assert system and "첫 답변입니다" in text
            assert not {f"{{{name}}}" for name in ("question", "answer", "ref_answer_1")} & set(text.split())
    assert not is_korean("Sure! Here is the answer.")
