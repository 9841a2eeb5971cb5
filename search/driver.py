"""A search from start to end: Ray Tune runs trials, every result goes to the ledger first, then to people.

Knows nothing of models. `search` and `resume` are the same work; only the ledger they start from differs.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cluster.demand import Demand
from cluster.fleet import Fleet
from cluster.nodes import gpu_name
from cluster.resources import trial_resources, trials_at_once
from cluster.storage import StorageFault
from compressors.shape import check_recipe, read_shape
from compressors.step import Infeasible
from evaluation.devices import known_device
from search.errors import RunFailed
from search.finals import Finals
from search.home import Home
from search.job import Job
from search.joining import fleet_for, start_ray
from search.ledger import Ledger, TrialRecord, ranked, trials_of
from search.pace import Pace
from search.prospects import prospects_for
from search.recipe import Recipe
from search.serving import traits_anywhere
from search.wandb_log import WandbLog
from search.watch import Watch
from search.worth import Worth

SAME = 1e-5  # scores that differ by less do so by the order in which timings were added
MOST_ASKED = 64  # nodes that a search asks an autoscaler for: how many it starts is the cluster's own limit


def run(job: Job, address: str | None = None, quiet: bool = False) -> list[TrialRecord]:
    """Search until the budget is spent, going on from what the ledger holds. Returns every trial.

    For who holds `driving(job)`: one driver writes a ledger.
    """
    with Watch(job.trials, len(job.space.rungs), quiet) as watch:
        job.catch_up()
        ledger = job.ledger()
        records = trials_of(ledger.read())
        wandb_log = WandbLog(job.run / "wandb", job.name, job.id, watch.say)
        try:
            complete = _tune(job, Scribe(ledger, records, watch, wandb_log), records, address)
        finally:
            wandb_log.close()
            _keep_offline(job, wandb_log, watch.say)
    trials = list(trials_of(ledger.read()).values())
    if not complete:
        raise RunFailed(f"interrupted; what was finished is kept: go on with `squeeze resume {job.place}`")
    if not trials:
        raise RunFailed(f"no trial came to an end; see {job.run / 'logs'}")
    return trials


def _keep_offline(job: Job, wandb_log: WandbLog, say: Callable[[str], None]) -> None:
    """W&B's files are where the run is kept, too: this machine may be gone tomorrow. A fault costs only them."""
    try:
        if job.home:
            Home(job.home, job.run).keep_more("wandb", wandb_log.offline())
    except StorageFault as fault:
        say(f"W&B's files stay in {wandb_log.folder}: {fault}")


class Scribe:
    """Turns Tune's news into ledger lines, exactly one for each rung and each end."""

    def __init__(self, ledger: Ledger, records: dict[str, TrialRecord], watch: Watch, wandb_log: WandbLog) -> None:
        self.ledger = ledger
        self.watch = watch
        self.wandb_log = wandb_log
        self.written = {(name, rung) for name, record in records.items() for rung in record.rungs}
        self.ended = {name for name, record in records.items() if record.end is not None}

    def result(self, result: dict[str, Any]) -> None:
        if not result["event"]:
            return
        line = json.loads(result["event"])
        if (line["trial"], line["rung"]) in self.written:  # told again by a resumed trial
            return
        self.written.add((line["trial"], line["rung"]))
        self.ledger.append(line)
        self.watch.rung(line)
        self.wandb_log.rung(line)

    def again(self, line: dict[str, Any]) -> None:
        self.ledger.append(line)
        self.watch.again(line)
        self.wandb_log.again(line)

    def judged(self, last_rung: int, worth: Worth) -> None:
        """What those measured in full are ranked by, wherever the ledger is read: written where it is news."""
        full = ranked(trials_of(self.ledger.read()).values(), last_rung)
        values = {trial.name: round(worth.of_line(trial.line), 6) for trial in full}
        if any(one.judged is None or abs(one.judged - values[one.name]) > SAME for one in full):
            self.ledger.append({"event": "judged", "values": values})

    def say(self, text: str) -> None:
        self.watch.say(text)

    def fell(self, name: str, recipe: list[dict[str, Any]], status: str, reason: str) -> None:
        """A trial that had ended well and did not stand a second look."""
        self.ended.discard(name)
        self.end(name, recipe, status, reason)

    def end(
        self, name: str, recipe: list[dict[str, Any]], status: str, reason: str, in_vain: float | None = None
    ) -> None:
        """`in_vain`: seconds of a rung that was not finished, where they are known."""
        if name in self.ended:
            return
        self.ended.add(name)
        line = {"event": "end", "trial": name, "recipe": recipe, "status": status, "reason": reason}
        self.ledger.append(line if in_vain is None else line | {"in_vain": in_vain})
        self.watch.ended(name, Recipe.of(recipe), status, reason)
        self.wandb_log.ended(name, recipe, status, reason)


