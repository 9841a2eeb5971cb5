"""A question that does not fit the engine's context is refused before anything starts: counted as the engine does."""

import json

import pytest

from evaluation.benchmarks import benchmark, read_rows
from evaluation.benchmarks.base import Decoding
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.reference import ITEMS, MODEL
from search.errors import BadInput
from search.space_file import load_space
from search.start import check_questions
from tests.evaluation import broken
from tests.evaluation.test_harness import gsm8k, mmlu, written
from tests.evaluation.test_likelihood import serve_tiny

SPACE = """
steps: [{step: quantize, scheme: W8A8}]
evaluation:
  benchmarks: BENCHMARKS
max_model_len: LIMIT
"""


def fits(tmp_path, limit, benchmarks):
    """Whether the questions are taken with this limit, and if not, what is said."""
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("BENCHMARKS", json.dumps(benchmarks)).replace("LIMIT", str(limit)))
    try:
        check_questions(load_space(str(path)), MODEL)
    except BadInput as refusal:
        return str(refusal)
    return ""


def long_rows(path):
    rows = [json.loads(line) for line in (ITEMS / "kmmlu_redux.jsonl").read_text(encoding="utf-8").splitlines()[:3]]
    rows[1]["question"] = "가나다 " * 60
    return written(path, rows)


def test_the_chat_template_is_counted(engine, tmp_path):
    source = long_rows(tmp_path / "rows.jsonl")
    asked = benchmark("kmmlu_redux")
    items = asked.items(read_rows(tmp_path / "rows.jsonl", asked.columns))
    serve_tiny(engine)
    chats = [[{"role": "user", "content": item.turns[0]}] for item in items]
    tokens = max(one.prompt_tokens for one in engine.generate(chats, [Decoding(max_tokens=1)] * 3).answers)
    said = fits(tmp_path, tokens, {"kmmlu_redux": source})
    assert f"kmmlu_redux: the item {items[1].id} takes {tokens} tokens" in said
    assert f"do not fit max_model_len {tokens}" in said
    assert fits(tmp_path, tokens + 1, {"kmmlu_redux": source}) == ""
    assert "likelihood: the item" in fits(
        tmp_path, tokens + 1, {"kmmlu_redux_likelihood": source} | {"kmmlu_redux": source}
    )


def test_the_examples_of_a_task_are_counted(engine, tmp_path):
    source = gsm8k(tmp_path, 3)
    task = HarnessTask("lm_eval:gsm8k", source)
    serve_tiny(engine)
    told = engine.harness(task.parts(task.items([]))).answers[0]
    tokens = max(answer.prompt_tokens for said in told for answer in said)
    said = fits(tmp_path, tokens, {"lm_eval:gsm8k": source})
    assert said.startswith("lm_eval:gsm8k: the item lm_eval:gsm8k-")
    assert f"takes {tokens} tokens" in said
    assert fits(tmp_path, tokens + 1, {"lm_eval:gsm8k": source}) == ""


def test_a_weighed_task_is_counted_too(tmp_path):
    rows = written(tmp_path / "rows.jsonl", [row | {"question": "가나다 " * 60} for row in mmlu(1)])
    asked = {"lm_eval:mmlu_anatomy": rows, "kmmlu_redux": str(ITEMS / "kmmlu_redux.jsonl")}
    assert "lm_eval:mmlu_anatomy: the item lm_eval:mmlu_anatomy-0 takes" in fits(tmp_path, 200, asked)
    assert fits(tmp_path, 1024, asked) == ""


def test_a_template_that_takes_no_system_prompt_is_told(tmp_path):
    """MMLU's description is one."""
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    folder = broken.with_template(tmp_path / "model", template)
    rows = written(tmp_path / "rows.jsonl", mmlu(1))
    path = tmp_path / "space.yaml"
    asked = {"lm_eval:mmlu_anatomy": rows, "kmmlu_redux": str(ITEMS / "kmmlu_redux.jsonl")}
    path.write_text(SPACE.replace("BENCHMARKS", json.dumps(asked)).replace("LIMIT", "1024"))
    with pytest.raises(BadInput, match=r"lm_eval:mmlu_anatomy cannot be put to the base .*no system role"):
        check_questions(load_space(str(path)), folder)
