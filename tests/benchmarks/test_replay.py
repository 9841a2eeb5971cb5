"""The replay: cheaper than chance, the same from the same seed, and what Ray Tune itself would do."""

import os
from pathlib import Path
from statistics import median

import pytest
from ray import tune

from search.recipe import Recipe
from search.room import UNLIMITED, Room
from search.searchers import SEARCHERS
from tests.benchmarks.replay import Setting, default, in_order, run
from tests.benchmarks.replay_report import drawn, in_words, quantile
from tests.benchmarks.replayed import FULL, Controller, Costs, Held, Target, parts_of, replay, result_of
from tests.benchmarks.synthetic import synthetic
from tests.benchmarks.table import Row, Stage, Table

SEEDS = 5
MOST = 100  # results that Ray Tune is followed for: each takes it a fifth of a second
DEFAULT = (default("searcher"), default("scheduler"))
ETA = default("eta")


@pytest.fixture(scope="module")
def table():
    return Table.read()


@pytest.fixture(scope="module")
def costs(table):
    return Costs(table)


def test_who_learns_finds_a_good_recipe_sooner_than_chance(costs):
    """On the recorded table, where good is what all timings together say; 50 seeds are in docs/measurements.md."""

    def seconds(searcher, scheduler):
        ran = [replay(costs, searcher, scheduler, ETA, seed, pooled=True) for seed in range(SEEDS)]
        assert all(one.found for one in ran) or (searcher, scheduler) != DEFAULT
        return median(one.seconds for one in ran)

    blind = seconds("random", FULL)
    assert seconds(*DEFAULT) < 0.35 * blind  # the goal of a quarter is for 50 seeds
    assert seconds(*DEFAULT) < 0.1 * in_order(costs.table, pooled=True).all
    assert seconds("evolution", FULL) < blind


@pytest.mark.parametrize("scheduler", ["stopping", "promoting", FULL])
@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_a_seed_decides_everything(costs, searcher, scheduler):
    def some(seed):
        searching, rule = parts_of(costs.table, searcher, scheduler, ETA, seed)
        searching.budget.trials = 12
        return Controller(costs, searching, rule, 1).run(Target(costs.table))

    assert some(3) == some(3)
    assert some(3).trials <= 12
    if searcher != "grid":
        assert [one[1] for one in some(3).results] != [one[1] for one in some(4).results]


def test_several_workers_try_what_one_would_where_nothing_is_learned(costs):
    alone, three = (replay(costs, "random", FULL, ETA, 0, workers) for workers in (1, 3))
    assert alone.found and three.found
    tried, beside = ({name: recipe for name, recipe, _ in one.results} for one in (alone, three))
    assert {name: recipe for name, recipe in beside.items() if name in tried} == tried


class Looked(tune.Trainable):
    """A trial that reports what the table has of its recipe, and does no work."""

    def setup(self, config, rows=None, last=0):
        self.rows, self.last = rows, last
        self.reset_config(config)

    def reset_config(self, new_config):
        self.name, self.done = new_config["name"], 0
        self.hash = Recipe.of(new_config["recipe"]).hash
        return True

    def step(self):
        row = Row.model_validate(self.rows[self.hash][self.done])
        self.done += 1
        return result_of(self.name, row, self.last) | {"hash": self.hash}

    def save_checkpoint(self, checkpoint_dir):
        Path(checkpoint_dir, "done").write_text(str(self.done))

    def load_checkpoint(self, checkpoint):
        self.done = int(Path(checkpoint, "done").read_text())


class Noted(tune.Callback, tune.Stopper):
    """What came in which order, the first `most` of it."""

    def __init__(self, most):
        self.most, self.results = most, []

    def __call__(self, trial_id, result):
        return False

    def stop_all(self):
        return len(self.results) >= self.most

    def on_trial_result(self, iteration, trials, trial, result, **_):
        self.results.append((result["trial"], result["hash"], result["rung"]))

    def __getstate__(self):
        return {}