def _tune(job: Job, scribe: Scribe, records: dict[str, TrialRecord], address: str | None) -> bool:
    """Search with Ray, which is ended on every way out: whatever follows finds all devices free."""
    import ray
    from ray.tune.error import TuneError

    scribe.say("starting Ray; a worker's engines and the base's answers come before its first result")
    start_ray(address, job.run)
    try:
        measured = [line for one in records.values() for line in one.rungs.values()]
        return _search(job, scribe, records, fleet_for(job, address, measured, scribe.say))
    except TuneError as fault:  # a ledger or a place that cannot be written, told by Tune in a traceback
        words = [line for line in str(fault).splitlines() if line.strip()]
        told = words[-1][:300] if words else "no message"
        raise RunFailed(f"Ray Tune ended ({told}): go on with `squeeze resume {job.place}`") from fault
    finally:
        ray.shutdown()


def _search(job: Job, scribe: Scribe, records: dict[str, TrialRecord], fleet: Fleet) -> bool:
    """Run Ray Tune, which measures the best again, too; True when all that is done, False when interrupted."""
    from ray import tune
    from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig

    from search.budget import Budget
    from search.placing import Asking, Newcomers, Where, places
    from search.room import Room
    from search.schedulers import SCHEDULERS
    from search.searchers import SEARCHERS
    from search.setbacks import ALWAYS, Setbacks
    from search.trial import Trial
    from search.tune_news import TuneNews
    from search.tune_searcher import RecipeSearcher

    # An open trial tells its last finished rung again, and is judged by it: the verdict may not have been written.
    retold = {(name, max(one.rungs)) for name, one in records.items() if one.end is None and one.rungs}
    nodes = fleet.resources()
    try:
        there = nodes or [node.resources for node in fleet.known.values()]  # none is fit: how far the best is from it
        resources = trial_resources(job.device, there, job.accelerator, job.space.gpus)
    except LookupError as fault:
        raise RunFailed(str(fault)) from fault
    proposer = SEARCHERS[job.space.searcher](job.space, job.seed, feasible_for(job))
    proposer.foresee(prospects_for(job.space, job.base, [known_device(_gpu_of(fleet))] if job.device == "cuda" else []))
    budget = Budget(job.trials, job.space.device_hours, job.space.patience, records.values(), job.devices)
    worth = worth_of(job, records.values())

    def at_once() -> int:
        return trials_at_once(resources, fleet.resources())

    finals = Finals(
        job.last_rung, job.space.finalists, lambda: trials_of(scribe.ledger.read()).values(), scribe,
        at_once, lambda trial: worth.of_line(trial.line),
    )  # fmt: skip
    room = Room(at_once)
    searcher = RecipeSearcher(proposer, budget, list(records.values()), finals, worth.of_line, room)
    trainable = tune.with_parameters(
        Trial,
        job=job,
        history={name: records[name].rungs for name, _ in retold},
        expected=fleet.expected.model_dump() if fleet.expected is not None else None,
    )
    scheduler = SCHEDULERS[job.space.scheduler](
        job.space.eta,
        job.last_rung,
        _judged(records, retold, worth),
        lambda: searcher.exhausted,
        worth.of_result,
        room,
    )

    # one Ray of our own has no more nodes to give
    wanted = min(job.trials - len(scribe.ended), MOST_ASKED) if fleet.expected is not None else 0
    asking = [Asking(Demand(resources, wanted), lambda: job.trials - len(scribe.ended))] if wanted > 1 else []

    def fit(seconds: float | None) -> None:
        tune.Tuner(
            tune.with_resources(trainable, Where.of(resources, job.id, fleet)),
            tune_config=TuneConfig(
                search_alg=searcher, scheduler=scheduler, num_samples=-1, reuse_actors=True, time_budget_s=seconds
            ),
            run_config=RunConfig(
                name="tune",
                **_tune_storage(job),
                callbacks=[
                    Newcomers(fleet),
                    *asking,
                    Setbacks(scribe.say),
                    room,
                    TuneNews(scribe, scheduler, finals),
                ],
                failure_config=FailureConfig(max_failures=ALWAYS),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
                verbose=0,
            ),
        ).fit()

    seconds = job.hours * 3600 if job.hours else None
    begin = time.monotonic()
    with _terminated_as_interrupted(job.place), places():
        fit(seconds)
        if searcher.over and len(scribe.ended) < job.trials:
            scribe.say(f"no more trials: {searcher.over}")
        if seconds is not None and time.monotonic() - begin >= seconds:
            searcher.only_finals()  # Tune ended all that ran: the best are measured again in a sitting of their own
            if not searcher.done:
                fit(None)
        scribe.judged(job.last_rung, worth)  # also of a search that was interrupted: it may be exported as it is
    return searcher.done


