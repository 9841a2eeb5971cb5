"""How many trials are begun at a time."""

from types import SimpleNamespace

import pytest

from search.budget import Budget
from search.room import LONG, Room
from search.searchers.chance import ByChance
from search.tune_searcher import RecipeSearcher


def in_state(*statuses):
    return [SimpleNamespace(status=status, trial_id=str(number)) for number, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("trials", "begun"),
    [
        ([], 4),  # three at work and one that waits
        (["RUNNING", "RUNNING"], 2),
        (["RUNNING", "RUNNING", "RUNNING", "PENDING"], 0),
        (["PENDING", "PENDING", "PENDING"], 1),
        (["RUNNING", "PAUSED", "TERMINATED", "ERROR"], 2),  # the paused one goes on before a second new one
        (["RUNNING", "RUNNING", "PENDING", "PAUSED"], 0),
        (["RUNNING", "RUNNING", "RUNNING", "PAUSED"], 1),
    ],
)
def test_as_many_as_nodes_hold_and_one_that_waits(space, trials, begun):
    room = Room(lambda: 3)
    searcher = RecipeSearcher(ByChance(space), Budget(100), room=room)
    room.on_step_begin(iteration=0, trials=in_state(*trials))
    asked = [searcher.suggest(str(number)) for number in range(6)]
    assert [isinstance(one, dict) for one in asked] == [True] * begun + [False] * (6 - begun)


def test_nodes_that_join_are_used(space):
    nodes = 1
    room = Room(lambda: nodes)
    searcher = RecipeSearcher(ByChance(space), Budget(100), room=room)
    room.on_step_begin(iteration=0, trials=in_state("RUNNING", "PENDING"))
    assert searcher.suggest("x") is None
    nodes = 2
    assert isinstance(searcher.suggest("y"), dict)


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        (["PENDING"], 0),
        (["RUNNING", "RUNNING", "TERMINATED", "PENDING", "PENDING"], 3),  # the third worker is free: who waits longest
        (["RUNNING", "TERMINATED", "PENDING", "PENDING", "PENDING"], 3),  # one is starting for the first of the three
        (["PENDING", "PENDING", "PENDING"], 2),
        (["RUNNING", "RUNNING", "RUNNING", "PENDING", "PENDING"], 3),  # none is free
        (["PENDING", "PENDING", "RUNNING"], 1),  # the last worker is starting, no trial waits for another
    ],
)
def test_a_free_worker_is_for_the_first_for_whom_none_is_starting(trials, chosen):
    room, trials = Room(lambda: 3), in_state(*trials)
    room.on_step_begin(iteration=0, trials=trials)
    assert room.next_of([one for one in trials if one.status == "PENDING"]) is trials[chosen]


def test_whoever_waits_for_a_worker_that_never_comes_gets_one_in_the_end(monkeypatch):
    """Others hold three of the four places that Ray counts."""
    now = [0.0]
    monkeypatch.setattr("search.room.time.monotonic", lambda: now[0])
    room, trials = Room(lambda: 4), in_state("RUNNING", "PENDING", "PENDING", "PENDING")
    chosen = []
    for now[0] in (0.0, LONG - 1, LONG + 1):
        room.on_step_begin(iteration=0, trials=trials)
        chosen.append(room.next_of(trials[1:]).trial_id)
    assert chosen == ["3", "3", "1"]


def test_a_search_that_is_over_says_so_once_there_is_room(space):
    room = Room(lambda: 1)
    searcher = RecipeSearcher(ByChance(space), Budget(0), room=room)
    room.on_step_begin(iteration=0, trials=in_state("RUNNING", "PENDING"))
    assert searcher.suggest("x") is None
    room.on_step_begin(iteration=1, trials=in_state("TERMINATED", "TERMINATED"))
    assert searcher.suggest("y") == "FINISHED"
