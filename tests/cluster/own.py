"""A Ray of a test's own: started by own.sh on loopback, with its own token and ports, ended by its process group."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
LAUNCHERS = ROOT / "cluster" / "launchers"
PORTS = ("dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port",
         "runtime-env-agent-port", "node-manager-port", "object-manager-port", "ray-client-server-port")  # fmt: skip
AGENTS = {  # Ray's name of the file that tells an agent's port, and of the option
    "dashboard_agent_listen_port": "dashboard-agent-listen-port",
    "metrics_agent_port": "dashboard-agent-grpc-port",
    "runtime_env_agent_port": "runtime-env-agent-port",
    "metrics_export_port": "metrics-export-port",
}
NODE = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"
STARTED = "Ray runtime started"
STARTS = 3
BUSY = ("No available agent to submit job, please try again later", "Remote end closed connection without response")
SECRET = secrets.token_hex(8)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def heed_interrupts():
    """A shell has what it runs in the background ignore them, and all that this starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def tell_ports(temp, node, ports):
    """As a node's agents do, once they run: a raylet gives up on those that take longer than 15 seconds to start."""
    for session in temp.glob("session_2*"):
        for name, option in AGENTS.items():
            (session / f"{name}_{node}").write_text(str(ports[option]))


class Cluster:
    """A head that own.sh started, in a process group of its own, and how one talks to it."""

    def __init__(self, place, write, variables):
        self.token = "0123456789abcdef" * 4
        self.token_file = place / "token"
        self.token_file.write_text(self.token)
        self.token_file.chmod(0o600)
        self.home = place / "home"  # no ~/.ray/auth_token of the machine's owner is found there
        self.home.mkdir()
        keys = self.home / ".squeeze-secrets.env"
        keys.write_text(f"JUDGE_KEY={SECRET}\n")
        keys.chmod(0o600)
        self.temp = place / "ray"
        self.gcs, *ports = free_ports(1 + len(PORTS))
        self.dashboard = f"http://127.0.0.1:{ports[0]}"
        self.ports = dict(zip(PORTS, ports, strict=True))
        self.words = write(place, self.gcs) if write else []
        self.variables = {NODE: secrets.token_hex(28)} | variables
        self.log = place / "head.log"

    def start(self):
        """Until it answers. Ray gives up by itself on a head whose many processes take long to start."""
        for _ in range(STARTS):
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    ["bash", LAUNCHERS / "own.sh", "head", f"--port={self.gcs}", "--node-ip-address=127.0.0.1",
                     f"--temp-dir={self.temp}", "--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000",
                     *(f"--{name}={port}" for name, port in self.ports.items()), *self.words],
                    env=self.environment() | self.variables, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, preexec_fn=heed_interrupts,
                )  # fmt: skip
            until = time.monotonic() + 120
            while self.process.poll() is None and time.monotonic() < until:
                tell_ports(self.temp, self.variables[NODE], self.ports)
                if STARTED in self.said() and self.status("/api/version", self.bearer)[0] == 200:
                    return
                time.sleep(0.2)
            self.kill()
        raise AssertionError(f"no head after {STARTS} starts: {self.said()}{self.told()}")

    def said(self):
        return self.log.read_text()

    def environment(self, token=True):
        outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
        chosen = {"HOME": str(self.home), "PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        return outside | chosen | ({"RAY_AUTH_TOKEN_PATH": str(self.token_file)} if token else {})

    def asked(self, *words, token=True, **given):
        """What `ray job` answers; asked again where its agents, which come after its head, are not there yet."""
        more = {"RAY_AUTH_MODE": "token"} if token else {}
        until = time.monotonic() + 120
        while True:
            done = subprocess.run(
                ["ray", "job", words[0], "--address", self.dashboard, *words[1:]], env=self.environment(token) | more,
                capture_output=True, text=True, timeout=400, check=False, **given,
            )  # fmt: skip
            assert self.process.poll() is None, f"its head ended: {self.said()}{self.told()}"
            if not any(words in done.stderr for words in BUSY) or time.monotonic() > until:
                return done
            time.sleep(1)

    def told(self):
        """The last words of each of its processes."""
        logs = sorted((self.temp / "session_latest" / "logs").glob("*.*"))
        return "".join(f"\n== {log.name}\n{log.read_text(errors='replace')[-6000:]}" for log in logs)

    def status(self, path, headers=None):
        try:
            with urllib.request.urlopen(urllib.request.Request(self.dashboard + path, headers=headers or {})) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as fault:
            return fault.code, ""
        except OSError:
            return 0, ""

    @property
    def bearer(self):
        return {"Authorization": f"Bearer {self.token}"}

    def end(self):
        """Ray's own end first, which takes its children along, then what is left of them."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()

    def kill(self):
        """Only what was started here: whatever belongs to this Ray is in the group, or names its folder."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for process in psutil.process_iter(["cmdline"]):
            if any(f"{self.temp}/" in word for word in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@contextlib.contextmanager
def own_cluster(write=None, **variables):
    """`write` gets a folder and the port Ray will be at, and returns what else own.sh is told."""
    place = Path(tempfile.mkdtemp(prefix="own-"))  # a short path: Ray's sockets lie below it
    started = Cluster(place, write, variables)
    try:
        started.start()
        yield started
    finally:
        started.end()
        shutil.rmtree(place, ignore_errors=True)