def _gpu_of(fleet: Fleet) -> str:
    """What trials are timed on, as its driver tells it: on a cluster one kind, else this machine's."""
    return fleet.kind.name if fleet.kind is not None else gpu_name()


def _tune_storage(job: Job) -> dict[str, Any]:
    """Where Tune keeps its own: in the run folder, or at the run's URI, which every node reaches."""
    if not job.home:
        return {"storage_path": str(job.run)}
    from pyarrow.fs import FileSystem

    files, path = FileSystem.from_uri(job.home)
    return {"storage_path": path, "storage_filesystem": files}


def _judged(
    records: dict[str, TrialRecord], retold: set[tuple[str, int]], worth: Worth
) -> list[tuple[str, int, float]]:
    """Trial, rung and value of all that earlier sittings measured, but for what will be `retold`."""
    return [
        (name, rung, worth.of_line(line))
        for name, one in records.items()
        for rung, line in one.rungs.items()
        if (name, rung) not in retold
    ]


@contextlib.contextmanager
def _terminated_as_interrupted(run: str) -> Iterator[None]:
    """SIGTERM ends Tune's loop as SIGINT does; Ray's own handler would print its C++ stack and end the process.

    Where the whole process group was told to end, Ray's processes go first, and calls to them fail on the way out.
    """
    asked = []

    def end(*_: object) -> None:
        asked.append(True)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Exception as fault:
        if not asked:
            raise
        raise RunFailed(f"terminated; what was finished is kept: go on with `squeeze resume {run}`") from fault
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def worth_of(job: Job, trials: Iterable[TrialRecord]) -> Worth:
    """What trials are judged by, after all that these were measured at."""
    worth = Worth(Pace(job.base), job.last_rung)
    for line in (line for record in trials for line in record.rungs.values()):
        worth.learn(line)
    return worth


def feasible_for(job: Job) -> Callable[[Recipe], bool]:
    """Whether a recipe makes sense for the job's base and engine, asked without weights."""
    shape, engine = read_shape(job.base), traits_anywhere(job.device, job.space.engine, job.space.gpus)

    def feasible(recipe: Recipe) -> bool:
        try:
            check_recipe(recipe.steps, shape, engine)
        except Infeasible:
            return False
        return True

    return feasible
