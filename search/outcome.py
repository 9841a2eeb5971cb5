"""How a trial ended, as searchers and budgets are told. A record only."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Outcome(BaseModel):
    """How a recipe ended. Figures are those of the last rung it finished, which is no final one where it `stopped`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["finished", "stopped", "infeasible", "failed"]
    rung: int = Field(0, description="the last it finished, from 0")
    score: float | None = Field(None, description="None where nothing was measured")
    perf_norm: float | None = None
    speed_norm: float | None = None
    size_bytes: float | None = None
    seconds: float | None = Field(None, description="what that rung took of a device, built and measured")
    advice: dict[str, int] = Field(
        default_factory=dict, description="by STEP.FIELD, the number that what was measured on the way speaks for"
    )

    @classmethod
    def of(cls, status: str, line: dict[str, Any] | None) -> Outcome:
        """From a trial's status and its last ledger line, if it has one."""
        if line is None:
            return cls.model_validate({"status": status})
        figures = {name: line.get(name) for name in ("score", "perf_norm", "speed_norm", "size_bytes")}
        figures["seconds"] = seconds_of(line)
        figures["advice"] = {
            f"{stage['step']}.{field}": number
            for stage in line.get("stages", ())
            for field, number in stage.get("advice", {}).items()
        }
        return cls.model_validate({"status": status, "rung": line["rung"], **figures})


def seconds_of(line: dict[str, Any]) -> float:
    """What a finished rung takes of a device, by its ledger line: what is built for it, and measuring."""
    built = sum(stage["seconds"] for stage in line.get("stages", ()) if not stage["cached"])
    return float(built + line.get("measuring_seconds", 0.0))


def held_by(line: dict[str, Any]) -> float:
    """For how long it held a device: also until what was in the store, and the conversations, were at hand."""
    waited = sum(stage["seconds"] for stage in line.get("stages", ()) if stage["cached"])
    return seconds_of(line) + float(line.get("data_seconds", 0.0) + waited)
