"""Network namespaces for tests: hosts with addresses of their own on a bridge, made and removed here. Needs root."""

import contextlib
import random
import subprocess

import pytest


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True)


class Network:
    """10.99.N.0/24 on a bridge: this machine is .1, whoever joins gets a namespace and the next address."""

    def __init__(self, number):
        self.prefix = f"10.99.{number}"
        self.name = f"sqz{number}"
        self.address = f"{self.prefix}.1"
        self.joined = []
        ip("link", "add", "name", self.name, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", self.name)
        ip("link", "set", self.name, "up")

    def join(self):
        """A new namespace, as the command that runs what follows it there, and its address."""
        number = len(self.joined) + 2
        space, outside, address = f"{self.name}-{number}", f"{self.name}v{number}", f"{self.prefix}.{number}"
        ip("netns", "add", space)
        self.joined.append(space)
        ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", outside, "master", self.name, "up")
        ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip("-n", space, "link", "set", device, "up")
        ip("-n", space, "route", "add", "default", "via", self.address)  # by which Ray tells its own address
        return ["ip", "netns", "exec", space], address

    def remove(self):
        """A namespace takes its end of a veth pair along, and with it the other one."""
        for space in self.joined:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", space)
        ip("link", "del", self.name)


@contextlib.contextmanager
def network():
    """Skips, with the reason, where none can be made."""
    try:
        made = Network(random.randrange(1, 250))
        made.join()
    except (OSError, subprocess.CalledProcessError) as fault:
        told = getattr(fault, "stderr", "") or str(fault)
        with contextlib.suppress(NameError, OSError, subprocess.CalledProcessError):
            made.remove()
        pytest.skip(f"no network namespaces can be made here: {told.strip()}")
    try:
        yield made
    finally:
        made.remove()
