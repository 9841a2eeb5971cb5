"""A search over four hosts that loses a host in each stage, then its head, and ends as if nothing had been.

Hosts have addresses and disks of their own; what they share is a bucket of a real S3 server. Real compression and real
engines on the reference model `tiny`. All of it is one story, told once; each test asks for one thing of it.
"""

import re
import time
from collections import Counter
from typing import NamedTuple

import pytest

from tests.cluster.hosts import BIN, hosts, wait_for
from tests.cluster.network import network
from tests.cluster.runs import Diary, KeptRun, Seen, asked_once, builds, rungs
from tests.storage import s3_server

pytestmark = [pytest.mark.alone, pytest.mark.timeout(1500)]
TRIALS, RUNGS, NODES = 4, 2, 4
MOST = 2  # hosts that one trial loses: the fourth without a finished rung ends it
SPACE = """
steps:
  - {step: drop_layers, count: [1, 2, 3, 4]}
  - {step: distill, tokens: [6000]}
  - {step: quantize, scheme: [W8A8], method: [rtn]}
evaluation: {limit: 8, benchmarks: {kmmlu_redux: "reference:items/kmmlu_redux.jsonl"}}
calibration: reference:text/calibration.jsonl
rungs: [{items: 0.5, tokens: 0.5}, {items: 1.0, tokens: 1.0}]
eta: 1.0001
searcher: grid
passes: 2
timing_seconds: 0
finalists: 0
trials: 4
max_model_len: 1024
"""
STAGES = {  # by the last line of a host's diary
    "prune": r"drop_layers: (building|layers)",
    "distill": r"distill: (building|\d)",
    "quantize": r"quantize: building",
    "evaluate": r"measuring",
    "notice": r"measuring",
}
FAULTS = ("prune", "distill", "quantize", "publish", "evaluate", "notice")
NOTICE = 6  # seconds from a spot notice to the end of the machine
DRAIN = (
    "import ray, subprocess; ray.init({cluster!r}, log_to_driver=False);"
    " (node,) = [one['NodeID'] for one in ray.nodes() if one['NodeManagerAddress'] == {address!r}];"
    " ray.shutdown(); subprocess.run([{ray!r}, 'drain-node', '--address', {cluster!r}, '--node-id', node, '--reason',"
    " 'DRAIN_NODE_REASON_PREEMPTION', '--reason-message', 'spot', '--deadline-remaining-seconds', '{seconds}'],"
    " check=True)"
)


class Fault(NamedTuple):
    """What was kept and begun when a host was lost."""

    kind: str
    trials: set  # that were at work on what was lost
    kept: Seen
    begun: Counter  # artifacts, by how often they had been begun to be built
    lost: set  # those that were begun on what was lost, and not kept


class Told(NamedTuple):
    faults: list
    after: Seen
    built: Counter
    first: str  # what the first driver said
    second: str
    artifacts: list  # the provenance of each


