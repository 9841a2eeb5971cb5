"""Recorded submissions: a CSV that the user keeps, one experiment a row, and what can be read of each recipe.

What a row does not state is unknown, never guessed: a recipe is read from `scheme`, `algorithm`, `details`, `layers`
and `name`; `note`, where people argue, is read only for whether a speed was measured without vLLM.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

COLUMNS = (
    *("source", "name", "scheme", "algorithm", "details", "layers", "local_perf", "local_perf_base"),
    *("local_sec_per_token", "local_sec_per_token_base", "local_tokens_per_s", "local_tokens_per_s_base"),
    *("local_score", "server_score", "server_run_minutes", "note"),
)
FEWEST = 10  # scored rows from which anything may be learned
FAMILIES = ("W8A8", "FP8", "W4A16", "none")  # schemes with a name of their own; all others are "other"

_TRAINED = re.compile(
    r"(?<![a-z])(sft|kd|q?lora|grpo|dpo|distill\w*|fine-?tun\w*|self-training)(?![a-z])", re.IGNORECASE
)
_LAYER = re.compile(r"\blayers?\b", re.IGNORECASE)
_KEPT = re.compile(r"(?<![a-z])(keep|kept|bf16|fp16|ignore|quantized)(?![a-z])", re.IGNORECASE)
_KEEP_LIST = re.compile(r"\bkeep \[", re.IGNORECASE)
_TRIMMED = re.compile(r"\bvocab(ulary)? (pruning|trim)", re.IGNORECASE)
_AS = re.compile(r"^as (\S+)")
_NO_VLLM = re.compile(r"not (a )?vllm|hf transformers|hf scoring|not a usable speed|speed unusable", re.IGNORECASE)


class Submission(BaseModel):
    """One row. None: the row does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int = Field(0, description="record of the CSV, the first after the header being 2")
    source: str = Field("", description="who reported it")
    name: str = ""
    score: float | None = Field(None, description="what the server said")
    minutes: float | None = Field(None, description="of the server's run")
    scheme: str | None = Field(None, description="one of FAMILIES, or other")
    algorithm: str | None = Field(None, description="as written: rtn, gptq, ...")
    layers: int | None = Field(None, description="decoder layers that stayed")
    trained: bool | None = Field(None, description="whether weights were trained before quantizing")
    kept: bool | None = Field(None, description="whether some layers stayed in 16 bits")
    trimmed: bool | None = Field(None, description="whether the vocabulary was trimmed")
    local_score: float | None = Field(None, description="the reporter's own estimate of the score")
    local_perf_norm: float | None = Field(None, description="local perf over the base's")
    local_speed_norm: float | None = Field(None, description="1 - local seconds a token over the base's, vLLM only")

    @property
    def group(self) -> tuple[object, ...]:
        """What makes rows near duplicates: one source, one recipe as far as it can be read."""
        return (self.source, self.scheme, self.algorithm, self.layers, self.trained, self.kept, self.trimmed)


def read_submissions(path: Path) -> list[Submission]:
    """The scored rows of the CSV at `path`, in its order.

    Raises `ValueError`, naming file, column, row, value and remedy, for a file that is not there or is no CSV text,
    columns that are missing, a number that is none, or fewer than `FEWEST` scored rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
            if missing:
                raise ValueError(
                    f"{path} has no column {', '.join(missing)}: add it to the header; its cells may be empty"
                )
            rows = list(enumerate(reader, start=2))
    except OSError as fault:
        raise ValueError(f"{path} cannot be read ({fault.strerror}): give the CSV of your submissions") from fault
    except (UnicodeDecodeError, csv.Error) as fault:
        raise ValueError(f"{path} is no CSV in UTF-8 ({fault}): save it as such") from fault
    scored = [(number, row) for number, row in rows if (row["server_score"] or "").strip()]
    if len(scored) < FEWEST:
        raise ValueError(f"{path} has {len(scored)} rows with a server_score; at least {FEWEST} are needed: add more")
    return [_submission(number, _with_details_of_others(row, [one for _, one in rows]), path) for number, row in scored]


def _with_details_of_others(row: Mapping[str, str], rows: list[dict[str, str]]) -> dict[str, str]:
    """`row`, where its details begin "as NAME", with those of the one row of its source whose name begins so."""
    said = _AS.match(row["details"] or "")
    if said is None:
        return dict(row)
    others = [one for one in rows if one["source"] == row["source"] and (one["name"] or "").startswith(said[1])]
    return {**row, "details": f"{row['details']}; {others[0]['details']}"} if len(others) == 1 else dict(row)


def _submission(number: int, row: Mapping[str, str], path: Path) -> Submission:
    def value(column: str) -> float | None:
        return _number(row[column], path, column, number)

    scheme = _family(row["scheme"] or "")
    said = f"{row['name'] or ''} {row['details'] or ''}"
    stated = scheme is not None
    perf, perf_base = value("local_perf"), value("local_perf_base")
    layers = value("layers")
    return Submission(
        row=number,
        source=row["source"] or "",
        name=row["name"] or "",
        score=value("server_score"),
        minutes=value("server_run_minutes"),
        scheme=scheme,
        algorithm=(row["algorithm"] or "").strip().lower() or None,
        layers=None if layers is None else int(layers),
        trained=_stated(_TRAINED.search(said), stated),
        kept=_stated(_KEEP_LIST.search(said) or (_LAYER.search(said) and _KEPT.search(said)), stated),
        trimmed=_stated(_TRIMMED.search(said), stated),
        local_score=value("local_score"),
        local_perf_norm=perf / perf_base if perf is not None and perf_base else None,
        local_speed_norm=None if _NO_VLLM.search(row["note"] or "") else _speed_norm(row, value),
    )


def _stated(found: object, stated: bool) -> bool | None:
    """True where the text says so; False where a recipe is stated without it; else unknown."""
    return True if found else False if stated else None


def _family(scheme: str) -> str | None:
    """The scheme's family; None where nothing is stated."""
    scheme = scheme.strip()
    if not scheme:
        return None
    return next((family for family in FAMILIES if scheme.upper().startswith(family.upper())), "other")


def _number(text: str | None, path: Path, column: str, row: int) -> float | None:
    """A cell's number, None where it is empty. Raises `ValueError` for anything else."""
    if text is None or not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}: column {column}, row {row} holds {text!r}, no number: correct it or leave it empty")
    return number


def _speed_norm(row: Mapping[str, str], value: Callable[[str], float | None]) -> float | None:
    """From seconds a token where both are there, else from tokens a second."""
    seconds, seconds_base = value("local_sec_per_token"), value("local_sec_per_token_base")
    if seconds is not None and seconds_base:
        return 1 - seconds / seconds_base
    rate, rate_base = value("local_tokens_per_s"), value("local_tokens_per_s_base")
    return 1 - rate_base / rate if rate and rate_base is not None else None
