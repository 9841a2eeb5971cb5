"""`squeeze evaluate`: one model measured, and scored where a baseline is named."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.engines import EngineName
from cluster.resources import find_device
from compressors.artifact import base_artifact
from evaluation.benchmarks.base import BadData
from evaluation.benchmarks.komt_bench import KoMtBench
from evaluation.health import Health
from evaluation.judge import JudgeFault
from evaluation.measurement import Measurement
from evaluation.protocol import EngineFault
from evaluation.score import Score
from evaluation.speed import sec_per_token
from search.bases import find_base
from search.bench import Bench, base_of
from search.errors import RunFailed
from search.job import Job
from search.space import Space
from search.space_file import load_space
from search.start import check_questions, check_template

WIDE = 14  # columns of a name, at least


def evaluate(model: str, baseline: str | None, space: str, engine: EngineName | None = None) -> dict[str, Any]:
    """Measure `model` by the benchmarks of `space`, all items, on `engine` or the space's own."""
    spec, folder = load_space(space), find_base(model)
    if engine is not None:
        spec = spec.model_copy(update={"engine": engine})
    base = find_base(baseline) if baseline is not None else folder
    check_questions(spec, base)
    if folder != base:
        check_template(folder, turns=1, thinking=spec.thinking)
    with tempfile.TemporaryDirectory(prefix="squeeze-evaluate-") as scratch:
        job = Job(
            base=base, base_key=base_artifact(base).key, run=Path(scratch), store=_store(spec, Path(scratch)),
            space=spec, device=find_device(), trials=1,
        )  # fmt: skip
        try:
            measured, score = _measured(job, folder, baseline is not None)
        except JudgeFault as fault:  # what was answered is at hand: tell that, and what is missing
            print(f"squeeze: {fault}", file=sys.stderr)
            left_out = {KoMtBench.name: f"its judge gave no verdict: {fault}"}
            job = job.model_copy(update={"left_out": left_out})
            try:
                measured, score = _measured(job, folder, baseline is not None)
            except BadData:  # nothing else generates
                raise RunFailed(str(fault)) from fault
    told = _as_data(folder, measured)
    lines = list(_lines(measured))
    if score is not None:
        told["score"] = score.model_dump()
        lines += _score_lines(score, base)
    return told | {"text": "\n".join(lines)}


def _store(spec: Space, scratch: Path) -> Path:
    """Verdicts of a judge are paid for once, so they are kept where the user's other caches are."""
    if spec.evaluation.judge is None:
        return scratch / "store"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "squeeze"


def _measured(job: Job, folder: Path, scored: bool) -> tuple[Measurement, Score | None]:
    with Bench(job) as bench:
        try:
            if not scored:
                return bench.measure_alone(job.last_rung), None
            measured, _, score = bench.measure(base_of(folder), job.last_rung)
        except (EngineFault, ValueError) as fault:
            raise RunFailed(str(fault)) from fault
    return measured, score


def _as_data(folder: Path, measured: Measurement) -> dict[str, Any]:
    return {
        "model": str(folder),
        "perf": measured.perf,
        "sec_per_token": sec_per_token(measured.passes),
        "benchmarks": {
            name: {
                "value": one.value,
                "n": len(one.grades),
                "tokens": one.tokens,
                "seconds": one.seconds,
                **one.details,
            }
            for name, one in measured.benchmarks.items()
        },
        "left_out": measured.left_out,
        "health": {name: one.model_dump() for name, one in measured.health.items()},
        "engine": measured.engine,
        "device": measured.device,
        "versions": measured.versions,
        "mhz": measured.mhz,
        "kernels": measured.kernels,
    }


def _lines(measured: Measurement) -> Iterator[str]:
    wide = max(WIDE, *map(len, measured.benchmarks))
    for name, one in measured.benchmarks.items():
        yield f"{name:{wide}} {one.value:.4f}  ({len(one.grades)} items)"
    pace = 1000 * sec_per_token(measured.passes)
    yield f"{'perf':{WIDE}} {measured.perf:.4f}   {pace:.3f} ms a token   {measured.engine}"
    for name, why in measured.left_out.items():
        yield f"{name:{WIDE}} left out of perf, since {why}"
    yield f"{'answers':{WIDE}} {sum(measured.health.values(), Health())}"


def _score_lines(score: Score, base: Path) -> Iterator[str]:
    if score.fixed_norm is not None:
        yield (
            f"{'SpeedNorm':{WIDE}} {score.speed_norm:+.4f}; {score.fixed_norm:+.4f} with answers as long as the base's "
            f"(it says {score.length_ratio:.2f} times as much)"
        )
    yield f"{'score':{WIDE}} {score.score:.4f} [{score.score_low:.4f}, {score.score_high:.4f}] against {base}"
