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

NEEDED = ("scheme", "algorithm", "server_score")  # columns without which a row says nothing of a recipe or its score
TEXTS = ("source", "name", "details", "note")
NUMBERS: dict[str, tuple[float, float]] = {  # the least and the most that a column may hold
    "layers": (1, 1000),
    **dict.fromkeys(
        ("local_perf", "local_perf_base", "local_sec_per_token", "local_sec_per_token_base"), (0, math.inf)
    ),
    **dict.fromkeys(("local_tokens_per_s", "local_tokens_per_s_base", "server_run_minutes"), (0, math.inf)),
    **dict.fromkeys(("local_score", "server_score"), (0, 1)),
}
COLUMNS = ("scheme", "algorithm", *TEXTS, *NUMBERS)  # all that are looked at
FEWEST = 10  # scored rows from which anything may be learned
FAMILIES = ("W8A8", "FP8", "W4A16", "none")  # schemes with a name of their own; all others are "other"
SCHEMES = (
    *("W8A8", "W8A8_STATIC", "FP8", "FP8_DYNAMIC", "FP8_STATIC", "FP8_BLOCK", "W4A16", "W4A16_ASYM"),
    *("W8A16", "W4A8", "INT4", "none", "other"),
)  # INT4: four bits of a form that was not told
SHOWN = 5  # faults that a refusal names

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

    row: int = Field(0, description="line of the CSV on which it ends")
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

    Raises `ValueError`, naming file, line, column, value and remedy, for a file that is not there or is no CSV text,
    columns that are missing, cells of any row that are not allowed, or fewer than `FEWEST` scored rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [column for column in NEEDED if column not in (reader.fieldnames or [])]
            if missing:
                raise ValueError(
                    f"{path} has no column {', '.join(missing)}: {', '.join(NEEDED)} are needed, others may be left out"
                )
            rows = [(reader.line_num, {column: row.get(column) or "" for column in COLUMNS}) for row in reader]
    except OSError as fault:
        raise ValueError(f"{path} cannot be read ({fault.strerror}): give the CSV of your submissions") from fault
    except (UnicodeDecodeError, csv.Error) as fault:
        raise ValueError(f"{path} is no CSV in UTF-8 ({fault}): save it as such") from fault
    faults = [f"line {line}, {fault}" for line, row in rows for fault in _faults(row)]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(f"{path}: {'; '.join(faults[:SHOWN])}{more}: correct them or leave the cells empty")
    scored = [(line, row) for line, row in rows if row["server_score"].strip()]
    if len(scored) < FEWEST:
        raise ValueError(f"{path} has {len(scored)} rows with a server_score; at least {FEWEST} are needed: add more")
    return [_submission(line, _with_details_of_others(row, [one for _, one in rows])) for line, row in scored]


def _faults(row: Mapping[str, str]) -> list[str]:
    """What the cells of a row hold that they may not."""
    found = []
    if row["scheme"].strip() not in ("", *SCHEMES):
        found.append(f"column scheme holds {row['scheme']!r}, which is none of {', '.join(SCHEMES)}")
    for column, (low, high) in NUMBERS.items():
        try:
            number = _number(row[column])
        except ValueError:
            number = math.nan
        if number is None:
            continue
        if not math.isfinite(number):
            found.append(f"column {column} holds {row[column]!r}, no number")
        elif not low <= number <= high:
            limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            found.append(f"column {column} holds {row[column]!r}, which is not {limits}")
        elif column == "layers" and number != int(number):
            found.append(f"column layers holds {row[column]!r}, no whole number")
    return found


def _with_details_of_others(row: Mapping[str, str], rows: list[dict[str, str]]) -> dict[str, str]:
    """`row`, where its details begin "as NAME", with those of the one row of its source whose name begins so."""
    said = _AS.match(row["details"])
    if said is None:
        return dict(row)
    others = [one for one in rows if one["source"] == row["source"] and one["name"].startswith(said[1])]
    return {**row, "details": f"{row['details']}; {others[0]['details']}"} if len(others) == 1 else dict(row)


def _submission(line: int, row: Mapping[str, str]) -> Submission:
    def value(column: str) -> float | None:
        return _number(row[column])

    scheme = _family(row["scheme"])
    said = f"{row['name']} {row['details']}"
    stated = scheme is not None
    perf, perf_base = value("local_perf"), value("local_perf_base")
    layers = value("layers")
    return Submission(
        row=line,
        source=row["source"],
        name=row["name"],
        score=value("server_score"),
        minutes=value("server_run_minutes"),
        scheme=scheme,
        algorithm=row["algorithm"].strip().lower() or None,
        layers=None if layers is None else int(layers),
        trained=_stated(_TRAINED.search(said), stated),
        kept=_stated(_KEEP_LIST.search(said) or (_LAYER.search(said) and _KEPT.search(said)), stated),
        trimmed=_stated(_TRIMMED.search(said), stated),
        local_score=value("local_score"),
        local_perf_norm=perf / perf_base if perf is not None and perf_base else None,
        local_speed_norm=None if _NO_VLLM.search(row["note"]) else _speed_norm(row, value),
    )


def _stated(found: object, stated: bool) -> bool | None:
    """True where the text says so; False where a recipe is stated without it; else unknown."""
    return True if found else False if stated else None


def _family(scheme: str) -> str | None:
    """The scheme's family; None where nothing is stated."""
    scheme = scheme.strip()
    if not scheme:
        return None
    return next((family for family in FAMILIES if scheme.startswith(family)), "other")


def _number(text: str) -> float | None:
    """A cell's number, None where it is empty. Raises `ValueError` for anything else."""
    return float(text) if text.strip() else None


def _speed_norm(row: Mapping[str, str], value: Callable[[str], float | None]) -> float | None:
    """From seconds a token where both are there, else from tokens a second."""
    seconds, seconds_base = value("local_sec_per_token"), value("local_sec_per_token_base")
    if seconds is not None and seconds_base:
        return 1 - seconds / seconds_base
    rate, rate_base = value("local_tokens_per_s"), value("local_tokens_per_s_base")
    return 1 - rate_base / rate if rate and rate_base is not None else None
