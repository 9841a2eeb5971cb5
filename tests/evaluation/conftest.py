"""One warm engine for all tests that need a real vLLM: starting one takes longer than most of what they ask of it."""

import pytest

from evaluation.engine import Engine
from search.bench import engine_settings


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    settings = engine_settings(max_model_len=2048)
    with Engine(settings, tmp_path_factory.mktemp("engine") / "engine.log") as started:
        yield started
