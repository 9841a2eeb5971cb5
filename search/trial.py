"""One trial as Ray Tune sees it: each step() is one rung. Workers are reused, and so is their warm engine.

One of the best that is measured again is a trial of its own to Tune, of a single step; to everybody else it is not.
Whatever goes wrong with a recipe ends that trial by name; only a crash of the whole process reaches Tune.
"""

from __future__ import annotations

import json
import platform
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cluster.nodes import unfit_here
from cluster.storage import StorageFault
from compressors.step import Infeasible, StepFault
from evaluation.judge import JudgeFault
from evaluation.protocol import EngineFault
from search.bench import ANSWERS, Bench
from search.errors import BadInput
from search.finals import ANSWERS_AGAIN, measure_again
from search.job import Job
from search.ledger import FAILED, FINISHED, INFEASIBLE, RUNNING
from search.placing import Misplaced
from search.recipe import Recipe
from search.stores import with_base

STATE = "rungs.json"


class Trial(tune.Trainable):
    """Reports `trial`, `rung`, `score`, `status` and `event`, the ledger line as JSON text.

    Where the config says `again`, so does the report, and its `event` is what `measure_again` gave.
    """

    bench: Bench | None = None
    unfit = ""  # what differs on this node
    outage = False  # whether that is that the base could not be fetched

    def setup(self, config: dict[str, Any], **given: Any) -> None:
        """`given`, by tune.with_parameters: `job`; `history`, the rungs finished in earlier sittings by trial; and
        `expected`, what a node must hold."""
        self.job: Job = given["job"].here()
        self.history: dict[str, dict[int, dict[str, Any]]] = given["history"]
        self.unfit = unfit_here(given["expected"])
        if not self.unfit:
            try:
                self.job = with_base(self.job, checked=given["expected"] is not None)
                self.bench = Bench(self.job, self._note)
            except (BadInput, StorageFault) as fault:  # another base at the same path, or none
                self.unfit, self.outage = str(fault), isinstance(fault, StorageFault)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.name: str = config["name"]
        self.recipe = Recipe.of(config["recipe"])
        self.again: bool = config.get("again", False)
        if self.bench is not None:
            self.bench.keep_answers(ANSWERS_AGAIN if self.again else ANSWERS)
        self.done_rungs = max(self.history.get(self.name, {0: {}}))

    def step(self) -> dict[str, Any]:
        try:
            return self._step()
        except StorageFault as fault:  # nothing is known of the recipe
            raise self._misplaced(str(fault), outage=True) from fault

    def _step(self) -> dict[str, Any]:
        if self.bench is None:  # told here and not in setup, whose faults Tune counts against the trial
            raise self._misplaced(self.unfit, outage=self.outage)
        if self.again:
            line = measure_again(self.bench, self.job, self.name, self.recipe)
            self.done_rungs = self.job.last_rung + 1
            return self._result(line, FINISHED, line.get("score", 0.0)) | {"again": True}
        rung, begin = self.done_rungs, time.monotonic()
        known = self.history.get(self.name, {}).get(rung)
        try:
            line = known or self._measured(self.bench, rung)
        except Infeasible as refusal:
            return self._end(INFEASIBLE, str(refusal), begin)
        except (StepFault, EngineFault, JudgeFault) as fault:
            return self._end(FAILED, f"{type(fault).__name__}: {fault}", begin)
        except StorageFault:
            raise
        except Exception as fault:  # a defect of ours or of a library: this trial ends, told in full; others go on
            self._keep_traceback()
            return self._end(FAILED, f"{type(fault).__name__}: {' '.join(str(fault).split())[:500]}", begin)
        self.done_rungs += 1
        last = self.done_rungs == len(self.job.space.rungs)
        return self._result(line, FINISHED if last else RUNNING, line["score"])

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / STATE).write_text(json.dumps({"done_rungs": self.done_rungs}))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.done_rungs = json.loads((Path(checkpoint) / STATE).read_text())["done_rungs"]

    def cleanup(self) -> None:
        if self.bench is not None:
            self.bench.close()

    def _measured(self, bench: Bench, rung: int) -> dict[str, Any]:
        self._note(f"rung {rung + 1} begins")
        line = {"trial": self.name} | bench.rung(self.recipe, rung)
        self._note(f"rung {rung + 1} is done")
        return line

    def _note(self, doing: str) -> None:
        """One line in the run folder's logs, on this node, of what the trial does from now on: for who looks on."""
        path = self.job.run / "logs" / f"{self.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with path.open("a", encoding="utf-8") as out:
            out.write(f"{now} {platform.node()} {doing}\n")

    def _misplaced(self, why: str, outage: bool) -> Misplaced:
        return Misplaced(ray.get_runtime_context().get_node_id(), why, outage)

    def _end(self, status: str, reason: str, begin: float) -> dict[str, Any]:
        """Without a line, though the device was at work since `begin`, a moment of `time.monotonic`."""
        return self._result(None, status, 0.0) | {"reason": reason, "in_vain": round(time.monotonic() - begin, 3)}

    def _result(self, line: dict[str, Any] | None, status: str, value: float) -> dict[str, Any]:
        return {
            "trial": self.name,
            "rung": self.done_rungs - (line is not None),
            "score": value,
            "status": status,
            "reason": "",
            "event": json.dumps(line, ensure_ascii=False) if line is not None else "",
            "recipe_json": self.recipe.canonical,
        }

    def _keep_traceback(self) -> None:
        path = self.job.run / "logs" / f"{self.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc())
