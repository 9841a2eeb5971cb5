"""The whole of a search, one line a stage: search, report, export, verify."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from compressors.artifact import base_artifact
from search.driver import run as run_search
from search.errors import BadInput, RunFailed
from search.export import export
from search.job import Job
from search.report import status_of, write_report
from search.unpack import BadSubmission
from search.verify import verify


def conclude(job: Job, address: str | None, verified: bool, as_json: bool) -> None:
    """Search until the budget is spent, then write what a person needs."""
    if base_artifact(job.base).key != job.base_key:
        raise BadInput(f"the base {job.base} is not what this run began with: its content has changed")
    run_search(job, address, quiet=as_json)
    status = status_of(job)
    write_report(job)
    if verified:
        submission = job.run / "submit.zip"
        export(job, "score", submission)
        _tell("checking the submission: unpack, load with transformers and vLLM, score again", as_json)
        status["verification"] = _verify(submission, job)
        write_report(job)
    if as_json:
        print(json.dumps(status, ensure_ascii=False))
        return
    print(status["text"])
    if verified:
        print(_verdict(status["verification"], job.run / "submit.zip"))
    print(f"report: {job.run / 'report.html'}")


def verify_and_tell(submission: Path, job: Job | None, as_json: bool) -> None:
    """The verify command: exit 0 when it loads and its score agrees (or there is nothing to compare with)."""
    if not submission.exists():
        raise BadInput(f"no submission at {submission}")
    result = _verify(submission, job)
    print(json.dumps(result, ensure_ascii=False) if as_json else _verdict(result, submission))


def _verify(submission: Path, job: Job | None) -> dict[str, Any]:
    try:
        result = verify(submission, job)
    except BadSubmission as fault:
        raise RunFailed(f"refused: {fault}") from fault
    if result["agrees"] is False:
        raise RunFailed(
            f"{submission} does not score as the search said: {result['score_verified']['score']:.4f} against "
            f"{result['score_search']['score']:.4f}, {result['difference']:.4f} apart where {result['allowed']:.4f} "
            "is within the intervals"
        )
    return result


def _verdict(result: dict[str, Any], submission: Path) -> str:
    if result["agrees"] is None:
        return f"{submission}: loads; {result['why']}"
    return (
        f"{submission}: verified. score {result['score_verified']['score']:.4f} measured again, "
        f"{result['score_search']['score']:.4f} in the search: {result['difference']:.4f} apart, "
        f"{result['allowed']:.4f} is within the intervals"
    )


def _tell(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr)
