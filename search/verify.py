"""Verify a submission as a stranger would: unpack it, load it twice over in clean processes, score it again.

The first score is the ledger's; the second is measured here from the zip's own files, base and candidate side by
side. They agree when each lies within the uncertainty of both.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from evaluation.engine import EngineFault
from search.bench import Bench, base_of
from search.errors import RunFailed
from search.export import file_hash, read_sidecar
from search.job import Job
from search.unpack import BadSubmission, unpack

LOAD_CHECK = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.tensor([tokenizer.encode("1 2 3 4 5 6 7 8")])
with torch.no_grad():
    logits = model(input_ids=ids).logits
if not torch.isfinite(logits).all():
    raise SystemExit("its logits are not all numbers")
print(json.dumps({"class": type(model).__name__, "layers": model.config.num_hidden_layers}))
"""


def verify(path: Path, job: Job | None) -> dict[str, Any]:
    """Unpack, load and score `path`; writes verification.json beside it and returns its content.

    Without a job (no run at hand) nothing can be scored: `agrees` is then None. Raises `BadSubmission` when the zip
    must be refused, `RunFailed` when it cannot be loaded.
    """
    expected = read_sidecar(path)
    with tempfile.TemporaryDirectory(prefix="squeeze-verify-") as scratch:
        model = unpack(path, Path(scratch))
        if expected is not None and expected["sha256"] != file_hash(path):
            raise BadSubmission(f"{path} is not the file that was exported: its SHA-256 differs from {path.name}.json")
        result: dict[str, Any] = {
            "submission": path.name,
            "sha256": file_hash(path),
            "transformers": load_with_transformers(model),
        }
        if job is not None and expected is not None:
            result |= _score_again(model, job, expected, Path(scratch))
        else:
            result |= {
                "agrees": None,
                "why": "no run beside the zip: it was loaded, but there is nothing to compare",
            }
    target = path.with_name("verification.json")
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    return result


def load_with_transformers(model: Path) -> dict[str, Any]:
    """Load in a process of its own with AutoModelForCausalLM and look at some logits."""
    done = subprocess.run([sys.executable, "-c", LOAD_CHECK, str(model)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise RunFailed(f"transformers cannot load it: {words[-1] if words else 'no message'}")
    loaded: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def _score_again(model: Path, job: Job, expected: dict[str, Any], scratch: Path) -> dict[str, Any]:
    # Its own run folder: no answer and no timing of the search may be used again.
    alone = job.model_copy(update={"run": scratch / "run"})
    with Bench(alone) as bench:
        try:
            _, again = bench.measure(base_of(model), job.last_rung)
        except EngineFault as fault:
            raise RunFailed(f"vLLM cannot serve it: {fault}") from fault
        engine = bench.engine.about
    apart = abs(again.score - expected["score"])
    allowed = math.hypot((again.score_high - again.score_low) / 2, (expected["score_high"] - expected["score_low"]) / 2)
    return {
        "trial": expected["trial"],
        "recipe": expected["recipe"],
        "engine": engine["engine"],
        "device": engine["device_name"],
        "score_search": {key: expected[key] for key in ("score", "score_low", "score_high")},
        "score_verified": again.model_dump(),
        "difference": apart,
        "allowed": allowed,
        "agrees": apart <= allowed,
    }
