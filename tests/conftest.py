"""Set before torch is imported: threads that spin at barriers slow every other test process on the machine.

One warm engine for all tests that need a real vLLM: starting one takes longer than most of what they ask of it.
"""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    from evaluation.engine import Engine
    from search.bench import engine_settings

    settings = engine_settings(max_model_len=2048)
    with Engine(settings, tmp_path_factory.mktemp("engine") / "engine.log") as started:
        yield started
