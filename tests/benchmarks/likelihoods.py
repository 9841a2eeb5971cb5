"""Options weighed and tasks of lm-eval, on both engines: beside transformers, and beside one another.

`python -m tests.benchmarks.likelihoods` needs both environments (`make setup contest`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from cluster.engines import EngineName
from evaluation.benchmarks import benchmark, read_rows
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.benchmarks.likelihood import ByLikelihood
from evaluation.engine import Engine
from evaluation.reference import ITEMS, MODEL
from search.serving import engine_settings
from tests.evaluation.test_harness import gpqa, ifeval, mmlu, written
from tests.evaluation.test_likelihood import by_transformers

COUNT = 40


def main() -> None:
    asked = benchmark("kmmlu_redux_likelihood")
    assert isinstance(asked, ByLikelihood)
    items = asked.items(read_rows(ITEMS / "kmmlu_redux.jsonl", asked.columns))[:COUNT]
    chats = [[{"role": "user", "content": item.turns[0]}] for item in items]
    options = [asked.options(item) for item in items]
    expected = torch.tensor(by_transformers(chats, options)).reshape(len(items), -1)
    likely = expected > -5
    with tempfile.TemporaryDirectory() as folder:
        rows = {"mmlu_anatomy": mmlu(COUNT), "gpqa_main_zeroshot": gpqa(12), "ifeval": ifeval(8)}
        files = {name: written(Path(folder) / f"{name}.jsonl", some) for name, some in rows.items()}
        tasks = [HarnessTask(f"lm_eval:{name}", path) for name, path in files.items()]
        names: tuple[EngineName, ...] = ("own", "contest")
        for name in names:
            with Engine(engine_settings(max_model_len=2048, engine=name), Path(folder) / "log") as engine:
                engine.load(MODEL)
                found = torch.tensor(engine.choose(chats, options))
                apart, same = (found - expected).abs(), (found.argmax(1) == expected.argmax(1)).sum()
                print(f"{engine.about['engine']}: {int(likely.sum())} likely options")
                print(f"  {apart[likely].mean():.4f} nats apart, at most {apart[likely].max():.3f}")
                print(f"  {int(same)} of {len(items)} choices alike")
                for task in tasks:
                    done = engine.harness(task.parts(task.items([])))
                    print(f"  {task.name}: {done.values[0]}, {sum(done.tokens[0])} tokens")


if __name__ == "__main__":
    main()
