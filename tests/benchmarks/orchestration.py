"""What Tune and squeeze's driver cost: `python -m tests.benchmarks.orchestration --gpus 16 --trials 64 --seconds 60`.

Searcher, scheduler, room and ledger are squeeze's own, GPUs are numbers that Ray counts, and a trial's work is sleep:
`seconds` over its three rungs together. Printed are the share of time the GPUs were asleep at work, the driver's
processor and memory, and how long a result waits before it stands in the ledger, early in the run and late.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from ray import tune

from search.budget import Budget
from search.ledger import Ledger
from search.room import UNLIMITED, Room
from search.schedulers import SCHEDULERS
from search.searchers import SEARCHERS
from search.space_file import load_space
from search.tune_searcher import RecipeSearcher

RUNGS = (0.1, 0.3, 0.6)  # shares of a trial's seconds


class Sleeper(tune.Trainable):
    """A trial whose score is drawn from its name."""

    def setup(self, config: dict[str, Any], seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.name, self.recipe, self.done = new_config["name"], new_config["recipe"], 0
        return True

    def step(self) -> dict[str, Any]:
        begin, rung = time.time(), self.done
        time.sleep(self.seconds * RUNGS[rung])
        self.done += 1
        score = (int(self.name[1:]) * 7919 % 1000) / 1000
        line = {"event": "rung", "trial": self.name, "recipe": self.recipe, "rung": rung, "score": score, "stages": []}
        return {
            "trial": self.name, "rung": rung, "score": score, "event": json.dumps(line),
            "status": "finished" if self.done == len(RUNGS) else "running", "begin": begin, "ended": time.time(),
        }  # fmt: skip

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "done").write_text(str(self.done))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.done = int(Path(checkpoint, "done").read_text())


class Noted(tune.Callback):
    """Every result goes to a ledger, as the driver's do, and how long it took to get there is kept."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.waits: list[float] = []
        self.worked: list[tuple[float, float]] = []  # from when to when some GPU was at work

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self.ledger.append(json.loads(result["event"]))
        self.waits.append(time.time() - result["ended"])
        self.worked.append((result["begin"], result["ended"]))

    def span(self) -> float:
        """Seconds from the first rung's beginning to the last one's end."""
        return max(end for _, end in self.worked) - min(begin for begin, _ in self.worked)

    def share(self, gpus: int, left_out: float = 0.0) -> float:
        """Of GPUs' time, from the first rung's beginning to the last one's end, less that share of it at both ends."""
        first, last = min(begin for begin, _ in self.worked), max(end for _, end in self.worked)
        low, high = first + left_out * (last - first), last - left_out * (last - first)
        return sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in self.worked) / (gpus * (high - low))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def main(
    gpus: Annotated[int, typer.Option(help="GPUs that Ray counts")] = 16,
    trials: Annotated[int, typer.Option(help="how many are begun")] = 64,
    seconds: Annotated[float, typer.Option(help="of work in a trial that goes to the end")] = 60.0,
    scheduler: Annotated[str, typer.Option(help="stopping or promoting")] = "stopping",
    searcher: Annotated[str, typer.Option(help="a searcher's name")] = "random",
    eta: Annotated[float, typer.Option(help="the best 1/eta go on; 1.0001: all")] = 2.0,
) -> None:
    import ray

    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", UNLIMITED)
    space = load_space(str(Path(__file__).with_name("orchestration.yaml")))
    room = Room(lambda: gpus)
    proposing = RecipeSearcher(SEARCHERS[searcher](space), Budget(trials), room=room)
    rule = SCHEDULERS[scheduler](eta, len(RUNGS) - 1, (), lambda: proposing.exhausted, room=room)
    ray.init(num_cpus=gpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        noted = Noted(Ledger(Path(folder) / "ledger.jsonl"))
        begin, cpu = time.monotonic(), time.process_time()
        tune.Tuner(
            tune.with_resources(tune.with_parameters(Sleeper, seconds=seconds), {"cpu": 1, "gpu": 1}),
            tune_config=tune.TuneConfig(search_alg=proposing, scheduler=rule, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, callbacks=[room, noted],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
            ),
        ).fit()  # fmt: skip
        wall, cpu = time.monotonic() - begin, time.process_time() - cpu
    ray.shutdown()
    tenth = max(1, len(noted.waits) // 10)
    early, late = statistics.median(noted.waits[:tenth]), statistics.median(noted.waits[-tenth:])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{trials} trials, {len(noted.waits)} results on {gpus} GPUs in {wall:.0f} s, {scheduler}, {searcher}")
    print(f"{3600 * trials / noted.span():.1f} trials an hour, first rung's beginning to last one's end")
    print(f"GPUs at work, first result to last: {noted.share(gpus):.1%}")
    print(f"GPUs at work, less the first and last fifth of that: {noted.share(gpus, 0.2):.1%}")
    print(f"driver: {cpu / wall:.2f} cores, {memory:.2f} GiB")
    print(f"a result waits {1000 * early:.0f} ms (median of the first tenth), {1000 * late:.0f} ms (of the last)")


if __name__ == "__main__":
    typer.run(main)
