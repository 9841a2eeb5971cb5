"""A run at a URI: what one machine finished, another one reads and goes on with."""

import json
from pathlib import Path

import pytest

from cluster.storage import CACHE, Remote
from search import lease, whole
from search.bench import Bench
from search.cli import plan
from search.driver import _keep_offline
from search.errors import BadInput, RunFailed
from search.home import PART, REPORTS, Home, KeptLedger
from search.job import Job
from search.ledger import Ledger
from search.lock import driving, is_worked_on
from search.places import make, places
from search.report import status_of
from search.stores import keep_base, with_base, with_shape
from search.wandb_log import WandbLog
from tests.search.conftest import end_line, rung_line


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(lease, "SETTLES", 0.1)
    monkeypatch.setattr("search.home.SETTLES", 0.1)


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/shared/runs/first"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Go to another machine: its copies lie in a folder of their own."""

    def go(name):
        monkeypatch.setenv(CACHE, str(tmp_path / name))

    go("one")
    return go


@pytest.fixture
def job(uri, machine, space, tmp_path):
    found = places(uri, None)
    make(found)
    job = Job(base=tmp_path, base_key="0", space=space, device="cpu", trials=6, **found._asdict())
    job.save()
    Ledger(job.run / "ledger.jsonl").path.touch()
    Home(uri, job.run).begin()
    return job


def test_another_machine_reads_what_was_written(job, uri, machine):
    ledger = job.ledger()
    for event in (rung_line("t000", 0, 0.5), rung_line("t000", 2, 0.6), end_line("t000", "finished")):
        ledger.append(event)
    mine = ledger.read()
    machine("two")
    there = Job.load(uri)
    assert there.run != job.run and there.store == there.run / "store"
    assert there.store_home == f"{uri}/store"
    assert Ledger(there.run / "ledger.jsonl").read() == mine
    assert status_of(there)["run"] == uri
    assert status_of(there)["best"]["trial"] == "t000"


