"""Beginning with Ray: the cluster that is joined or begun, what it times on, and which of its nodes are fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster.fleet import Fleet
from cluster.kinds import Kind, hardware, most_frequent
from cluster.nodes import NodeReport, expected_like, look_here
from cluster.resources import find_device
from evaluation.devices import TOLD, DeviceName
from search.errors import RunFailed
from search.job import Job

RAY_NAMES: dict[DeviceName, str] = {"L4": "L4", "H100": "H100", "A100": "A100", "RTX 4090": "GeForce-RTX-4090"}


def cluster_address(address: str | None) -> str | None:
    """Of the cluster that is meant; None for a Ray of our own on this machine."""
    return address or os.environ.get("RAY_ADDRESS") or None


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
    address = cluster_address(address)
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # "local": with no address at all Ray would join whatever cluster was started last on this machine
    where = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        ray.init(**where, **common)
    except Exception as fault:  # a node that takes longer than 30 s to start is a bare Exception of Ray's
        ray.shutdown()
        words = f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
        if address:
            raise RunFailed(f"no Ray cluster at {address} ({words}): start it, or give another --address") from fault
        remedy = "see that the machine has memory and processors to spare and that no other Ray hangs (`ray stop`)"
        raise RunFailed(f"Ray does not start here ({words}): {remedy}, then `squeeze resume {run}`") from fault


def hardware_of(address: str | None, target: DeviceName | None, run: Path) -> tuple[str, str]:
    """What a search is timed on: cuda or cpu, and Ray's name of the GPU to ask a cluster for.

    Of this machine where no cluster is meant. Of a mixed one the space's `target`, where a node has it, else what most
    nodes have. Raises `RunFailed` where the cluster cannot be joined.
    """
    if cluster_address(address) is None:
        return find_device(), ""
    import ray

    start_ray(address, run)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
    return hardware(nodes, [RAY_NAMES[target]] if target is not None else [])


def fleet_for(
    job: Job, address: str | None, measured: Iterable[Mapping[str, Any]], say: Callable[[str], None]
) -> Fleet:
    """The nodes of the Ray that was joined, looked at; on a Ray of our own there is only this machine.

    `measured` are the ledger's lines of earlier sittings. Raises `RunFailed` where no node is fit.
    """
    joined = cluster_address(address)
    if joined is None:
        fleet = Fleet(None, job.device, say)
        fleet.settle()
        return fleet
    engine, measured_on = job.space.engine, {line["device"] for line in measured if line.get("device")}
    here = NodeReport.model_validate(look_here())
    fleet = Fleet(expected_like(here, engine, job.device), job.device, say)
    say("looking at the cluster's nodes")
    fleet.settle()
    kind = _chosen([node.kind for node in fleet.fit() if node.kind is not None], job, measured_on)
    if kind is None:
        raise RunFailed(_none_fit(fleet, job, measured_on, joined))
    fleet.choose(kind)
    number = len(fleet.fit())
    say(f"trials run on {kind}: {number} node{'s' * (number > 1)} by now")
    return fleet


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
        return f"no node of the cluster at {address} has a {'GPU' if job.device == 'cuda' else 'CPU'} to give"
    node = next(iter(fleet.known.values()))
    told = f"none of {len(fleet.known)} nodes of the cluster at {address} is fit; {node}: {'; '.join(node.lacks)}"
    return f"{told}. `squeeze doctor --address {address}` tells of all"
