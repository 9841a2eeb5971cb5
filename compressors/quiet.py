"""Keeps the progress bars and log lines of transformers and llmcompressor out of ours. Hides no errors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def no_bars() -> Iterator[None]:
    """No tqdm bars, of whatever library, while this lasts."""
    import tqdm

    bar = tqdm.std.tqdm
    with mock.patch.object(bar, "__init__", functools.partialmethod(bar.__init__, disable=True)):
        yield


def errors_only() -> None:
    """Let llmcompressor and compressed-tensors log errors only, to stderr: stdout belongs to `--json`.

    llmcompressor configures loguru for the whole process when it is imported; call this after that.
    """
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR")
