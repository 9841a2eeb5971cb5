"""The scheduler that promotes, with Ray Tune itself: who goes on, when, and how those that waited end."""

import json
from pathlib import Path
from typing import get_args

import pytest
import ray
from ray import tune

from search.budget import Budget
from search.schedulers import SCHEDULERS
from search.schedulers.promoting import Promoting
from search.searchers.chance import ByChance
from search.space import SchedulerName
from search.tune_searcher import RecipeSearcher
from tests.search.conftest import rung_line

FIRST = (0.5, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4)  # at rung 0, by trial
LATER = {0: 0.9, 1: 0.6, 2: 0.5, 3: 0.7}  # at rungs 1 and 2
SCORES = {f"t{number:03d}": [score, *[LATER.get(number, score)] * 2] for number, score in enumerate(FIRST)}


def test_a_space_can_name_each_scheduler():
    assert set(get_args(SchedulerName)) == set(SCHEDULERS)


class Toy(tune.Trainable):
    """Tells its trial's scores, rung by rung."""

    def setup(self, config, log=None):
        self.log = log
        self.write("setup")
        self.reset_config(config)

    def reset_config(self, config):
        self.name, self.done = config["name"], 0
        return True

    def step(self):
        rung, score = self.done, SCORES[self.name][self.done]
        self.done += 1
        self.write(f"{self.name} {rung}")
        status = "finished" if self.done == 3 else "running"
        line = rung_line(self.name, rung, score)
        return {"trial": self.name, "rung": rung, "score": score, "status": status, "event": json.dumps(line)}

    def write(self, line):
        with Path(self.log).open("a") as out:
            out.write(f"{line}\n")

    def save_checkpoint(self, folder):
        Path(folder, "done").write_text(str(self.done))

    def load_checkpoint(self, folder):
        self.done = int(Path(folder, "done").read_text())


@pytest.fixture(scope="module")
def one_worker():
    """One GPU's worth of resources."""
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def searched(one_worker, tmp_path_factory):
    return search(tmp_path_factory.mktemp("promoting"), len(SCORES))


def search(folder, trials):
    """Search with so many trials: work done in order, the scheduler, the searcher, ends, and workers set up."""
    from search.space_file import load_space
    from tests.search.conftest import SPACE

    (folder / "space.yaml").write_text(SPACE)
    proposer = ByChance(load_space(str(folder / "space.yaml")))
    told = {}
    proposer.learn = lambda recipe, outcome: told.__setitem__(recipe.hash, outcome)
    searcher = RecipeSearcher(proposer, Budget(trials))
    scheduler = Promoting(2, 2, exhausted=lambda: searcher.exhausted)
    trainable = tune.with_parameters(Toy, log=str(folder / "log"))
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder), verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
        ),
    ).fit()  # fmt: skip
    lines = (folder / "log").read_text().splitlines()
    work = [(line.split()[0], int(line.split()[1])) for line in lines if line != "setup"]
    return work, scheduler, searcher, list(told.values()), lines.count("setup")


def test_no_rung_is_done_twice_and_the_best_half_goes_on(searched):
    work, _, searcher, *_ = searched
    assert len(set(work)) == len(work)
    by_rung = [{name for name, rung in work if rung == number} for number in range(3)]
    assert by_rung[0] == set(SCORES)
    assert by_rung[1] == {"t000", "t001", "t002", "t003"}  # floor(8 / 2)
    assert by_rung[2] == {"t000", "t003", "t001"}  # floor(4 / 2), and the best of the first two
    assert searcher.exhausted
    assert not searcher.running


def test_who_goes_on_after_the_last_trial_was_begun_finds_the_worker_warm(one_worker, tmp_path):
    """Its engines take minutes to start. Of two trials the better one waits at rung 1 until nobody else is to come."""
    work, *_, workers = search(tmp_path, 2)
    assert work == [("t000", 0), ("t001", 0), ("t001", 1), ("t001", 2)]
    assert workers == 1


def test_nobody_goes_on_for_having_come_first(searched):
    work, *_ = searched
    assert work.index(("t000", 1)) > work.index(("t003", 0))


def test_those_that_waited_are_stopped_and_told_as_such(searched):
    _, scheduler, _, told, _ = searched
    by_last = {"t000", "t001", "t003"}
    assert scheduler.stopped == set(SCORES) - by_last
    ends = sorted((one.status, one.rung, one.score) for one in told)
    wanted = [("finished", 2, 0.6), ("finished", 2, 0.7), ("finished", 2, 0.9), ("stopped", 1, 0.5)]
    assert ends == sorted(wanted + [("stopped", 0, score) for score in (0.1, 0.2, 0.3, 0.4)])


def test_one_that_waits_alone_has_the_last_word():
    class Paused:
        status, config = "PAUSED", {"name": "t000"}

    stopped = []

    class Controller:
        def get_trials(self):
            return [Paused]

        def stop_trial(self, trial):
            stopped.append(trial)

    scheduler = Promoting(2, 1, [("t000", 0, 0.5)], exhausted=lambda: True)
    assert scheduler.choose_trial_to_run(Controller()) is Paused  # else nothing would be measured in full
    scheduler.rule.see("t009", 1, 0.4)
    assert scheduler.choose_trial_to_run(Controller()) is None
    assert stopped == [Paused]
