"""From what the user calls a model to a folder: `tiny`, a folder, or a hub id."""

from __future__ import annotations

import json
import re
from pathlib import Path

from compressors.files import has_tokenizer
from search.errors import BadInput

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_base(name: str, weights: bool = True) -> Path:
    """The folder of the base model; config and tokenizer do where no `weights` are needed.

    Raises `BadInput` when there is none.
    """
    if not name:
        raise BadInput("--base is empty: give `tiny`, a model folder, or a hub id")
    if name == "tiny":
        from evaluation.reference import MODEL

        return Path(MODEL)
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            return _checked(folder.resolve(), weights)
        if folder.exists():
            raise BadInput(f"the base {name} is a file; give the model's folder")
    except (OSError, ValueError, KeyError) as fault:
        raise BadInput(f"the base {name[:100]} cannot be read: {fault}") from fault
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return _checked(_download(name, weights), weights)
    raise BadInput(
        f"no base model at {name}: give `tiny`, a model folder, or a hub id such as LGAI-EXAONE/EXAONE-4.0-1.2B"
    )


def _download(name: str, weights: bool) -> Path:
    import huggingface_hub
    import requests
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # No code and no pickles: config, tokenizer and safetensors are all that is used.
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=["*.json", "*.txt", "*.model", "*.jinja", *["*.safetensors"] * weights]
            )
        )
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        requests.RequestException,
        OSError,
    ) as fault:
        reason = " ".join(str(fault).split())[:200]
        raise BadInput(
            f"no folder {name}, and the hub does not give it ({reason}); download it elsewhere and give its folder"
        ) from fault


def _checked(folder: Path, weights: bool) -> Path:
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise BadInput(f"{folder} is not a model folder: it has no config.json")
    if not has_tokenizer(names):
        raise BadInput(f"{folder} has no tokenizer: no tokenizer.json, tokenizer.model or vocab.json with merges.txt")
    if not weights:
        return folder
    if "model.safetensors.index.json" in names:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        lacking = sorted(set(index["weight_map"].values()) - names)
        if lacking:
            raise BadInput(f"{folder} lacks weight files that its index names: {', '.join(lacking)}")
    elif not any(name.endswith(".safetensors") for name in names):
        raise BadInput(f"{folder} holds no .safetensors weights (pickled weights are not read)")
    return folder
