"""Workers that start slowly are not undone by trials that end soon: Ray Tune's own controller, on two places."""

import json
import time
from pathlib import Path

import pytest
import ray
from ray import tune

from search.budget import Budget
from search.room import UNLIMITED, Room
from search.schedulers import SCHEDULERS
from search.searchers.chance import ByChance
from search.tune_searcher import RecipeSearcher

TRIALS = 12


class Slow(tune.Trainable):
    """The first worker starts at once, the second in the time of many trials."""

    def setup(self, config, folder=None):
        self.folder = Path(folder)
        with (self.folder / "begun").open("a") as file:
            file.write("x")
        if (self.folder / "begun").stat().st_size > 1:
            time.sleep(3)
        (self.folder / f"started-{time.time()}").touch()
        self.reset_config(config)

    def reset_config(self, config):
        self.name = config["name"]
        return True

    def step(self):
        time.sleep(0.5 if len(list(self.folder.glob("started-*"))) < 2 else 0.05)
        line = {"event": "rung", "trial": self.name, "recipe": self.config["recipe"], "rung": 0, "score": 0.5}
        return {"trial": self.name, "rung": 0, "score": 0.5, "status": "finished", "event": json.dumps(line)}

    def save_checkpoint(self, folder):
        """Nothing to keep."""

    def load_checkpoint(self, checkpoint):
        """Nothing to read."""


@pytest.fixture
def two_places():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_a_worker_that_is_starting_is_not_ended_by_one_that_is_free(two_places, space, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", UNLIMITED)
    room = Room(lambda: 2)
    searcher = RecipeSearcher(ByChance(space), Budget(TRIALS), room=room)
    scheduler = SCHEDULERS["stopping"](2, 1, room=room)
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(Slow, folder=str(tmp_path)), {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0, callbacks=[room]),
    ).fit()
    assert len(results) == TRIALS
    assert (tmp_path / "begun").read_text() == "xx"
