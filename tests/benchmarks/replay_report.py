"""What replays showed, as a Markdown table and a picture. Runs nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.benchmarks.replay import Order, Ran

RANDOM, FULL = "random", "full"
NEVER = math.inf
Pair = tuple[str, str]


class Group:
    """All searches of one searcher with one scheduler."""

    def __init__(self, ran: Sequence[Ran]) -> None:
        self.ran = ran
        self.seconds = sorted(one.seconds if one.found else NEVER for one in ran)
        self.trials = sorted(one.trials if one.found else NEVER for one in ran)

    @property
    def found(self) -> int:
        return sum(one.found for one in self.ran)

    @property
    def drawing(self) -> float:
        return statistics.fmean(one.drawing for one in self.ran)


def groups_of(ran: Iterable[Ran]) -> dict[Pair, Group]:
    found: dict[Pair, list[Ran]] = {}
    for one in ran:
        found.setdefault((one.searcher, one.scheduler), []).append(one)
    return {pair: Group(some) for pair, some in found.items()}


def median(values: Sequence[float]) -> float:
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values, without going between one and forever."""
    place = share * (len(values) - 1)
    low, high = values[math.floor(place)], values[math.ceil(place)]
    return low if low == high or math.isinf(low) else low + (high - low) * (place - math.floor(place))


def ninetieth(values: Sequence[float]) -> float:
    return quantile(values, 0.9)


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


FIGURES: tuple[Callable[[Sequence[float]], float], ...] = (median, mean, ninetieth)


def in_words(ran: Sequence[Ran], order: Order, default: Pair, about: dict[str, Any]) -> str:
    """The table, best median first, and what the default is held against."""
    groups = groups_of(ran)
    full = groups.get((RANDOM, FULL))
    lines = [
        f"{about['seeds']} seeds, {about['workers']} device(s), eta {about['eta']:g}; table on {about['machine']}, "
        f"{about.get('dates', '')}; best score {about['best']:.4f}, {order.good} recipes within 0.005 of it.",
        "",
        "| searcher | scheduler | found | seconds: median | mean | 90 % | trials: median | mean | 90 % | "
        "median / random in full | median / random, same scheduler | median / table in order | choosing, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for pair, group in sorted(groups.items(), key=lambda item: (median(item[1].seconds), item[0])):
        seconds = " | ".join(_number(figure(group.seconds)) for figure in FIGURES)
        trials = " | ".join(_number(figure(group.trials)) for figure in FIGURES)
        same = groups.get((RANDOM, pair[1]))
        of_all = _number(median(group.seconds) / order.all, 3)
        ratios = " | ".join([_ratio(group, full), _ratio(group, same), of_all])
        name = f"**{pair[0]}** | **{pair[1]}**" if pair == default else " | ".join(pair)
        found = f"{group.found}/{len(group.ran)}"
        lines.append(f"| {name} | {found} | {seconds} | {trials} | {ratios} | {group.drawing:.1f} |")
    lines += ["", f"All of the table in order, in full: {order.all:.0f} s; its first good recipe is number "
              f"{order.trials}, after {order.until:.0f} s."]  # fmt: skip
    if (mine := groups.get(default)) is not None:
        lines += _against(mine, default, groups, full, order)
    return "\n".join(lines) + "\n"


def _against(mine: Group, default: Pair, groups: dict[Pair, Group], full: Group | None, order: Order) -> list[str]:
    """The default beside what it is to beat."""
    share = _number(median(mine.seconds) / order.all, 3)
    told = f"median {share} of the table in order, {_ratio(mine, full)} of random in full"
    lines = [f"The default is {' with '.join(default)}: {told}."]
    others = {pair: ninetieth(group.seconds) for pair, group in groups.items() if pair[0] != default[0]}
    if others:
        best = min(others, key=lambda pair: others[pair])
        lines.append(
            f"Its 90th percentile is {_number(ninetieth(mine.seconds))} s; the smallest of another searcher is "
            f"{_number(others[best])} s ({best[0]} with {best[1]})."
        )
    return ["", *lines]


def _ratio(group: Group, other: Group | None) -> str:
    if other is None or math.isinf(median(other.seconds)):
        return "–"
    return _number(median(group.seconds) / median(other.seconds), 2)


def _number(value: float, digits: int = 0) -> str:
    return "never" if math.isinf(value) else f"{value:.{digits}f}"


WIDE, HIGH, LEFT, RIGHT, TOP = 860, 22, 190, 60, 46


def drawn(ran: Sequence[Ran], default: Pair) -> str:
    """An SVG: of each pair the median, the range from the 10th to the 90th percentile, seconds on a log scale."""
    groups = sorted(groups_of(ran).items(), key=lambda item: (median(item[1].seconds), item[0]))
    ends = [one for _, group in groups for one in group.seconds if 0 < one < NEVER] or [1.0]
    low, high = math.floor(math.log10(min(ends))), math.ceil(math.log10(max(ends)) + 0.01)

    def place(value: float) -> float:
        if math.isinf(value):
            return WIDE - RIGHT + 26
        return LEFT + (WIDE - LEFT - RIGHT) * (math.log10(max(value, 10**low)) - low) / (high - low)

    bottom = TOP + HIGH * len(groups)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {bottom + 34}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="18" fill="#333">device seconds until a recipe within 0.005 of the best is found: '
        "10th percentile, median, 90th</text>",
    ]
    marks = [factor * 10**power for power in range(low, high) for factor in (1, 2, 5)] + [10**high]
    for value in [*marks, NEVER]:
        at = place(value)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP - 8}" x2="{at:.1f}" y2="{bottom}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" fill="#777" text-anchor="middle">{_number(value)}</text>')
    for number, (pair, group) in enumerate(groups):
        middle = TOP + HIGH * number + HIGH / 2
        color = "#1a7f5a" if pair == default else "#b03030" if pair[0] == RANDOM else "#3070b0"
        weight = "bold" if pair == default else "normal"
        start, half, end = (place(quantile(group.seconds, share)) for share in (0.1, 0.5, 0.9))
        parts += [
            f'<text x="{LEFT - 12}" y="{middle + 4:.1f}" text-anchor="end" font-weight="{weight}">'
            f"{' · '.join(pair)}</text>",
            f'<line x1="{start:.1f}" y1="{middle}" x2="{end:.1f}" y2="{middle}" stroke="{color}" stroke-width="3"/>',
            f'<circle cx="{half:.1f}" cy="{middle}" r="5" fill="{color}"/>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
