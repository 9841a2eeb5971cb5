"""The whole of a search, one line a stage: search, report, export, verify.

The search gives its devices back before anything is written: its driver ends Ray on every way out, its workers end with
Ray, and engines with their workers. Report, zip and hashes need processors alone. Verification takes a device last, in
a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.engines import EngineName
from cluster.storage import StorageFault, joined
from search.driver import run as run_search
from search.errors import BadInput, RunFailed
from search.export import export
from search.home import REPORTS, SUBMISSION, TELLS, VERDICT, Home
from search.job import Job
from search.joining import cluster_address
from search.lock import driving
from search.report import status_of, write_report
from search.start import check_suite
from search.stores import keep_base, with_base
from search.there import verify_there
from search.unpack import BadSubmission
from search.verify import pending, verify


def conclude(job: Job, address: str | None, verified: bool, as_json: bool) -> None:
    """Search until the budget is spent, then write what a person needs."""
    job = with_base(job)
    check_suite(job)
    job.store.mkdir(parents=True, exist_ok=True)  # nodes are asked whether they see it
    submission, failure = job.run / SUBMISSION, ""
    with driving(job):
        if job.store_home:
            keep_base(job)
        run_search(job, address, quiet=as_json)
        write_report(job)
        if verified:
            export(job, "score", submission)
            _tell("checking the submission: unpack, load with transformers and vLLM, score again", as_json)
            failure = _verify_where_timed(submission, job, address, as_json)
            write_report(job)
        job.keep(TELLS if verified else REPORTS)
    status = status_of(job)
    verification = job.run / VERDICT
    if verified and verification.exists():
        status["verification"] = json.loads(verification.read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(status, ensure_ascii=False))
    else:
        print(status["text"])
        if verified and not failure:
            print(verdict(status["verification"], submission))
        print(f"report: {joined(job.home, 'report.html') if job.home else job.run / 'report.html'}")
    if failure:
        raise RunFailed(failure)


def verify_and_tell(submission: Path, job: Job | None, as_json: bool, engine: EngineName | None = None) -> None:
    """The verify command: exit 0 when it loads and its score agrees (or there is nothing to compare with)."""
    if not submission.is_file():
        raise BadInput(f"no submission at {submission}")
    try:
        result = verify(submission, job, engine)
    except BadSubmission as fault:
        raise RunFailed(f"refused: {fault}") from fault
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    if result["agrees"] is False:
        raise RunFailed(f"{submission} does not score as the search said: {_apart(result)}. {result['why']}".rstrip())
    if not as_json:
        print(verdict(result, submission))


def verdict(result: dict[str, Any], submission: Path) -> str:
    """What verification.json says, in a line."""
    if result["agrees"] is None:
        figures = f" ({_apart(result)})" if "score_verified" in result else ""
        return f"{submission}: {result['why']}{figures}"
    return f"{submission}: verified. {_apart(result)}"


def _apart(result: dict[str, Any]) -> str:
    return (
        f"score {result['score_verified']['score']:.4f} measured again, {result['score_search']['score']:.4f} in the "
        f"search: {result['difference']:.4f} apart, {result['allowed']:.4f} is within the intervals"
    )


def _verify_where_timed(submission: Path, job: Job, address: str | None, quiet: bool) -> str:
    """On this machine; of a search on a cluster's GPUs on a node with one of that kind. What went wrong, or nothing."""
    if job.device == "cpu" or cluster_address(address) is None:
        return _verify_apart(submission, job.place)
    pending(submission)
    job.keep()
    failure = verify_there(_verify_kept, job, address, lambda text: _tell(text, quiet))
    if job.home:
        Home(job.home, job.run).fetch(VERDICT)
    return failure


def _verify_kept(place: str) -> str:
    """The submission of a run, wherever that is kept, on this machine. What went wrong, or nothing."""
    try:
        job = Job.load(place)
        if job.home:
            Home(job.home, job.run).fetch(SUBMISSION)
        failure = _verify_apart(job.run / SUBMISSION, place)
        job.keep([VERDICT])
    except (BadInput, RunFailed, StorageFault) as fault:
        return str(fault)
    return failure


def _verify_apart(submission: Path, place: str) -> str:
    """Verify in a clean process, which knows only the zip and the run; what went wrong, or nothing."""
    command = [sys.executable, "-m", "search.cli", "verify", str(submission), "--run", place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    words = [line for line in done.stderr.splitlines() if line.strip()]
    return words[-1].removeprefix("squeeze: ") if words else f"verification ended with exit code {done.returncode}"


def _tell(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr)
