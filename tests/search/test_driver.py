"""A Ray that does not start or is not there ends the command in one line that says what to do."""

import pytest
import ray

from search.errors import RunFailed
from search.joining import start_ray


def test_a_node_that_does_not_start_is_told(tmp_path, monkeypatch):
    """Its files cannot be written: no ConnectionError, as its time-out is none."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    with pytest.raises(RunFailed, match=r"Ray does not start here \(.*\): see .*, then `squeeze resume .*run`") as told:
        start_ray(None, tmp_path / "run")
    assert len(str(told.value).splitlines()) == 1
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RunFailed, match=r"no Ray cluster at nowhere:1:2 \(.*\): start it, or give another --address"):
        start_ray("nowhere:1:2", tmp_path / "run")
