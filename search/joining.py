"""Beginning with Ray: the cluster that is joined or begun, what it times on, and which of its nodes are fit."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.fleet import Fleet
from cluster.kinds import Kind, hardware, most_frequent
from cluster.nodes import NodeReport, expected_like, look_here
from cluster.resources import KIND, SHARE, find_device
from evaluation.devices import TOLD, DeviceName
from search.errors import RunFailed
from search.job import Job

WAIT = 2400.0  # seconds for the first node: a cloud's machine has two environments to install before it joins
STARTS = 3  # of a Ray of our own, on a machine that is too busy for it to start in Ray's time
KNOCKS = 5.0  # seconds, at a port where nobody answers: Ray itself says nothing for 20, and heeds no interrupt
THERE = "Start it, or give another --address; one with a token wants RAY_AUTH_MODE=token here, too"
TOO_SLOW = "timed out during startup"  # what Ray says then
RAY_NAMES: dict[DeviceName, str] = {"L4": "L4", "H100": "H100", "A100": "A100", "RTX 4090": "GeForce-RTX-4090"}


def cluster_address(address: str | None) -> str | None:
    """Of the cluster that is meant; None for a Ray of our own on this machine."""
    return address or os.environ.get("RAY_ADDRESS") or None


def answers(address: str, seconds: float | None = None) -> bool:
    """Whether something listens at HOST:PORT; of any other address Ray knows better."""
    found = re.fullmatch(r"([\w.-]+):(\d{1,5})", address)
    if found is None:
        return True
    until = time.monotonic() + (KNOCKS if seconds is None else seconds)
    while True:
        try:
            socket.create_connection((found[1], int(found[2])), max(1.0, until - time.monotonic())).close()
            return True
        except (OSError, OverflowError, ValueError):  # nobody there, no such host, no such port, no name of a host
            if time.monotonic() > until:
                return False
            time.sleep(0.2)


def start_ray(address: str | None, run: Path) -> None:
    """Join the cluster at `address`, or begin one here. Raises `RunFailed`."""
    import logging

    import ray

    from search.room import UNLIMITED

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", UNLIMITED)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would let anyone's job slow what we time
    # each trial that goes on elsewhere would be a traceback; what there is to say of it the driver says in a line
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # of an interrupt it names Tune's trials; we, ours
    address = cluster_address(address)
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # "local": with no address at all Ray would join whatever cluster was started last on this machine
    where = {"address": address} if address else {"address": "local", "include_dashboard": False}
    if address and not answers(address):
        raise RunFailed(f"no Ray cluster at {address}: nothing answers there. {THERE}")
    for left in reversed(range(1 if address else STARTS)):
        try:
            ray.init(**where, **common)
            return
        except Exception as fault:  # a node that takes longer than 30 s to start is a bare Exception of Ray's
            ray.shutdown()
            if left and TOO_SLOW in str(fault):
                continue
            words = f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
            if address:
                raise RunFailed(f"no Ray cluster at {address} ({words}). {THERE}") from fault
            remedy = "see that the machine has memory and processors to spare and that no other Ray hangs (`ray stop`)"
            raise RunFailed(f"Ray does not start here ({words}): {remedy}, then `squeeze resume {run}`") from fault


def hardware_of(address: str | None, target: DeviceName | None, run: Path, gpus: int = 1) -> tuple[str, str]:
    """What a search is timed on: cuda or cpu, and Ray's name of the GPU to ask a cluster for.

    Of this machine where no cluster is meant. Of a mixed one the space's `target`, where a node has it, else what most
    nodes have; where no node has anything to give yet, GPUs, the `target` if there is one.
    Raises `RunFailed` where the cluster cannot be joined.
    """
    if cluster_address(address) is None:
        return find_device(), ""
    import ray

    start_ray(address, run)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
    if not any(node.get("GPU", 0) >= 1 or node.get("CPU", 0) >= 1 for node in nodes):  # an autoscaler's, or yet to join
        return "cuda", RAY_NAMES[target] if target is not None else ""
    return hardware(nodes, [RAY_NAMES[target]] if target is not None else [], gpus)


def fleet_for(
    job: Job, address: str | None, measured: Iterable[Mapping[str, Any]], say: Callable[[str], None]
) -> Fleet:
    """The nodes of the Ray that was joined, looked at; on a Ray of our own there is only this machine.

    `measured` are the ledger's lines of earlier sittings. Raises `RunFailed` where no node is fit.
    """
    joined = cluster_address(address)
    if joined is None:
        fleet = Fleet(None, job.device, say, gpus=job.space.gpus)
        fleet.settle()
        return fleet
    engine, measured_on = job.space.engine, {line["device"] for line in measured if line.get("device")}
    here = NodeReport.model_validate(look_here())
    own = _own_folders(job)
    expected = expected_like(here, engine, job.device).model_copy(update={"files": (*own, *read_by_trials(job))})
    fleet = Fleet(expected, job.device, say, gpus=job.space.gpus)
    say("looking at the cluster's nodes")
    fleet.settle()
    if all(node.small for node in fleet.known.values()):  # an autoscaler may have larger ones to start
        _await_a_node(fleet, job, say)
    _refuse_if_unshared(fleet, own)
    kind = _chosen([node.kind for node in fleet.fit() if node.kind is not None], job, measured_on)
    if kind is None:
        raise RunFailed(_none_fit(fleet, job, measured_on, joined))
    fleet.choose(kind)
    number = len(fleet.fit())
    say(f"trials run on {kind}: {number} node{'s' * (number > 1)} by now")
    return fleet


def _own_folders(job: Job) -> list[str]:
    """Paths by which a node is seen to see what the run writes, where that is not kept at a URI."""
    return [*([] if job.home else [str(job.run / "run.json")]), *([] if job.store_home else [str(job.store)])]


def read_by_trials(job: Job) -> list[str]:
    """Files of the driver's machine that trials read: the base, where the store does not hold it, and the space's."""
    base = [] if job.store_home else [str(job.base / "config.json")]
    given = _texts(job.space.model_dump(exclude={"submissions"}))  # read by the driver alone
    return base + sorted({text for text in given if text.startswith("/") and Path(text).is_file()})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _refuse_if_unshared(fleet: Fleet, own: Collection[str]) -> None:
    """Trials on a node that does not see the run folder or the store would lose what they made."""
    for node in fleet.known.values():
        blind = [name for name in own if node.report is not None and name in node.report.unseen]
        if blind:
            folder = str(Path(blind[0]).parent) if blind[0].endswith("run.json") else blind[0]
            raise RunFailed(
                f"{node} does not see {folder}: a search on several nodes needs --out, and --store where it is given, "
                "at a URI (s3://, gs://), or in a folder that all nodes see at the same path"
            )


def _await_a_node(fleet: Fleet, job: Job, say: Callable[[str], None]) -> None:
    """Ask for one, and wait until it has come and was looked at, `WAIT` seconds at most."""
    from cluster.demand import Demand

    gpus = job.space.gpus
    number = "a GPU" if gpus == 1 else f"{gpus} GPUs"
    what = f"{number}{f' ({job.accelerator})' if job.accelerator else ''}" if job.device == "cuda" else "a CPU to give"
    say(f"no node with {what} is there yet: waiting for one to join, or for the autoscaler to start it")
    takes = {"CPU": float(gpus)} | ({"GPU": float(gpus)} if job.device == "cuda" else {})
    takes |= {KIND + job.accelerator: SHARE} if job.accelerator else {}
    demand = Demand(takes, 1)
    deadline = time.monotonic() + WAIT
    try:
        while not fleet.fit() and time.monotonic() < deadline:
            time.sleep(1)
            fleet.look()
            if not demand.look() and all(node.small for node in fleet.known.values()):
                demand = Demand(takes, 1)  # the one that came was taken back before it was looked at
    finally:
        demand.close()


def _chosen(kinds: list[Kind], job: Job, measured_on: Collection[str]) -> Kind | None:
    """The kind that trials run on: the one of earlier sittings on GPUs, else the target's, else the most frequent.

    A processor's name is no bar to going on: its trials were timed beside the base on the same one.
    """
    if job.accelerator:
        kinds = [kind for kind in kinds if kind.accelerator == job.accelerator]
    if job.device == "cuda" and measured_on:
        kinds = [kind for kind in kinds if not kind.name or kind.name in measured_on]
    targets = [told for told, name in TOLD.items() if name == job.space.target]
    return most_frequent(kinds, [*measured_on, *targets])


def _none_fit(fleet: Fleet, job: Job, measured_on: Collection[str], address: str) -> str:
    fit = fleet.fit()
    if fit:
        wanted = " or ".join(sorted(measured_on)) or job.accelerator
        found = ", ".join(sorted({str(node.kind) for node in fit}))
        return f"this run is timed on {wanted}, and the cluster at {address} has {found}: bring a node of that kind"
    if not fleet.known:
        return (
            f"no node of the cluster at {address} has had a {'GPU' if job.device == 'cuda' else 'CPU'} to give for "
            f"{WAIT / 60:.0f} minutes: see `ray status` there (a cloud's quota, its spot nodes), then go on with "
            f"`squeeze resume {job.place}`"
        )
    node = next(iter(fleet.known.values()))
    told = f"none of {len(fleet.known)} nodes of the cluster at {address} is fit; {node}: {'; '.join(node.lacks)}"
    return f"{told}. `squeeze doctor --address {address}` tells of all"
