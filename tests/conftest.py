"""Set before torch is imported: threads that spin at barriers slow every other test process on the machine.

One warm engine for all tests that need a real vLLM: starting one takes longer than most of what they ask of it. The
longest files go first, so that no worker is left with one of them while the other has nothing more to do.
"""

import gc
import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LONGEST = ("test_whole", "test_presets", "test_readers", "test_contest", "test_figures", "test_single")


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def set_aside():
    """Whatever stays after a test, imports above all, is not gone through by each of the next ones' collections."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    from evaluation.engine import Engine
    from search.serving import engine_settings

    settings = engine_settings(max_model_len=2048).model_copy(update={"max_logprobs": 512})
    with Engine(settings, tmp_path_factory.mktemp("engine") / "engine.log") as started:
        yield started


@pytest.fixture(scope="session")
def engine(served):
    """The same, where no other fixture has that name."""
    return served