@pytest.fixture(scope="module")
def one_core():
    import ray

    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.parametrize("searcher, scheduler", [DEFAULT, ("evolution", "promoting"), ("evolution", "stopping")])
def test_ray_tune_does_as_the_replay(one_core, table, costs, tmp_path, monkeypatch, searcher, scheduler):
    target = Target(table, within=0.03)  # soon found: here the way counts
    searching, rule = parts_of(table, searcher, scheduler, ETA, seed=1)
    wanted = Controller(costs, *parts_of(table, searcher, scheduler, ETA, seed=1), workers=1).run(target)
    rows = {name: [row.model_dump() for row in of_one] for name, of_one in table.rows.items()}
    assert len(wanted.results) > 10
    noted = Noted(min(len(wanted.results), MOST))
    searching.room = Room(lambda: 1)
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", UNLIMITED)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(Looked, rows=rows, last=table.last_rung), {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=searching, scheduler=rule, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            verbose=0,
            callbacks=[searching.room, noted],
            stop=noted,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
        ),
    ).fit()
    assert noted.results == wanted.results[:MOST]


def row(key, seconds, reached=None, paid=None, rung=0):
    stage = {"step": "distill" if reached else "drop_layers", "key": key, "seconds": seconds}
    stages = [Stage(**stage, reached=reached, paid=paid)]
    step = {"step": "distill", "tokens": 40_000} if reached else {"step": "drop_layers", "count": 1}
    recipe = Recipe.of([step])
    return Row(recipe=recipe.canonical, recipe_hash=recipe.hash, rung=rung, status="ok", score=0.5,
               measuring_seconds=1.0, stages=tuple(stages))  # fmt: skip


def test_what_is_built_is_paid_once(table):
    same = Table.of([row("a", 10.0)], table.about)
    held = Held(Costs(same))
    assert held.seconds(row("a", 10.0)) == 11.0
    assert held.seconds(row("a", 10.0)) == 1.0


def test_training_goes_on_from_the_longest_before_it_and_takes_its_place(table):
    rows = [row("4k", 14.0, 4000, 4000, 0), row("16k", 22.0, 16000, 12000, 1), row("40k", 34.0, 40000, 24000, 2)]
    costs = Costs(Table.of(rows, table.about))
    assert costs.rate == pytest.approx(0.001)
    held = Held(costs)
    assert [held.seconds(one) for one in rows] == pytest.approx([15.0, 23.0, 35.0])
    alone = Held(costs)
    assert alone.seconds(rows[2]) == pytest.approx(35.0 + 16.0)  # what was paid before it on record
    assert alone.seconds(rows[0]) == pytest.approx(15.0)


def test_a_search_that_ended_all_it_was_to_find_has_lost(costs):
    target = Target(costs.table)
    searching, rule = parts_of(costs.table, "grid", "stopping", ETA, 0)
    rule.rule.goes_on = lambda *_: False
    ended = Controller(costs, searching, rule, 1).run(target)
    assert not ended.found
    assert ended.trials <= len(costs.table.rows)


def test_the_report_names_the_default_and_what_it_is_held_against(table, tmp_path):
    made_up = Setting(None, ETA, 1, False)
    pairs = [("random", FULL), ("evolution", "stopping"), ("grid", FULL)]
    ran = list(run(made_up, pairs, 2, 1))
    assert len(ran) == 5  # one seed is enough for what has no chance in it
    order = in_order(synthetic(), False)
    about = {"eta": ETA, "workers": 1, "seeds": 2, "best": 0.6, "machine": "none"}
    text = in_words(ran, order, ("evolution", "stopping"), about)
    assert "| **evolution** | **stopping** |" in text
    assert f"{order.all:.0f} s" in text
    assert drawn(ran, ("evolution", "stopping")).startswith("<svg")


def test_quantiles_do_not_go_between_a_number_and_forever():
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.5) == 1.5
    assert quantile([1.0, float("inf")], 0.9) == float("inf")
