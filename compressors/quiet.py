"""Keeps the progress bars and log lines of transformers and llmcompressor out of ours. Hides no errors.

Warnings that matter are read by who asked for the work: see `warnings_heard`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def no_bars() -> Iterator[None]:
    """No tqdm bars, of whatever library, while this lasts."""
    from tqdm.std import tqdm

    begin = tqdm.__init__

    def begin_hidden(bar: tqdm, *args: Any, **settings: Any) -> None:
        begin(bar, *args, **{**settings, "disable": True})

    with mock.patch.object(tqdm, "__init__", begin_hidden):
        yield


def errors_only() -> None:
    """Let llmcompressor and compressed-tensors log errors only, to stderr: stdout belongs to `--json`.

    llmcompressor configures loguru for the whole process when it is imported, with a sink on stdout, and
    warns while it does so; hence the import here, under its own setting.
    """
    with mock.patch.dict(os.environ, {"LLM_COMPRESSOR_LOG_LEVEL": "ERROR"}):
        import llmcompressor  # noqa: F401 - for its effect on loguru
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR")


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """The texts of llmcompressor's warnings while this lasts, as they come, wherever its log goes or not."""
    from loguru import logger

    heard: list[str] = []
    logger.enable("llmcompressor")  # LLM_COMPRESSOR_LOG_DISABLED stops its messages before any sink
    sink = logger.add(lambda message: heard.append(message.record["message"]), level="WARNING")
    try:
        yield heard
    finally:
        logger.remove(sink)