class Search:
    """The search as it goes on, and whoever makes it lose hosts."""

    def __init__(self, made, kept):
        self.hosts, self.kept = made, kept
        self.head = made.head("head")
        (self.head.disk / "space.yaml").write_text(SPACE)
        self.nodes = [made.node(f"node{number}", self.head) for number in range(NODES)]
        self.driver = self.head.start(
            BIN / "squeeze", "search", "space.yaml", "--base", "tiny", "--out", kept.uri, "--address",
            self.head.cluster, "--no-verify",
        )  # fmt: skip
        self.pending, self.hits, self.faults = list(FAULTS), Counter(), []

    def told(self):
        return "\n".join(f"== {host.name}: {Diary(host).now()}\n{host.said()}" for host in self.hosts.all)

    def lose_one_in_each_stage(self):
        end = time.monotonic() + 900
        while self.pending:
            assert self.driver.poll() is None, f"it ended before {self.pending} came\n{self.told()}"
            assert time.monotonic() < end, f"{self.pending} did not come\n{self.told()}"
            half = self.half_sent() if "publish" in self.pending else set()
            for host in list(self.nodes):
                for kind in self.pending:
                    if self.is_in(host, kind, half):
                        self.strike(host, kind)
                        break
            time.sleep(0.02)

    def is_in(self, host, kind, half):
        trial, doing = Diary(host).now()
        if not trial or self.hits[trial] == MOST:
            return False
        if kind == "publish":
            return any(list(host.disk.glob(f"cache/*/store/artifacts/{key}")) for key in half)
        return re.match(STAGES[kind], doing) is not None

    def half_sent(self):
        """Artifacts of which the bucket holds something, and not all: their provenance comes last."""
        names = [name.split("/") for name in self.kept.names("store/artifacts/")]
        return {parts[2] for parts in names} - {parts[2] for parts in names if parts[3] == "provenance.json"}

    def strike(self, host, kind):
        trial = Diary(host).now()[0]
        if kind == "notice":
            self.give_notice(host)
        host.freeze()
        half = self.half_sent() if kind == "publish" else set()
        if kind != "notice" and not self.is_in(host, kind, half):  # it went on while it was being stopped
            host.thaw()
            return
        self.note(kind, {trial}, [host])
        self.nodes.remove(host)
        host.kill()
        self.pending.remove(kind)
        if len(self.nodes) < 2:
            self.nodes.append(self.hosts.node(f"node{len(self.hosts.all)}", self.head))

    def give_notice(self, host):
        """As the watcher of a spot market does: the node takes nothing new, and is gone at its time."""
        given = {"cluster": self.head.cluster, "address": host.address, "ray": str(BIN / "ray"), "seconds": NOTICE}
        code, told = self.head.ran(BIN / "python", "-c", DRAIN.format(**given))
        assert code == 0, told
        time.sleep(NOTICE)

    def note(self, kind, trials, lost):
        self.hits.update(trials)
        kept = self.kept.seen()
        self.faults.append(Fault(kind, trials, kept, builds(self.hosts.all), set(builds(lost)) - kept.built))

    def lose_the_head(self):
        wait_for(lambda: any(Diary(host).now()[0] for host in self.nodes), self.told)
        lost = [self.head, *self.nodes]
        for host in lost:
            host.freeze()
        self.note("head", {Diary(host).now()[0] for host in self.nodes} - {""}, self.nodes)
        self.log = self.driver.log
        for host in lost:
            host.kill()

    def go_on_elsewhere(self):
        """On a new head that knows the run's place alone.

        Hosts share a kernel, so the old driver is seen to be dead; on machines apart its word has to run out first.
        """
        head = self.hosts.head("another")
        for number in range(2):
            self.hosts.node(f"late{number}", head)

        def resumed():
            code, told = head.ran(
                BIN / "squeeze", "resume", self.kept.uri, "--address", head.cluster, "--no-verify", seconds=600
            )
            if code == 2 and "another squeeze works on" in told:
                time.sleep(5)
                return None
            assert code == 0, f"{told}\n{self.told()}"
            return told

        return wait_for(resumed, self.told, 900)


@pytest.fixture(scope="module")
def told():
    with network() as net, s3_server(net.address) as storage, hosts(storage, net) as made:
        search = Search(made, KeptRun("faults", storage))
        search.lose_one_in_each_stage()
        search.lose_the_head()
        second = search.go_on_elsewhere()
        return Told(
            search.faults, search.kept.seen(), builds(made.all), search.log.read_text(), second,
            search.kept.provenances(),
        )  # fmt: skip


def test_every_trial_is_measured_on_every_rung_once(told):
    assert rungs(told.after.ledger) == {(f"t{trial:03}", rung): 1 for trial in range(TRIALS) for rung in range(RUNGS)}
    ends = [event["status"] for event in told.after.ledger if event["event"] == "end"]
    assert ends == ["finished"] * TRIALS


def test_a_host_was_lost_in_each_stage_and_the_head_last(told):
    assert sorted(fault.kind for fault in told.faults[:-1]) == sorted(FAULTS)
    assert told.faults[-1].kind == "head"
    assert all(fault.trials for fault in told.faults)


def test_what_was_kept_is_never_built_again(told):
    for fault in told.faults:
        again = {key for key in fault.kept.built if told.built[key] > fault.begun[key]}
        assert not again, fault.kind


def test_nothing_is_built_more_often_than_it_was_lost(told):
    lost = Counter(key for fault in told.faults for key in fault.lost)
    assert all(times <= 1 + lost[key] for key, times in told.built.items())


def test_training_goes_on_from_the_rung_before_wherever_that_was_done(told):
    trained = [one for one in told.artifacts if one["step"]["step"] == "distill" and one["step"]["tokens"] == 6000]
    assert len(trained) == TRIALS
    assert all(one["continued_from"] for one in trained)


def test_no_question_is_asked_again(told):
    for fault in told.faults:
        assert asked_once(fault.kept.answers, told.after.answers), fault.kind


def test_no_line_of_the_ledger_is_lost(told):
    for fault in told.faults:
        assert fault.kept.ledger == told.after.ledger[: len(fault.kept.ledger)], fault.kind


def test_lost_hosts_are_told_and_counted_against_no_trial(told):
    moved = re.findall(r"(t\d+): its node is gone; it goes on elsewhere", told.first)
    struck = Counter(name for fault in told.faults[:-1] for name in fault.trials)
    # the last host went together with the head, before anyone could tell
    assert sum((struck - Counter(moved)).values()) <= 1
    assert "its worker failed" not in told.first + told.second
