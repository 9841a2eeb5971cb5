"""Hosts of a Ray cluster, for tests: each has a Ray, a home and a cache of its own, and ends as a machine does.

They are on loopback addresses of this machine; or, with a `Network`, each in a namespace of its own with an address and
a name of its own, where what it sees at `HOME` is its own disk and no other's.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.cluster.own import ROOT, free_ports

BIN = Path(sys.executable).parent
OUTSIDE = ("RAY_", "AWS_", "SQUEEZE_", "XDG_", "WANDB_")  # what of our environment no host has


class Host:
    """One machine: what runs on it, and its disk as seen from here (`disk`) and from there (`home`)."""

    def __init__(self, hosts, name):
        self.name = name
        self.disk = hosts.place / name
        self.disk.mkdir()
        self.prefix, self.address = hosts.joined(name)
        self.home = self.disk
        if hosts.network is not None:
            self.home = hosts.place / "disk"
            self.home.mkdir(exist_ok=True)
            # a name of its own, and its own disk where each has one; ip's namespace for mounts ends with the process
            mine = f"mount --bind {self.disk} {self.home} && hostname {name} && cd {self.home} && exec \"$@\""
            self.prefix = [*self.prefix, "unshare", "--uts", "sh", "-c", mine, name]
        outside = {key: value for key, value in os.environ.items() if not key.startswith(OUTSIDE)}
        self.environment = outside | hosts.storage | {
            "HOME": str(self.home), "TMPDIR": str(self.home), "SQUEEZE_CACHE": str(self.home / "cache"),
            "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "",
            "WANDB_MODE": "disabled", "RAY_memory_monitor_refresh_ms": "0", "RAY_health_check_period_ms": "1000",
        }  # fmt: skip
        self.started = []

    def start(self, *words):
        """A process on this host; what it says is in its log, `NUMBER.log`."""
        with (self.disk / f"{len(self.started)}.log").open("w") as log:
            process = subprocess.Popen(
                [*self.prefix, *map(str, words)], env=self.environment, cwd=self.disk, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        process.log = Path(log.name)
        self.started.append(process)
        return process

    def ran(self, *words, seconds=300):
        """A command's exit code and what it said."""
        process = self.start(*words)
        return process.wait(seconds), process.log.read_text()

    def start_ray(self, *words):
        ports = zip(("dashboard-agent-listen-port", "metrics-export-port"), free_ports(2), strict=True)
        return self.start(
            BIN / "ray", "start", "--block", f"--node-ip-address={self.address}", f"--temp-dir={self.home / 'ray'}",
            "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats",
            *(f"--{name}={port}" for name, port in ports), *words,
        )  # fmt: skip

    def below(self):
        """Everything that was started here and is there yet, whatever session it made for itself; parents first."""
        found = []
        for process in self.started:
            with contextlib.suppress(psutil.NoSuchProcess):
                one = psutil.Process(process.pid)
                found += [one, *one.children(recursive=True)]
        return [one.pid for one in found]

    def freeze(self):
        """Stop it all: nothing is begun or sent from now on."""
        seen = set()
        while fresh := [pid for pid in self.below() if pid not in seen]:
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            seen.update(fresh)

    def thaw(self):
        for pid in reversed(self.below()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self):
        """As when the machine loses its power: SIGKILL for all of it, frozen first so that nobody sees the others go."""
        self.freeze()
        for pid in self.below():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait(30)
        self.started = []

    def said(self):
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.disk.glob("*.log")))


class Hosts:
    """`storage` is the environment that leads to it."""

    def __init__(self, place, storage, network=None):
        self.place = place
        self.storage = storage
        self.network = network
        self.all = []

    def joined(self, name):
        if self.network is not None:
            return self.network.join()
        return [], f"127.0.0.{len(self.all) + 2}"

    def add(self, name):
        """A machine on which nothing runs yet."""
        host = Host(self, name)
        self.all.append(host)
        return host

    def head(self, name):
        """A head on which no trial runs; its `cluster` is where to find it. It answers when this returns."""
        host = self.add(name)
        port = free_ports(1)[0]
        host.cluster = f"{host.address}:{port}"
        host.start_ray("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        wait_for(lambda: "Ray runtime started" in host.said() or not host.started[0].poll() is None, host.said, 120)
        return host

    def node(self, name, head):
        """A machine that joins `head` and has room for one trial; it may take a while."""
        host = self.add(name)
        host.start_ray(f"--address={head.cluster}", "--num-cpus=1")
        return host

    def end(self):
        for host in self.all:
            host.kill()


@contextlib.contextmanager
def hosts(storage, network=None):
    place = Path(tempfile.mkdtemp(prefix="hosts-"))  # a short path: Ray's sockets lie below it
    begun = Hosts(place, storage, network)
    try:
        yield begun
    finally:
        begun.end()
        shutil.rmtree(place, ignore_errors=True)


def wait_for(condition, told, seconds=300, pause=0.02):
    """What `condition` gives once it is true; fails with what `told` says."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, told()
        time.sleep(pause)
    return found
