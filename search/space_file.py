"""A space from its file: a preset's name or YAML, with paths made absolute. Knows nothing of what a space means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from compressors.data import HUB
from search.errors import BadInput, Misfit, first_error, place_of
from search.knobs import check_by_chance
from search.space import SELF, Space
from search.yaml_lines import Lines, read

PRESETS = Path(__file__).with_name("presets")
FILES = ("data", "corpus", "heldout")  # fields of steps that name files
REFERENCE = "reference:"  # prefix of a path inside evaluation/reference


@dataclass(frozen=True)
class SpaceFile:
    """A space and the file it stands in."""

    space: Space
    path: Path
    lines: Lines

    def told(self) -> AbstractContextManager[None]:
        """Faults within are told with this file's name and the line; see `_told`."""
        return _told(self.path, self.lines)


def load_space(source: str) -> Space:
    """A preset by name or a YAML file. Raises `BadInput` with what does not fit, and where."""
    return read_space(source).space


def read_space(source: str) -> SpaceFile:
    """As `load_space`, with the file."""
    path = Path(source)
    if path.suffix not in {".yaml", ".yml"}:
        path = PRESETS / f"{source}.yaml"
        if not path.exists():
            known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
            raise BadInput(f"no preset named {source}; presets: {known}; or give a .yaml file")
    try:
        content, lines = read(path)
    except OSError as fault:
        raise BadInput(f"no space at {path}: {fault.strerror}") from fault
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise BadInput(f"{path}: not YAML: {' '.join(str(fault).split())}") from fault
    if not isinstance(content, dict):
        raise BadInput(f"{path} holds no space: a mapping with steps, evaluation and calibration is needed")
    with _told(path, lines):
        space = Space.model_validate(_resolve(content, path.resolve().parent))
        try:
            check_by_chance(space.steps)
        except Misfit as fault:
            raise fault.below("steps") from None
        for number, recipe in enumerate(space.seed_recipes()):
            if not recipe.steps:
                kind = "lanes" if space.lanes else "seeds"
                told = f"{kind}.{number}: a recipe of no steps is the base, beside which all are measured; leave it out"
                raise Misfit(told, kind, number)
            try:
                space.params_of(recipe)
            except BadInput as fault:
                raise Misfit(f"seeds.{number}: {fault}", "seeds", number) from fault
    return SpaceFile(space, path, lines)


@contextmanager
def _told(path: Path, lines: Lines) -> Iterator[None]:
    """What does not fit becomes `BadInput` that names the file and the line."""
    try:
        yield
    except ValidationError as fault:
        raise BadInput(f"{path}, line {lines.of(place_of(fault))}: {first_error(fault, Space.model_fields)}") from fault
    except Misfit as fault:
        raise BadInput(f"{path}, line {lines.of(fault.place)}: {fault}") from fault


def _resolve(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths relative to the YAML file, or inside the reference data, made absolute."""
    content = dict(content)
    content |= {name: _resolve_data(content[name], folder) for name in ("steps", "seeds", "lanes") if name in content}
    given = _named(content.get("calibration"), "calibration")
    if isinstance(given, str) and given != SELF and not given.startswith(HUB):
        content["calibration"] = resolve_path(content["calibration"], folder)
    if isinstance(content.get("submissions"), str):
        content["submissions"] = resolve_path(content["submissions"], folder)
    if isinstance(content.get("evaluation"), dict):
        evaluation = dict(content["evaluation"])
        for key in ("prompts", "heldout"):
            if isinstance(evaluation.get(key), str):
                evaluation[key] = _resolve_files(_named(evaluation[key], f"evaluation.{key}"), folder)
        if isinstance(evaluation.get("benchmarks"), dict):
            evaluation["benchmarks"] = {
                name: HUB if path == "hub" else _resolve_files(path, folder) if isinstance(path, str) else path
                for name, path in evaluation["benchmarks"].items()
            }
        if isinstance(evaluation.get("judge"), dict):
            files = {name: resolve_path(path, folder) for name, path in evaluation["judge"].items()
                     if name in ("templates", "references") and isinstance(path, str)}  # fmt: skip
            evaluation["judge"] = evaluation["judge"] | files
        content["evaluation"] = evaluation
    return content


def _named(value: Any, field: str) -> Any:
    """`value`, unless it is the hub without a data set: only benchmarks were published in one place."""
    if isinstance(value, str) and value.strip() in {HUB, HUB.rstrip(":")}:
        raise Misfit(
            f"{field}: {value} names no data set: write {HUB}OWNER/NAME, or the name of a file", *field.split(".")
        )
    return value


def _resolve_data(steps: Any, folder: Path) -> Any:
    """The same steps, or recipes of them, with paths resolved: in fields of files, and in conditions on these."""
    if isinstance(steps, list):
        return [_resolve_data(one, folder) for one in steps]
    if not isinstance(steps, dict):
        return steps
    return {name: _resolve_field(name, value, folder) for name, value in steps.items()}


def _resolve_field(name: Any, value: Any, folder: Path) -> Any:
    if name == "when":
        if not isinstance(value, dict):
            return value
        return {
            one: _resolve_files(asked, folder) if str(one).rpartition(".")[2] in FILES else asked
            for one, asked in value.items()
        }
    if isinstance(value, dict) and "when" in value:
        rest = {one: part for one, part in value.items() if one != "when"}
        return {"when": _resolve_field("when", value["when"], folder), **_resolve_field(name, rest, folder)}
    return _resolve_files(value, folder) if name in FILES else value


def _resolve_files(value: Any, folder: Path) -> Any:
    """A path, a list of them, or `{fixed: ...}` of either."""
    if isinstance(value, list):
        return [_resolve_files(one, folder) for one in value]
    if isinstance(value, dict):
        return {name: _resolve_files(one, folder) for name, one in value.items()}
    return resolve_path(value, folder) if isinstance(value, str) and not value.startswith(HUB) else value


def resolve_path(text: str, folder: Path) -> str:
    if text.startswith(REFERENCE):
        import evaluation.reference

        return str(Path(evaluation.reference.__file__).parent / text.removeprefix(REFERENCE))
    return str(Path(text) if Path(text).is_absolute() else folder / text)
