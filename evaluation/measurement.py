"""What was seen of one model: grades, tokens and seconds by slice and pass. Records only; nothing is run here."""

from __future__ import annotations

import statistics

from pydantic import BaseModel, ConfigDict, Field

from evaluation.health import Health


class Timing(BaseModel):
    """One pass over one slice: seconds inside the engine's generate, and tokens generated."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    tokens: int
    mhz: float | None = Field(None, description="clock of the processor or GPU meanwhile; None where it is not told")


class BenchmarkFigures(BaseModel):
    """What one benchmark showed."""

    model_config = ConfigDict(frozen=True)

    grades: dict[str, float] = Field(description="by item, 0 to 1")
    passes: list[list[Timing]] = Field(description="by slice, then by pass; empty where nothing is generated")
    fixed: list[list[Timing]] = Field(
        default_factory=list,
        description="by slice: passes in which each answer was as long as the base's; empty for slices without",
    )
    details: dict[str, float] = Field(default_factory=dict, description="figures beside the value, by name")

    @property
    def value(self) -> float:
        return statistics.fmean(self.grades.values())

    @property
    def seconds(self) -> float:
        return sum(statistics.median(timing.seconds for timing in one) for one in self.passes)

    @property
    def tokens(self) -> int:
        return sum(one[0].tokens for one in self.passes)


class Measurement(BaseModel):
    """Everything seen of one model at one rung, on one engine and device."""

    model_config = ConfigDict(frozen=True)

    benchmarks: dict[str, BenchmarkFigures]
    engine: str
    device: str
    clock: str
    kernels: list[str]
    versions: dict[str, str] = Field(default_factory=dict, description="of the engine's environment")
    left_out: dict[str, str] = Field(default_factory=dict, description="benchmarks not in perf, and why")
    health: dict[str, Health] = Field(default_factory=dict, description="by benchmark, answers that are none")
    turns: bool = Field(False, description="whether passes alternated with the base's, so that pass k met one mood")

    @property
    def perf(self) -> float:
        """Unweighted mean of the benchmarks."""
        return statistics.fmean(one.value for one in self.benchmarks.values())

    @property
    def passes(self) -> list[list[Timing]]:
        """Timings of all slices of all benchmarks."""
        return [one for figures in self.benchmarks.values() for one in figures.passes]

    @property
    def fixed(self) -> list[list[Timing]]:
        """As `passes`, of answers as long as the base's; empty for slices that were not timed so."""
        return [one for figures in self.benchmarks.values() for one in figures.fixed]

    @property
    def mhz(self) -> float | None:
        """Median clock of all passes."""
        told = [timing.mhz for one in self.passes for timing in one if timing.mhz is not None]
        return statistics.median(told) if told else None

    @property
    def tokens(self) -> int:
        return sum(figures.tokens for figures in self.benchmarks.values())
