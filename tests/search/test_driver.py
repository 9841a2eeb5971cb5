"""A Ray that does not start or is not there ends the command in one line that says what to do."""

import socket

import pytest
import ray

from search import joining
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
    with pytest.raises(RunFailed, match=r"no Ray cluster at nowhere:1:2 \(.*\)\. Start it, or give another --address"):
        start_ray("nowhere:1:2", tmp_path / "run")


def test_where_nobody_answers_ray_is_not_asked(tmp_path, monkeypatch):
    """It would say nothing for 20 s and heed no interrupt meanwhile."""
    monkeypatch.setattr(joining, "KNOCKS", 0.0)
    monkeypatch.setattr(ray, "init", lambda **words: pytest.fail("asked"))
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(RunFailed, match=rf"no Ray cluster at {address}: nothing answers there\. Start it"):
            start_ray(address, tmp_path / "run")
        bound.listen()
        assert joining.answers(address)
    assert joining.answers("auto") and joining.answers("ray://head:10001")  # Ray's to find
    assert not joining.answers("127.0.0.1:99999", 0.0) and not joining.answers("head..x:6379", 0.0)