def test_what_wandb_wrote_offline_is_where_the_run_is_kept(job, uri, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log = WandbLog(job.run / "wandb", job.name, job.id, pytest.fail)
    log.rung(rung_line("t000", 0, 0.5))
    log.close()
    _keep_offline(job, log, pytest.fail)
    (kept,) = [name for name in Remote(uri).names("wandb") if name.endswith(".wandb")]
    assert Path(kept).name == f"run-{job.id}-t000.wandb"
    assert Remote(uri).read(kept) == (job.run / kept).read_bytes() != b""
    Remote(uri).write(kept, b"sent")
    _keep_offline(job, log, pytest.fail)
    assert Remote(uri).read(kept) == b"sent"  # it is not sent again
    (tmp_path / "shared").rename(tmp_path / "away")
    (tmp_path / "shared").touch()  # out of reach
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    told = []
    _keep_offline(job, log, told.append)
    assert len(told) == 1 and told[0].startswith(f"W&B's files stay in {job.run / 'wandb'}: {uri} cannot be used")


def test_each_sitting_goes_on_with_the_ledger(job, uri, machine):
    job.ledger().append(rung_line("t000", 0, 0.5))
    machine("two")
    Job.load(uri).ledger().append(rung_line("t000", 1, 0.5))
    machine("one")
    events = Ledger(Job.load(uri).run / "ledger.jsonl").read()
    assert [event["rung"] for event in events] == [0, 1]


def test_a_part_that_is_full_is_not_sent_again(job, uri, machine):
    ledger = job.ledger()
    line = rung_line("t000", 0, 0.5) | {"padding": "x" * (PART // 3)}
    for number in range(8):
        ledger.append(line | {"trial": f"t{number:03d}"})
    parts = Remote(uri).names("ledger")
    assert len(parts) == 4  # one of run.json's beginning, and three lines in each of these
    assert all(len(Remote(uri).read(name)) < 2 * PART for name in parts)
    machine("two")
    assert len(Ledger(Job.load(uri).run / "ledger.jsonl").read()) == 8


def test_a_line_that_could_not_be_sent_is_sent_by_who_goes_on(job, uri, machine):
    job.ledger().append(rung_line("t000", 0, 0.5))
    Ledger(job.run / "ledger.jsonl").append(rung_line("t000", 1, 0.5))  # the connection was gone
    again = Job.load(uri)
    assert len(Ledger(again.run / "ledger.jsonl").read()) == 2
    machine("two")
    assert len(Ledger(Job.load(uri).run / "ledger.jsonl").read()) == 2


def test_half_a_line_did_not_happen(job, uri):
    job.ledger().append(rung_line("t000", 0, 0.5))
    with (job.run / "ledger.jsonl").open("a") as out:
        out.write('{"event": "ru')
    ledger = Job.load(uri).ledger()
    ledger.append(rung_line("t000", 1, 0.5))
    assert [event["rung"] for event in Job.load(uri).ledger().read()] == [0, 1]


def test_a_run_is_driven_until_it_is_handed_over(job, monkeypatch):
    """Else a second driver could begin while the first one exports or verifies."""
    seen = {}

    def noted(name):
        return lambda *given, **named: seen.setdefault(name, is_worked_on(job)) and ""

    for name in ("keep_base", "run_search", "write_report", "export", "_verify_where_timed"):
        monkeypatch.setattr(whole, name, noted(name))
    monkeypatch.setattr(whole, "with_base", lambda job: job)
    monkeypatch.setattr(whole, "check_suite", lambda job: None)
    whole.conclude(job, None, verified=True, as_json=True)
    assert len(seen) == 5 and all(seen.values())
    assert not is_worked_on(job)


def test_who_goes_on_reads_what_was_written_until_it_is_his_turn(job, uri, machine):
    machine("two")
    late = Job.load(uri)
    machine("one")
    job.ledger().append(rung_line("t000", 0, 0.5))  # the other driver ends only now
    machine("two")
    with driving(late):
        late.catch_up()
        late.ledger().append(rung_line("t000", 1, 0.5))
    machine("three")
    assert [event["rung"] for event in Job.load(uri).ledger().read()] == [0, 1]


def test_of_two_that_write_at_once_neither_overwrites_the_other(job, uri):
    first, second = job.ledger(), KeptLedger(job.run / "other.jsonl", Remote(uri))
    first.append(rung_line("t000", 0, 0.5))
    second.append(rung_line("t001", 0, 0.5))
    assert len(Remote(uri).names("ledger")) == 3


def test_a_driver_that_slept_takes_nothing_back(job, uri, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED", 0.05)
    taken = json.dumps({"host": "elsewhere", "pid": 1, "id": "another", "time": lease.time.time()}).encode()
    with driving(job):
        Remote(uri).write(lease.NAME, taken)
        lease.time.sleep(0.3)
    assert Remote(uri).read(lease.NAME) == taken


def test_a_report_hands_over_nothing_old(job, uri, machine):
    job.ledger().append(rung_line("t000", 2, 0.6))
    (job.run / "submit.zip").write_text("of an earlier sitting")
    Remote(uri).write("submit.zip", b"of a later one")
    job.keep(REPORTS)
    assert Remote(uri).read("submit.zip") == b"of a later one"


def test_answers_of_an_earlier_run_at_the_same_uri_are_not_read(job, machine):
    for run, left in ((job, True), (job, True), (job.model_copy(update={"id": "another"}), False)):
        with Bench(run):
            assert (job.run / "answers" / "kept").exists() is (left and run is job and (job.run / "seen").exists())
        (job.run / "answers").mkdir(exist_ok=True)
        (job.run / "answers" / "kept").touch()
        (job.run / "seen").touch()


def test_two_ledgers_that_went_apart_are_not_merged(job, uri, machine):
    job.ledger().append(rung_line("t000", 0, 0.5))
    (job.run / "ledger.jsonl").write_text(json.dumps(rung_line("t009", 0, 0.1)) + "\n")
    with pytest.raises(RunFailed, match="two drivers wrote it"):
        Job.load(uri)


def test_one_driver_on_all_machines(job, uri, machine, monkeypatch):
    with driving(job):
        machine("two")
        monkeypatch.setattr(lease, "machine", lambda: "elsewhere")
        other = Job.load(uri)
        assert status_of(other)["working"]
        with pytest.raises(BadInput, match=f"another squeeze works on {uri}, process .*over in"), driving(other):
            pass
    assert not status_of(other)["working"]
    with driving(other):
        pass


def test_a_driver_that_was_killed_is_gone_in_a_while(job, uri, monkeypatch):
    word = {"host": "elsewhere", "pid": 1, "id": "x", "time": lease.time.time() - lease.EXPIRES - 1}
    Remote(uri).write(lease.NAME, json.dumps(word).encode())
    with driving(job):
        assert lease.at_work(Remote(uri)) is not None


def test_a_driver_that_died_on_this_machine_is_gone_at_once(job, uri):
    word = {"host": "h", "machine": lease.machine(), "pid": 2**22 + 1, "id": "x", "time": lease.time.time()}
    Remote(uri).write(lease.NAME, json.dumps(word).encode())
    assert lease.at_work(Remote(uri)) is None


def test_another_machine_of_the_same_name_is_another_one(job, uri):
    word = {"host": lease.platform.node(), "machine": "another", "pid": 2**22 + 1, "id": "x", "time": lease.time.time()}
    Remote(uri).write(lease.NAME, json.dumps(word).encode())
    assert lease.at_work(Remote(uri)) is not None


def test_of_two_searches_that_begin_at_one_place_the_last_one_has_it(job, uri, machine, monkeypatch):
    """The other one came between: both had seen an empty place."""
    machine("two")
    late = job.model_copy(update={"id": "late", "run": places(f"{uri}-later", None).run})
    late.run.mkdir(parents=True)
    late.save()
    monkeypatch.setattr("search.home.time.sleep", lambda _: Remote(uri).send(job.run / "run.json", "run.json"))
    with pytest.raises(BadInput, match=r"another search began at .* at the same time: give another --out"):
        Home(uri, late.run).begin()


def test_looking_at_a_run_leaves_its_ledger_alone(job, uri):
    """Whoever asks for its status on the driver's own machine reads the file that the driver writes."""
    with driving(job):
        KeptLedger(job.run / "ledger.jsonl", Remote(uri)).append(rung_line("t000", 0, 0.5))
        Ledger(job.run / "ledger.jsonl").append(rung_line("t000", 1, 0.5))  # not sent yet
        assert len(Ledger(Job.load(uri).run / "ledger.jsonl").read()) == 2
        assert len(Remote(uri).names("ledger")) == 2


def test_what_is_no_run(uri, machine):
    with pytest.raises(BadInput, match="is not a run"):
        Job.load(uri)


def test_a_lost_ledger(job, uri):
    for name in Remote(uri).names("ledger"):
        Remote(uri).remove(name)
    with pytest.raises(BadInput, match="has lost its ledger"):
        Job.load(uri)


def test_a_place_that_is_taken(job, uri):
    with pytest.raises(BadInput, match="holds a run already: go on with `squeeze resume file://"):
        places(uri, None)
    Remote(uri).remove("run.json")
    with pytest.raises(BadInput, match="is not empty"):
        places(uri, None)


@pytest.mark.parametrize("place", ["s3://key:secret@bucket/x", "s3://bucket/x?secret_key=abc"])
def test_keys_belong_into_the_environment(place):
    with pytest.raises(BadInput, match="credentials in the environment") as fault:
        places(place, None)
    assert "secret@" not in str(fault.value) and "abc" not in str(fault.value)


def test_a_place_out_of_reach(tmp_path):
    with pytest.raises(BadInput, match=r"--store: carrier://x is no place squeeze knows"):
        places(str(tmp_path / "run"), "carrier://x")


def test_the_base_comes_from_the_store_where_a_machine_lacks_it(job, uri, machine, tmp_path):
    from compressors.artifact import base_artifact
    from search.bases import find_base

    base = tmp_path / "model"
    base.mkdir()
    for path in find_base("tiny").iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    job = job.model_copy(update={"base": base, "base_name": str(base), "base_key": base_artifact(base).key})
    keep_base(job)
    machine("two")
    base.rename(tmp_path / "gone")
    found = with_base(job.here())
    assert found.base.is_relative_to(tmp_path / "two")
    assert base_artifact(found.base).key == job.base_key
    alone = job.model_copy(update={"store_home": ""})
    with pytest.raises(BadInput, match="is gone: bring it back"):
        with_base(alone)


def test_a_base_is_found_again_by_its_name(job, tmp_path):
    from compressors.artifact import base_artifact
    from search.bases import find_base

    tiny = find_base("tiny")
    moved = job.model_copy(
        update={"base": tmp_path / "upload", "base_name": "tiny", "base_key": base_artifact(tiny).key}
    )
    assert with_base(moved).base == tiny


def test_who_only_looks_needs_the_config_alone(job, machine, tmp_path):
    from compressors.artifact import base_artifact
    from compressors.shape import read_shape
    from search.bases import find_base

    tiny = find_base("tiny")
    job = job.model_copy(update={"base": tiny, "base_key": base_artifact(tiny).key})
    keep_base(job)
    machine("two")
    away = job.model_copy(update={"base": tmp_path / "on-the-head"}).here()
    seen = with_shape(away)
    assert read_shape(seen.base) == read_shape(tiny)
    assert [path.name for path in seen.base.iterdir()] == ["config.json"]
    assert with_shape(away.model_copy(update={"store_home": ""})).base == away.base


def test_a_plan_looks_into_folders_alone():
    with pytest.raises(BadInput, match="--store s3://b/x: a plan looks into a store's folder"):
        plan("demo", "tiny", "s3://b/x")
