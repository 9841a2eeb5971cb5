import pickle
import stat
from pathlib import Path

import boto3
import pytest

from cluster.storage import CACHE, BadPlace, Remote, StorageFault, is_uri, joined, mirror_of
from tests.storage import BUCKET, s3_server


@pytest.fixture(scope="module")
def s3():
    with s3_server() as environment:
        yield environment


@pytest.fixture(params=["file", "s3"])
def remote(request, tmp_path, monkeypatch):
    """One folder of each kind, empty."""
    if request.param == "file":
        return Remote(f"file://{tmp_path}/there")
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return Remote(f"s3://{BUCKET}/{tmp_path.name}")


def test_what_is_written_is_read(remote):
    assert remote.read("a/b.json") is None
    remote.write("a/b.json", b"one")
    remote.write("a/b.json", b"two")
    assert remote.read("a/b.json") == b"two"
    assert remote.under("a").read("b.json") == b"two"
    remote.write("empty", b"")
    assert remote.read("empty") == b""


def test_files_go_there_and_back(remote, tmp_path):
    content = bytes(range(256)) * 100_000  # more than a chunk, and more than a part of S3's uploads
    (tmp_path / "mine").write_bytes(content)
    remote.send(tmp_path / "mine", "deep/down/yours")
    assert remote.fetch("deep/down/yours", tmp_path / "back" / "mine")
    assert (tmp_path / "back" / "mine").read_bytes() == content
    assert not remote.fetch("nothing", tmp_path / "back" / "nothing")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["mine"]  # no half of one is left


def test_names_are_of_files_below_a_folder(remote):
    for name in ("x/1", "x/y/2", "z"):
        remote.write(name, b"")
    assert remote.names() == ["x/1", "x/y/2", "z"]
    assert remote.names("x") == ["x/1", "x/y/2"]
    assert remote.names("nothing") == []
    remote.remove("x/1")
    remote.remove("x/1")
    assert remote.names("x") == ["x/y/2"]


def test_another_process_opens_it_anew(remote):
    remote.write("a", b"1")
    assert pickle.loads(pickle.dumps(remote)).read("a") == b"1"
    assert b"nothing" not in pickle.dumps(remote)  # the key


def test_it_is_checked_by_writing(remote):
    remote.check()
    assert remote.names() == []


def test_what_lies_there_is_what_other_clients_see(s3, monkeypatch):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    Remote(f"s3://{BUCKET}/seen").write("a/b", b"content")
    client = boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"], region_name="us-east-1")
    assert client.get_object(Bucket=BUCKET, Key="seen/a/b")["Body"].read() == b"content"


def test_a_bucket_that_is_not_there_is_named_with_what_to_do(s3, monkeypatch):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageFault, match=r"s3://elsewhere/x cannot be used .*credentials"):
        Remote("s3://elsewhere/x").check()


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageFault, match="cannot be used"):
        Remote(f"file://{tmp_path}/file", tries=1).write("a", b"")


def test_an_unknown_kind_of_place():
    with pytest.raises(BadPlace, match="carrier://pigeon"):
        Remote("carrier://pigeon").read("a")
    with pytest.raises(BadPlace, match="s3:// names no bucket"):
        Remote("s3://").read("a")


@pytest.mark.parametrize(
    ("said", "tries", "later"),
    [("AWS Error ACCESS_DENIED", 2, 5), ("Bucket 'typo' not found", 2, 5), ("AWS Error SLOW_DOWN", 5, 5)],
)
def test_what_no_try_mends_is_tried_twice(tmp_path, monkeypatch, said, tries, later):
    """A key that is wrong is told at once, a server that is busy is waited for; so is one that has let us in."""
    remote, asked = Remote(f"file://{tmp_path}", tries=5), []

    def refuse(name):
        asked.append(name)
        raise OSError(said)

    monkeypatch.setattr(remote, "_content", refuse)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    with pytest.raises(StorageFault, match=said):
        remote.read("a")
    assert len(asked) == tries
    remote.write("b", b"")
    asked.clear()
    with pytest.raises(StorageFault, match=said):
        remote.read("a")
    assert len(asked) == later


def test_places():
    assert is_uri("s3://bucket/x") and not is_uri("runs/x") and not is_uri("/abs")
    assert joined("s3://b/x/", "store") == "s3://b/x/store"
    assert joined("s3://b/x?scheme=http", "store") == "s3://b/x/store?scheme=http"


def test_copies_lie_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, str(tmp_path))
    mine = mirror_of("s3://bucket/runs/first")
    assert mine.parent == tmp_path and mine.name.startswith("first-")
    assert mine == mirror_of("s3://bucket/runs/first/") != mirror_of("s3://other/runs/first")
    monkeypatch.delenv(CACHE)
    assert mirror_of("s3://b/x").is_relative_to(Path.home())


def test_a_file_system_shows_no_half_of_a_file(tmp_path):
    remote = Remote(f"file://{tmp_path}")
    remote.write("a", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert stat.S_ISREG((tmp_path / "a").stat().st_mode)
