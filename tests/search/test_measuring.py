"""`squeeze evaluate` on models and judges that fail: what was measured is told all the same."""

import json

import pytest

from evaluation.benchmarks.base import BadData
from evaluation.judge import JudgeFault
from search import measuring
from search.errors import BadInput, RunFailed
from search.job import Job
from search.space_file import load_space
from search.verify import verify
from tests.evaluation import broken

ASKED = """
steps: [{step: drop_layers, count: [1]}]
evaluation:
  limit: 8
  benchmarks: {kmmlu_redux: reference:items/kmmlu_redux.jsonl}
calibration: reference:text/calibration.jsonl
max_model_len: 1024
"""


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "space.yaml").write_text(ASKED)
    return str(tmp_path / "space.yaml")


def test_a_model_that_says_nothing_is_told_by_its_signs(tmp_path, asked):
    told = measuring.evaluate(str(broken.silent(tmp_path / "silent")), None, asked)
    assert told["perf"] == 0
    assert told["health"]["kmmlu_redux"]["empty"] == 8
    assert "100% empty" in told["text"]
    assert "score" not in told


def test_a_judge_that_fails_costs_its_benchmark_and_no_other(asked, monkeypatch, capsys):
    """Who judges is real elsewhere (test_judge.py); here the second measuring is looked at."""
    jobs = []

    def measured(job, folder, scored):
        jobs.append(job)
        if job.left_out is None:
            raise JudgeFault("status 401")
        raise StopIteration

    monkeypatch.setattr(measuring, "_measured", measured)
    with pytest.raises(StopIteration):
        measuring.evaluate("tiny", None, asked)
    first, second = jobs
    assert second.left_out == {"komt_bench": "its judge gave no verdict: status 401"}
    assert second.run == first.run  # the answers are there
    assert "squeeze: status 401" in capsys.readouterr().err


def test_where_nothing_else_generates_the_judges_fault_is_the_end(asked, monkeypatch):
    def measured(job, folder, scored):
        if job.left_out is None:
            raise JudgeFault("status 401")
        raise BadData("nothing to time")

    monkeypatch.setattr(measuring, "_measured", measured)
    with pytest.raises(RunFailed, match=r"^status 401$"):
        measuring.evaluate("tiny", None, asked)


def test_verdicts_are_kept_from_one_evaluation_to_the_next(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    spec = load_space(asked)
    assert measuring._store(spec, tmp_path) == tmp_path / "store"
    judged = {"url": "http://localhost:1", "model": "judge", "templates": "t.jsonl"}
    content = spec.model_dump() | {"evaluation": spec.evaluation.model_dump() | {"judge": judged}}
    assert measuring._store(type(spec).model_validate(content), tmp_path) == tmp_path / "caches" / "squeeze"


def test_a_judge_without_a_key_ends_a_verification_before_it_begins(tmp_path, asked, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    rows = [{"question_id": 1, "category": "writing", "turns": ["시를 쓰세요.", "더 짧게."]}]
    (tmp_path / "komt.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = load_space(asked)
    evaluation = spec.evaluation.model_dump() | {
        "benchmarks": {"komt_bench": str(tmp_path / "komt.jsonl")},
        "judge": {"url": "http://localhost:1", "model": "judge", "templates": "t.jsonl", "key": "NO_SUCH_KEY"},
    }
    space = type(spec).model_validate(spec.model_dump() | {"evaluation": evaluation})
    job = Job(
        base=tmp_path, base_key="0", run=tmp_path, store=tmp_path, space=space, device="cpu", trials=1, left_out={}
    )
    (tmp_path / "verification.json").write_text("an older verdict")
    with pytest.raises(BadInput, match="the judge's key NO_SUCH_KEY is not in the environment"):
        verify(tmp_path / "submit.zip", job)
    assert (tmp_path / "verification.json").read_text() == "an older verdict"
