"""Verify a submission as a stranger would: unpack it, load it with transformers and vLLM, score it again.

Nothing of the search is used again but its claim: the ledger's line of the trial whose model is in the zip. Base and
candidate are measured anew, side by side. The two agree when their scores lie within each other's uncertainty, and
when each benchmark comes out as it did: the answers are those of one model, so they have no reason to differ by more
than an item or two.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cluster.engines import EngineName
from compressors.files import model_files
from compressors.tokens import KEPT
from evaluation.benchmarks.base import Decoding
from evaluation.engine import Engine
from evaluation.health import look
from evaluation.judge import JudgeFault
from evaluation.measurement import Measurement
from evaluation.protocol import EngineFault
from search.bench import Bench, base_of
from search.errors import BadInput, RunFailed
from search.export import artifact_folder, file_hash, store_of
from search.job import Job
from search.ledger import Ledger, ranked, trials_of
from search.serving import engine_settings
from search.start import check_suite
from search.unpack import BadSubmission, unpack

ITEMS_APART = 2.0  # items' worth by which one benchmark may differ: greedy answers flip where two tokens tie

LOAD_CHECK = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model, told = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
lacking = sorted(told["missing_keys"])
if lacking:
    raise SystemExit(f"weights are missing: {', '.join(lacking[:5])}")
ids = torch.tensor([tokenizer.encode("1 2 3 4 5 6 7 8")])
with torch.no_grad():
    logits = model(input_ids=ids).logits
if not torch.isfinite(logits).all():
    raise SystemExit("its logits are not all numbers")
print(json.dumps({"class": type(model).__name__, "layers": model.config.num_hidden_layers}))
"""


def verify(path: Path, job: Job | None, engine: EngineName | None = None) -> dict[str, Any]:
    """Unpack, load and score `path`; writes verification.json beside it, whatever comes of it, and returns its content.

    `engine` takes the place of the one that the search was measured on. `agrees` is None when there is no run to
    compare with, or when it was measured on another engine: two engines' figures stand side by side, no more. Raises
    `BadSubmission` when the zip must be refused, `RunFailed` when it cannot be loaded.
    """
    target = verdict_file(path)
    if job is not None:
        check_suite(job)
    if job is not None:
        store_of(job)
    try:
        target.unlink(missing_ok=True)  # an older verdict must not stand beside another zip
        pending(path)
    except OSError as fault:
        raise BadInput(f"cannot write {target}: {fault.strerror}; copy the zip to where you may write") from fault
    try:
        with tempfile.TemporaryDirectory(prefix="squeeze-verify-") as scratch:
            result = _examine(path, job, engine, Path(scratch))
    except (BadSubmission, RunFailed) as fault:
        _write(target, {"submission": path.name, "agrees": False, "why": str(fault)})
        raise
    _write(target, result)
    return result


def pending(path: Path) -> None:
    """Say of a submission that it is not verified yet; whatever was said of an earlier one is gone."""
    told = {"submission": path.name, "agrees": False, "why": "its verification did not come to its end"}
    _write(verdict_file(path), told)


def verdict_file(path: Path) -> Path:
    """verification.json beside submit.zip; beside a zip of another name, one that carries it."""
    return path.with_name("verification.json" if path.name == "submit.zip" else f"{path.stem}.verification.json")


def _examine(path: Path, job: Job | None, engine: EngineName | None, scratch: Path) -> dict[str, Any]:
    # What needs processors alone comes first, unpacking, hashing and transformers: no engine holds a device meanwhile.
    model = unpack(path, scratch)
    line = _claim(model, job) if job is not None else None
    result: dict[str, Any] = {
        "submission": path.name,
        "sha256": file_hash(path),
        "transformers": load_with_transformers(model),
    }
    if job is None or line is None:
        load_with_vllm(model, scratch, engine or "own")
        return result | {"agrees": None, "why": "it loads with transformers and vLLM; no run to compare its score with"}
    # Predictions are compared in the base's token ids; which tokens a trim kept is not handed over.
    kept = artifact_folder(job, line["artifact"]) / KEPT
    if kept.is_file():
        shutil.copyfile(kept, model / KEPT)
    again = job if engine is None else job.model_copy(update={"space": job.space.model_copy(update={"engine": engine})})
    return result | _score_again(model, again, line, scratch)


