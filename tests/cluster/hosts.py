"""Hosts of a Ray cluster, for tests: each has an address, a name, a disk and a Ray of its own, and ends as machines do.

They are network namespaces of this machine. What a host sees at `HOME` is its own disk: the same path elsewhere is
another one's.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil

from tests.cluster.own import AGENTS, NODE, ROOT, STARTED, free_ports, tell_ports

BIN = Path(sys.executable).parent
OUTSIDE = ("RAY_", "AWS_", "SQUEEZE_", "XDG_", "WANDB_")  # what of our environment no host has


class Host:
    """One machine: what runs on it, and its disk as seen from here (`disk`) and from there (`home`)."""

    def __init__(self, hosts, name):
        self.name = name
        self.disk = hosts.place / f"{len(hosts.all)}-{name}"
        self.disk.mkdir()
        self.home = hosts.home
        there, self.address = hosts.network.join()
        # Who asks for a name that nobody gave would wait for a server of names that is out of reach.
        (self.disk / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {name}\n")
        (self.disk / "resolv.conf").touch()
        mounts = {self.home: self.disk} | {f"/etc/{one}": self.disk / one for one in ("hosts", "resolv.conf")}
        # the namespace that ip makes for mounts ends with the process
        inside = [f"mount --bind {own} {seen}" for seen, own in mounts.items()]
        inside += [f"hostname {name}", f"cd {self.home}", 'exec "$@"']
        self.prefix = [*there, "unshare", "--uts", "sh", "-c", " && ".join(inside), name]
        outside = {key: value for key, value in os.environ.items() if not key.startswith(OUTSIDE)}
        self.environment = outside | hosts.storage | {
            "HOME": str(self.home), "TMPDIR": str(self.home), "SQUEEZE_CACHE": str(self.home / "cache"),
            "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "",
            "WANDB_MODE": "disabled", "RAY_memory_monitor_refresh_ms": "0",
            "RAY_worker_niceness": "15",  # Ray gives up on nodes whose own processes start slowly beside trials
            "RAY_health_check_period_ms": "1000",
        }  # fmt: skip
        self.started = []

    def start(self, *words):
        """A process on this host; what it says is in its log, `NUMBER.log`."""
        with (self.disk / f"{len(list(self.disk.glob('*.log')))}.log").open("w") as log:
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

    def start_ray(self, *words, session=None):
        """`session` is the name of the head's, where it joins one."""
        ports = dict(zip(AGENTS.values(), free_ports(len(AGENTS)), strict=True))
        node = secrets.token_hex(28)
        if session:
            (self.disk / "ray" / session).mkdir(parents=True, exist_ok=True)
            tell_ports(self.disk / "ray", node, ports)
        return self.start(
            "env", f"{NODE}={node}",
            BIN / "ray", "start", "--block", f"--node-ip-address={self.address}", f"--temp-dir={self.home / 'ray'}",
            "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats",
            *(f"--{option}={port}" for option, port in ports.items()), *words,
        )  # fmt: skip

    def join(self, head):
        """Have room for one trial of that head's cluster."""
        session = next(head.disk.glob("ray/session_2*")).name
        self.wait(lambda: self.start_ray(f"--address={head.cluster}", "--num-cpus=1", session=session))

    def wait(self, begin):
        """Until the Ray that `begin` starts answers; it gives up by itself on a machine that is busy."""
        for _ in range(4):
            process = begin()
            wait_for(partial(began_or_ended, process), self.said, 120, 0.2)
            if process.poll() is None:
                return
        raise AssertionError(self.said())

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
        """As when the machine loses its power: SIGKILL for all of it, frozen first, so that nobody sees others go."""
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

    def __init__(self, place, storage, network):
        self.place = place
        self.home = place / "disk"
        self.home.mkdir()
        self.storage = storage
        self.network = network
        self.all = []

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
        words = ("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        host.wait(lambda: host.start_ray(*words))
        return host

    def node(self, name, head):
        """A machine that joins `head`, and has when this returns."""
        host = self.add(name)
        host.join(head)
        return host

    def end(self):
        for host in self.all:
            host.kill()


@contextlib.contextmanager
def hosts(storage, network):
    place = Path(tempfile.mkdtemp(prefix="hosts-"))  # a short path: Ray's sockets lie below it
    begun = Hosts(place, storage, network)
    try:
        yield begun
    finally:
        begun.end()
        shutil.rmtree(place, ignore_errors=True)


def began_or_ended(process):
    return STARTED in process.log.read_text() or process.poll() is not None


def wait_for(condition, told, seconds=300, pause=0.02):
    """What `condition` gives once it is true; fails with what `told` says."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, told()
        time.sleep(pause)
    return found
