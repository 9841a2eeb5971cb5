"""What a search has cost so far, stage by stage, in seconds of the devices it held and, where a price is given, money.

Reads ledger lines. Not in them is what trials spent waiting for a device, what was lost with a process that died or
cut short by an interrupt, the start of Ray and its workers, and the submission's verification.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from search.ledger import TrialRecord

MEASURING = "measuring"
DATA = "conversations"  # read, written by the base, or waited for while another worker has it write them
STORE = "from the store"  # stages that were there, or that another worker was building: until they were at hand
IN_VAIN = "in vain"  # rungs that ended in a fault
HOUR = 3600.0


class Cost(NamedTuple):
    """Of one stage: how often it ran, device seconds, and money."""

    stage: str
    times: int
    seconds: float
    money: float | None


def costs_of(trials: Iterable[TrialRecord], price: float | None, devices: int = 1) -> list[Cost]:
    """By stage, dearest first. `price` is that of one device for an hour; a trial holds `devices`."""
    seconds: dict[str, list[float]] = {}
    for trial in trials:
        for line in [*trial.rungs.values(), *([trial.again] if trial.again is not None else [])]:
            for stage in line["stages"]:
                seconds.setdefault(STORE if stage["cached"] else stage["step"], []).append(stage["seconds"] * devices)
            for name, field in ((DATA, "data_seconds"), (MEASURING, "measuring_seconds")):
                if line.get(field):  # not in ledgers of earlier versions
                    seconds.setdefault(name, []).append(line[field] * devices)
        if trial.in_vain:
            seconds.setdefault(IN_VAIN, []).append(trial.in_vain * devices)
    found = [
        Cost(stage, len(spent), sum(spent), None if price is None else sum(spent) / HOUR * price)
        for stage, spent in seconds.items()
    ]
    return sorted(found, key=lambda one: -one.seconds)