def _claim(model: Path, job: Job) -> dict[str, Any]:
    """The ledger's full measurement of the very model in the zip. Raises `BadSubmission` when there is none."""
    files = {path.name: file_hash(path) for path in model_files(model)}
    for trial in ranked(trials_of(Ledger(job.run / "ledger.jsonl").read()).values(), job.last_rung):
        line = trial.line
        try:
            folder = artifact_folder(job, line["artifact"])
        except RunFailed:
            continue  # the store gave that one up: it cannot be what was exported from it
        theirs = model_files(folder)
        if {one.name for one in theirs} == files.keys() and all(file_hash(one) == files[one.name] for one in theirs):
            return line
    raise BadSubmission(f"its model is none that {job.place} measured in full: it was changed, or is of another run")


def load_with_transformers(model: Path) -> dict[str, Any]:
    """Load in a process of its own with AutoModelForCausalLM, all weights present, and look at some logits."""
    done = subprocess.run([sys.executable, "-c", LOAD_CHECK, str(model)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise RunFailed(f"transformers cannot load it: {words[-1] if words else 'no message'}")
    loaded: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def load_with_vllm(model: Path, scratch: Path, engine_name: EngineName) -> None:
    """Load it and let it say something."""
    try:
        with Engine(engine_settings(engine=engine_name), scratch / "engine.log") as engine:
            engine.load(model)
            look(engine)
            engine.generate([[{"role": "user", "content": "1 2 3"}]], [Decoding(max_tokens=4)])
    except EngineFault as fault:
        raise RunFailed(f"vLLM cannot serve it: {fault}") from fault


def _score_again(model: Path, job: Job, line: dict[str, Any], scratch: Path) -> dict[str, Any]:
    # Its own run folder: no answer and no timing of the search may be used again.
    alone = job.model_copy(update={"run": scratch / "run", "home": ""})
    with Bench(alone) as bench:
        try:
            measured, _, again = bench.measure(base_of(model), job.last_rung)
        except (EngineFault, JudgeFault, ValueError) as fault:
            why = "the judge gives no verdict" if isinstance(fault, JudgeFault) else "vLLM cannot serve it"
            raise RunFailed(f"{why}: {fault}") from fault
        engine = bench.engine.about
    apart = abs(again.score - line["score"])
    allowed = math.hypot((again.score_high - again.score_low) / 2, (line["score_high"] - line["score_low"]) / 2)
    changed = differing(measured, line["benchmarks"])
    same_engine = engine["engine"] == line["engine"]
    why = f"benchmarks came out differently: {', '.join(changed)}" if changed else ""
    if not same_engine:
        why = f"the search was measured on {line['engine']}: two engines' figures stand side by side, and none confirms"
    return {
        "trial": line["trial"],
        "recipe": line["recipe"],
        "engine": engine["engine"],
        "device": engine["device_name"],
        "score_search": {key: line[key] for key in ("score", "score_low", "score_high", "perf_norm", "speed_norm")},
        "score_verified": again.model_dump(),
        "benchmarks": {name: {"search": line["benchmarks"][name]["value"], "verified": figures.value}
                       for name, figures in measured.benchmarks.items()},
        "left_out": measured.left_out,
        "difference": apart,
        "allowed": allowed,
        "agrees": (apart <= allowed and not changed) if same_engine else None,
        "why": why,
    }  # fmt: skip


def differing(measured: Measurement, claimed: dict[str, dict[str, float]]) -> list[str]:
    """Benchmarks whose value is more than `ITEMS_APART` items away from what the ledger says."""
    return [
        name
        for name, figures in measured.benchmarks.items()
        if abs(figures.value - claimed[name]["value"]) > ITEMS_APART / len(figures.grades)
    ]


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(path)
