"""What an artifact is called and what is recorded of it. Its name holds all that decides its content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from compressors.files import model_files
from compressors.step import Step

PROVENANCE = "provenance.json"
LIBRARIES = (
    "torch", "transformers", "tokenizers", "llmcompressor", "compressed-tensors", "auto-round", "bitsandbytes", "peft"
)  # fmt: skip
TRAINING = "training"  # subfolder of an artifact with what a later, longer one goes on from; never handed over
EVERY_STEP = (
    "compressors.step",
    "compressors.checkpoint",
    "compressors.files",
)  # code that decides every step's result
KEY_LENGTH = 32  # hexadecimal digits: 128 bits


class FileRecord(BaseModel):
    """Size in bytes and sha256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Provenance(BaseModel):
    """Where an artifact came from and what lies in it: `provenance.json` of its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    step: dict[str, Any]
    source: str  # key of the input artifact
    data: str | None  # fingerprint of the conversations, if the step reads them
    seed: int
    code: str
    libraries: dict[str, str]
    device: str
    continued_from: str | None = None  # key of the earlier artifact that training went on from
    seconds: float
    peak_gpu_bytes: int
    notes: dict[str, Any]
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Artifact:
    """A model folder and its key. A base model has no provenance: it is a user's folder, never copied."""

    key: str
    folder: Path
    provenance: Provenance | None = None


def artifact_key(step: Step, source: str, data: str, seed: int, device: str) -> str:
    """Key of what `step` makes of the artifact `source` on `device` ("cpu", "cuda:0"): 32 hexadecimal digits."""
    return _hash(_ingredients(step, source, data, seed, device))


def family_key(step: Step, source: str, data: str, seed: int, device: str) -> str:
    """Key shared by all artifacts of a continuable step that differ in its continued field only."""
    ingredients = _ingredients(step, source, data, seed, device)
    ingredients["step"] = {name: v for name, v in ingredients["step"].items() if name != step.continues}
    return _hash(ingredients)


def base_artifact(folder: Path) -> Artifact:
    """The model in `folder` as an artifact, named by the sha256 of its config, weights and tokenizer."""
    files = []
    trimmed = [path for path in (folder / "kept_tokens.json",) if path.is_file()]  # decides what its token ids mean
    for path in [*model_files(folder), *trimmed]:
        status = path.stat()
        files.append((path.name, status.st_size, status.st_mtime_ns))
    return Artifact(key=_base_key(folder.resolve(), tuple(files)), folder=folder)


def code_hash(step: Step) -> str:
    """Hash of the source files that decide what `step` does."""
    return _code_hash(tuple(sorted({*EVERY_STEP, type(step).__module__, *step.code})))


def libraries() -> dict[str, str]:
    """Versions of the libraries that decide what a step does."""
    return {name: _version(name) for name in LIBRARIES}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"  # steps that need it say so themselves


def file_sha256(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ingredients(step: Step, source: str, data: str, seed: int, device: str) -> dict[str, Any]:
    reads = step.takes_data()
    missing = [str(path) for path in step.reads() if not path.is_file()]
    if missing:
        raise ValueError(f"{step.step} reads {missing[0]}: no such file")
    return {
        "step": step.model_dump(mode="json"),
        "source": source,
        "data": data if reads else None,
        "seed": seed if step.changes_weights else None,
        "device": device.partition(":")[0] if step.changes_weights else None,  # a GPU computes other bits than a CPU
        "files": [file_sha256(path) for path in step.reads()],
        "code": code_hash(step),
        "libraries": libraries(),
    }


def _hash(ingredients: dict[str, Any]) -> str:
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


@lru_cache(maxsize=16)  # a base model of gigabytes is read once a process, unless a size or time changes
def _base_key(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    return _hash({"base": {name: file_sha256(folder / name) for name, _, _ in files}})


@lru_cache(maxsize=64)
def _code_hash(modules: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in modules:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise ValueError(f"module {name} has no source file to name artifacts by")
        digest.update(Path(found.origin).read_bytes())
    return digest.hexdigest()[:KEY_LENGTH]
