"""All steps, one line each, and how a plain dict becomes one. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from compressors.context import Context
from compressors.depth import DropLayers
from compressors.distill import Distill
from compressors.finetune import Finetune
from compressors.generation import Generation
from compressors.nf4 import Nf4
from compressors.quantize import Quantize
from compressors.sparsify import Sparsify
from compressors.step import Step
from compressors.vocabulary import TrimVocab
from compressors.width import PruneFFN, PruneHeads, PruneHidden

_Any = (
    DropLayers
    | PruneFFN
    | PruneHeads
    | PruneHidden
    | TrimVocab
    | Sparsify
    | Distill
    | Finetune
    | Quantize
    | Nf4
    | Context
    | Generation
)

STEPS: tuple[type[Step], ...] = get_args(_Any)
AnyStep = Annotated[_Any, Field(discriminator="step")]

_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyStep)


class BadStep(ValueError):
    """A dict that is no step; `faults` says of each field at fault, given or missing, what is wrong with it."""

    def __init__(self, text: str, faults: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.faults = dict(faults or {})


def step_names() -> tuple[str, ...]:
    """The names of all steps, in the order of `STEPS`."""
    return tuple(kind.model_fields["step"].default for kind in STEPS)


def parse_step(fields: Mapping[str, Any]) -> Step:
    """A step from a plain dict such as `{"step": "drop_layers", "count": 2}`.

    Raises `BadStep` in one line that names the known steps, or the step, field and value at fault.
    """
    if not isinstance(fields, Mapping):
        raise BadStep(f"a step must be a mapping with the field 'step', not {fields!r}")
    name = fields.get("step")
    if name not in step_names():
        said = "has no field 'step'" if name is None else f"'{name}' is unknown"
        raise BadStep(f"step {said}; known steps are {', '.join(step_names())}")
    _refuse_truth(str(name), fields)
    try:
        step: Step = _ADAPTER.validate_python(dict(fields))
    except ValidationError as error:
        told = _complaints(str(name), error)
        places = [str(fault["loc"][1]) if len(fault["loc"]) > 1 else "" for fault in error.errors()]
        faults = {place: one for place, one in zip(places, told, strict=True) if place}
        raise BadStep("; ".join(told), faults) from None
    return step


def _refuse_truth(name: str, fields: Mapping[str, Any]) -> None:
    """YAML's `yes` and `on` are true, which pydantic takes for the number 1."""
    kind = next(kind for kind in STEPS if kind.model_fields["step"].default == name)
    for field, value in fields.items():
        known = kind.model_fields.get(field)
        if isinstance(value, bool) and known is not None and "bool" not in str(known.annotation):
            told = f"step {name}: field {field} = {value!r}: {value} is no number and no text"
            raise BadStep(told, {field: told})


def _complaints(name: str, error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"][1:])  # the first part is the discriminator
        if fault["type"] == "missing":
            lines.append(f"step {name}: field {field} is missing")
        elif fault["type"] == "extra_forbidden":
            lines.append(f"step {name} has no field {field} (value {fault['input']!r})")
        elif not field:  # the step as a whole: fields that do not go together
            lines.append(f"step {name}: {fault['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"step {name}: field {field} = {fault['input']!r}: {fault['msg']}")
    return lines
