"""Look into a submission before trusting it: only `model/`, nothing that climbs out, all parts there, tensors whole.

Knows nothing of scores. Every refusal names the entry at fault.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from compressors.files import has_tokenizer, is_model_file
from search.export import UNPACKED_LIMIT, ZIP_LIMIT


class BadSubmission(Exception):
    """The zip is not a submission that a contest's server would take, or that anyone should load."""


def unpack(path: Path, target: Path) -> Path:
    """Check `path` and unpack it into `target`; returns the model folder. Raises `BadSubmission`."""
    if not path.exists():
        raise BadSubmission(f"{path} does not exist")
    if path.stat().st_size > ZIP_LIMIT:
        raise BadSubmission(f"{path} is larger than {ZIP_LIMIT / 1000**3:.0f} GB")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive)
            damaged = archive.testzip()
            if damaged is not None:
                raise BadSubmission(f"{damaged} is damaged: its checksum does not fit")
            archive.extractall(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as fault:
        # RuntimeError: an encrypted entry; NotImplementedError: a compression nobody here knows
        raise BadSubmission(f"{path} is not a whole zip file: {fault}") from fault
    model = target / "model"
    _check_parts(model)
    _check_tensors(model)
    return model


def _check_entries(archive: zipfile.ZipFile) -> None:
    total, seen = 0, set()
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
            raise BadSubmission(f"{entry.filename} leads out of the submission")
        if not name.parts or entry.filename in seen:
            raise BadSubmission(f"{entry.filename!r} is there twice, or is no name")
        seen.add(entry.filename)
        if name.parts[0] != "model":
            raise BadSubmission(f"{entry.filename} stands beside model/: only model/ may be at the top")
        if (entry.external_attr >> 16) & 0o170000 == 0o120000:
            raise BadSubmission(f"{entry.filename} is a symbolic link")
        if not entry.is_dir() and (len(name.parts) != 2 or not is_model_file(name.name)):
            raise BadSubmission(f"{entry.filename} is not part of a model: weights, configs and tokenizer only")
        total += entry.file_size
    if total > UNPACKED_LIMIT:
        raise BadSubmission(f"it unpacks to {total / 1000**3:.1f} GB; {UNPACKED_LIMIT / 1000**3:.0f} GB are allowed")


def _check_parts(model: Path) -> None:
    if not model.is_dir():
        raise BadSubmission("it holds no model/")
    names = {path.name for path in model.iterdir()}
    for needed in ("config.json", "tokenizer_config.json"):
        if needed not in names:
            raise BadSubmission(f"model/{needed} is missing")
    if not has_tokenizer(names):
        raise BadSubmission(
            "the tokenizer is missing: no tokenizer.json, tokenizer.model or vocab.json with merges.txt"
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise BadSubmission("the weights are missing: no .safetensors in model/")
    for name in sorted(name for name in names if name.endswith(".json")):
        try:
            json.loads((model / name).read_text(encoding="utf-8"))
        except ValueError as fault:
            raise BadSubmission(f"model/{name} is not JSON: {fault}") from fault


def _check_tensors(model: Path) -> None:
    """Every tensor can be read, and every number of it is one."""
    import torch
    from safetensors import SafetensorError, safe_open

    for path in sorted(model.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a dict: it has no other way to list its names
                    tensor = tensors.get_tensor(name)
                    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
                        raise BadSubmission(f"model/{path.name}: tensor {name} holds values that are not numbers")
        except SafetensorError as fault:
            raise BadSubmission(f"model/{path.name} cannot be read: {fault}") from fault
