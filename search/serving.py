"""What serves models on this machine or on others: an engine's settings, and what it can serve. Starts nothing."""

from __future__ import annotations

from cluster.engines import CONTEST_VERSIONS, EngineEnvironment, EngineName, find_engine
from cluster.resources import find_device, here, trial_resources
from compressors.step import EngineTraits
from evaluation.protocol import EngineSettings
from evaluation.serves import installed, row
from search.errors import BadInput


def engine_settings(
    device: str | None = None, max_model_len: int = 4096, engine: EngineName = "own", gpus: int = 1
) -> EngineSettings:
    """An engine on this machine. Raises `BadInput` where its environment is not installed, or `gpus` are not there.

    A CPU is shared with Ray and with whoever else works there: count the seconds the engine computed, not the wall's.
    """
    device = device or find_device()
    environment = environment_of(engine)
    check_here(device, gpus)
    return EngineSettings(
        device=device,
        clock="cpu" if device == "cpu" else "wall",
        sleeps=device == "cuda",
        python=environment.python,
        versions=dict(environment.versions),
        max_model_len=max_model_len,
        tensor_parallel_size=gpus,
    )


def check_here(device: str, gpus: int) -> None:
    """Raise `BadInput` where a model cannot be shared by `gpus` of this machine."""
    try:
        if gpus > 1:
            trial_resources(device, [here()], gpus=gpus)
    except LookupError as fault:
        raise BadInput(f"this machine is too small: {fault}") from fault


def environment_of(engine: EngineName) -> EngineEnvironment:
    """As `find_engine`; raises `BadInput`."""
    try:
        return find_engine(engine)
    except LookupError as fault:
        raise BadInput(str(fault)) from fault


def traits(device: str, engine: EngineName = "own", gpus: int = 1) -> EngineTraits:
    """What an engine serves on `device`, `gpus` of which share a model.

    Raises `BadInput` for an engine of which nothing is known, or where none is installed.
    """
    environment_of(engine)
    return traits_anywhere(device, engine, gpus)


def traits_anywhere(device: str, engine: EngineName, gpus: int = 1) -> EngineTraits:
    """What an engine serves on `device`, be it installed here or on other machines alone. Raises as `traits` does."""
    try:
        return served_by(CONTEST_VERSIONS["vllm"] if engine == "contest" else installed(), device, gpus)
    except LookupError as fault:
        raise BadInput(str(fault)) from fault


def served_by(version: str, device: str, gpus: int = 1) -> EngineTraits:
    """What vLLM `version` serves on `device`. Raises `LookupError` for one of which nothing is known."""
    serves = row(version, device)
    return EngineTraits(
        name=f"vLLM {version} on {device}",
        device=device,
        gpus=gpus,
        schemes=serves.schemes,
        features=serves.features,
        lacking=serves.lacking,
    )
