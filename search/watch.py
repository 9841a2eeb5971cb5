"""What a person sees of a running search: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from search.recipe import Recipe

STYLES = {
    "finished": "green",
    "stopped": "yellow",
    "infeasible": "magenta",
    "failed": "red",
    "running": "cyan",
}


def _how(line: dict[str, Any]) -> str:
    """What of a line was not seen in answers and timings."""
    told = ["perf by likelihood"] * (line.get("perf_by") == "likelihood")
    told += ["speed predicted"] * (line.get("speed_by") == "roofline")
    return f"  ({', '.join(told)})" if told else ""


class Watch:
    """Use as a context manager around a search; tell it of each rung and each end."""

    def __init__(self, budget: int, rungs: int, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, soft_wrap=True)
        self.budget = budget
        self.rungs = rungs
        self.quiet = quiet
        self.rows: dict[str, dict[str, Any]] = {}
        self.begin = time.monotonic()
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal and not quiet else None

    def __enter__(self) -> Watch:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """One line of news."""
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False)

    def started(self, trial: str, recipe: Recipe) -> None:
        self.rows.setdefault(trial, {"recipe": str(recipe), "status": "running", "line": None})
        self._draw()

    def rung(self, line: dict[str, Any]) -> None:
        row = self.rows.setdefault(line["trial"], {"status": "running"})
        row |= {"recipe": str(Recipe.of(line["recipe"])), "line": line}
        self._draw(
            f"{self._clock()} {line['trial']} rung {line['rung'] + 1}/{self.rungs}  score {line['score']:.4f} "
            f"[{line['score_low']:.4f}, {line['score_high']:.4f}]  perf {line['perf_norm']:.3f}  "
            f"speed {line['speed_norm']:+.3f}{_how(line)}  {row['recipe']}"
        )

    def again(self, line: dict[str, Any]) -> None:
        """One of the best was measured a second time."""
        row = self.rows.setdefault(line["trial"], {"recipe": str(Recipe.of(line["recipe"])), "status": "finished"})
        row["line"] = line
        self._draw(
            f"{self._clock()} {line['trial']} measured again  score {line['score']:.4f} "
            f"[{line['score_low']:.4f}, {line['score_high']:.4f}]  perf {line['perf_norm']:.3f}  "
            f"speed {line['speed_norm']:+.3f}"
        )

    def ended(self, trial: str, recipe: Recipe, status: str, reason: str) -> None:
        row = self.rows.setdefault(trial, {"line": None})
        row |= {"recipe": str(recipe), "status": status}
        self._draw(f"{self._clock()} {trial} {status}{': ' + reason if reason else ''}")

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.begin)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"

    def _draw(self, news: str = "") -> None:
        if self.live is not None:
            self.live.update(self._table(), refresh=True)
        elif news:
            self.say(news)

    def _table(self) -> Table:
        table = Table(title=f"squeeze  {self._clock()}  {len(self.rows)}/{self.budget} trials", title_justify="left")
        for column in ("trial", "status", "rung", "score", "95 %", "perf", "speed", "recipe"):
            table.add_column(column, no_wrap=column != "recipe")
        for trial, row in self.rows.items():
            line = row.get("line")
            shown = (
                [
                    f"{line['rung'] + 1}/{self.rungs}",
                    f"{line['score']:.4f}",
                    f"{line['score_low']:.3f}–{line['score_high']:.3f}",
                    f"{line['perf_norm']:.3f}",
                    f"{line['speed_norm']:+.3f}",
                ]
                if line is not None
                else ["", "", "", "", ""]
            )
            table.add_row(trial, row["status"], *shown, row["recipe"], style=STYLES.get(row["status"]))
        return table
