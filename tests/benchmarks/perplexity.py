"""Compare a run's perplexities with plain transformers: `python -m tests.benchmarks.perplexity RUN`.

For the base and for every artifact measured in full, the held-out texts are scored by transformers alone and set
beside what the run's engine said. Prints a table; exit code 1 when any differs by more than 1 %.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

LIMIT = 0.01


def engine_scores(run: Path) -> dict[str, list[dict[str, Any]]]:
    """By artifact key: the scored texts in the run's answer store."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(run.glob("answers/*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "heldout" in record["identity"]:
            found.setdefault(record["identity"]["artifact"], []).extend(record["content"]["texts"])
    return found


def by_transformers(folder: Path, texts: list[dict[str, Any]]) -> float:
    """Perplexity over the same token ids, forward passes in bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    nll, positions = 0.0, 0
    for text in texts:
        ids = torch.tensor([text["tokens"]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].float()
        nll += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        positions += ids.shape[1] - 1
    return math.exp(nll / positions)


def main() -> None:
    from search.export import artifact_folder
    from search.job import Job
    from search.ledger import Ledger, ranked, trials_of
    from search.recipe import Recipe

    job = Job.load(Path(sys.argv[1]))
    full = ranked(trials_of(Ledger(job.run / "ledger.jsonl").read()).values(), job.last_rung)
    names = {job.base_key: "base"}
    names |= {trial.rungs[job.last_rung]["artifact"]: str(Recipe.of(trial.recipe)) for trial in full}
    scores, worst = engine_scores(job.run), 0.0
    print("| model | engine | transformers | difference |\n| --- | --- | --- | --- |")
    for key, name in names.items():
        texts = scores[key]
        positions = sum(len(text["actual"]) for text in texts)
        engine = math.exp(-sum(sum(text["actual"]) for text in texts) / positions)
        plain = by_transformers(artifact_folder(job, key), texts)
        worst = max(worst, abs(engine / plain - 1))
        print(f"| {name} | {engine:.3f} | {plain:.3f} | {engine / plain - 1:+.2%} |")
    raise SystemExit(worst > LIMIT)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
