"""The search in Weights & Biases: one run a trial, grouped by search, the same numbers as in the ledger.

Offline unless a key is in the environment; no network is needed. The key is never stored. A fault of W&B is told
once and costs only the picture, never the search.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from search.recipe import Recipe


class WandbLog:
    """Writes W&B runs into `folder`; `group` is the name of the search, `run_id` tells it from others of that name."""

    def __init__(self, folder: Path, group: str, run_id: str, say: Any) -> None:
        self.folder = folder
        self.run_id = run_id
        self.group = group
        self.say = say
        self.runs: dict[str, Any] = {}
        self.broken = False
        self.mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")

    def rung(self, line: dict[str, Any]) -> None:
        """The numbers of a finished rung."""
        figures = {key: value for key, value in line.items() if isinstance(value, int | float)}
        for name, benchmark in line["benchmarks"].items():
            figures |= {f"benchmarks/{name}/{key}": value for key, value in benchmark.items()}
        figures["seconds"] = sum(stage["seconds"] for stage in line["stages"])
        self._guard(lambda: self._run(line["trial"], line["recipe"]).log(figures, step=line["rung"]))

    def again(self, line: dict[str, Any]) -> None:
        """The second measurement of one of the best, as a W&B run of its own: the first one's has ended."""
        name = f"{line['trial']}-again"
        self.rung(line | {"trial": name})
        self.ended(name, line["recipe"], "finished", "")

    def ended(self, trial: str, recipe: list[dict[str, Any]], status: str, reason: str) -> None:
        def finish() -> None:
            run = self._run(trial, recipe)
            run.summary.update({"status": status, "reason": reason})
            run.finish(exit_code=1 if status == "failed" else 0)
            del self.runs[trial]

        self._guard(finish)

    def close(self) -> None:
        for run in list(self.runs.values()):
            self._guard(run.finish)

    def offline(self) -> list[Path]:
        """What `wandb sync` needs of runs that were not sent."""
        runs = self.folder.glob("wandb/offline-run-*")
        return sorted(path for run in runs for path in (*run.glob("*.wandb"), *run.glob("files/*")) if path.is_file())

    def _run(self, trial: str, recipe: list[dict[str, Any]]) -> Any:
        import wandb

        if trial not in self.runs:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.runs[trial] = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "squeeze"),
                group=self.group,
                name=f"{trial} {Recipe.of(recipe)}",
                id=f"{self.run_id}-{trial}",
                resume="allow" if self.mode == "online" else None,
                config={"recipe": recipe},
                dir=str(self.folder),
                mode=self.mode,  # type: ignore[arg-type]  # checked by wandb itself: the user may set any mode
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
            )
        return self.runs[trial]

    def _guard(self, work: Any) -> None:
        if self.broken or self.mode == "disabled":
            return
        try:
            work()
        except Exception as fault:  # whatever W&B raises, and it raises much: told, and the search goes on
            self.broken = True
            self.say(f"W&B is left out from here on: {' '.join(str(fault).split())}")
