"""What a search found, for people: summary.csv, summary.md and a self-contained report.html. Reads the ledger."""

from __future__ import annotations

import csv
import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

from search.costs import costs_of
from search.errors import RunFailed
from search.findings import findings
from search.home import VERDICT
from search.job import Job
from search.ledger import RUNNING, Ledger, TrialRecord, ranked, trials_of
from search.lock import is_worked_on
from search.picture import picture
from search.recipe import Recipe
from search.target import in_words, predicted_of

COLUMNS = (
    "trial", "status", "rung", "score", "score_low", "score_high", "perf_norm", "speed_norm", "perf", "perf_base",
    "sec_per_token", "sec_per_token_base", "length_ratio", "fixed_norm", "fixed_low", "fixed_high", "first_score",
    "judged", "perf_by", "speed_by", "perf_low", "perf_high", "speed_low", "speed_high",
    "size_mb", "seconds", "cached_steps", "recipe", "reason",
)  # fmt: skip


def write_report(job: Job) -> list[Path]:
    """Write the three files into the run folder; returns their paths."""
    trials = in_order(job)
    rows = [row_of(trial, job.last_rung, job.devices) for trial in trials]
    table, text, page = (job.run / name for name in ("summary.csv", "summary.md", "report.html"))
    with table.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows({key: _plain(row[key]) for key in COLUMNS} for row in rows)
    told = status_of(job)
    learned = findings(job, trials)
    text.write_text(_markdown(job, told, learned, rows), encoding="utf-8")
    page.write_text(_page(job, told, learned, trials, rows), encoding="utf-8")
    return [table, text, page]


def status_of(job: Job) -> dict[str, Any]:
    """How far the search is and which trial leads, as data and as text."""
    trials = in_order(job)
    counts = Counter(trial.status for trial in trials)
    full = ranked(trials, job.last_rung)
    stages = [stage for trial in trials for line in trial.rungs.values() for stage in line["stages"]]
    working = is_worked_on(job)
    words = {} if working else {RUNNING: "open"}
    counted = ", ".join(f"{n} {words.get(name, name)}" for name, n in sorted(counts.items()))
    told: dict[str, Any] = {
        "run": job.place,
        "trials": len(trials),
        "budget": job.trials,
        "counts": dict(counts),
        "steps_built": sum(not stage["cached"] for stage in stages),
        "steps_from_store": sum(stage["cached"] for stage in stages),
        "best": None,
        "ties": [],
        "working": working,
        "open": [trial.name for trial in trials if trial.status == RUNNING],
    }
    lines = [
        f"{len(trials)} of {job.trials} trials" + (f": {counted}" if counted else " begun"),
        f"steps: {told['steps_built']} built, {told['steps_from_store']} served from the store",
    ]
    if full:
        best = full[0].line
        told["best"] = {
            key: best[key] for key in ("trial", "score", "score_low", "score_high", "perf_norm", "speed_norm")
        }
        told["best"]["recipe"] = str(Recipe.of(best["recipe"]))
        others = [trial.name for trial in full[1:] if _overlap(trial.line, best)]
        told["ties"] = others
        lines.append(
            f"best: {best['trial']}  score {best['score']:.4f} [{best['score_low']:.4f}, {best['score_high']:.4f}]  "
            f"PerfNorm {best['perf_norm']:.3f}  SpeedNorm {best['speed_norm']:+.3f}  {told['best']['recipe']}"
        )
        told["best"]["judged"] = full[0].judged
        lines += _as_judged(full)
        told["best"]["predicted"] = predicted_of(job.space, Recipe.of(best["recipe"]), job.base, best["device"])
        if best.get("fixed_norm") is not None:
            interval = f" [{best['fixed_low']:+.3f}, {best['fixed_high']:+.3f}]" if "fixed_low" in best else ""
            lines.append(
                f"its SpeedNorm with answers as long as the base's: {best['fixed_norm']:+.3f}{interval} "
                f"(it says {best['length_ratio']:.2f} times as much)"
            )
        if full[0].again is None and job.space.finalists:
            lines.append("it was measured once: nobody has looked a second time")
        lines += in_words(job.space, told["best"]["predicted"])
        if others:
            lines.append(f"not told apart from it, within the intervals: {', '.join(others)}")
    else:
        lines.append("no trial has been measured in full yet")
    if told["open"] and not told["working"]:
        lines.append(f"interrupted, open trials: {len(told['open'])}; go on with `squeeze resume {job.place}`")
    told["left_out"] = job.left_out or {}
    lines += [f"left out of perf: {name}, since {why}" for name, why in told["left_out"].items()]
    told["text"] = "\n".join(lines)
    return told


def who_works(job: Job, told: dict[str, Any]) -> list[str]:
    """Whether anybody does, in a line, where `status_of` does not tell and no submission was verified."""
    if told["working"]:
        return ["a driver is at work on it"]
    verdict = job.run / VERDICT
    verified = verdict.exists() and json.loads(verdict.read_text(encoding="utf-8"))["agrees"] is not False
    if told["open"] or verified:
        return []
    return [f"nobody is at work on it: `squeeze resume {job.place}` goes on with what is left to do"]


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["score_high"] >= other["score_low"] and one["score_low"] <= other["score_high"])


def _as_judged(full: list[TrialRecord]) -> list[str]:
    """Why the best is not the one with the highest score, where it is not."""
    highest = max(full, key=lambda trial: float(trial.line["score"]))
    if highest is full[0]:
        return []
    return [
        f"judged as {full[0].standing:.4f}, the score with the speed that all timings tell together; {highest.name} "
        f"measured {highest.line['score']:.4f}, and by that comes to {highest.standing:.4f}"
    ]


def in_order(job: Job) -> list[TrialRecord]:
    """Trials measured in full by their standing, then the others by how far they came."""
    trials = list(trials_of(Ledger(job.run / "ledger.jsonl").read()).values())
    full = ranked(trials, job.last_rung)
    rest = [trial for trial in trials if trial not in full]
    return full + sorted(rest, key=lambda one: (-len(one.rungs), -one.last["score"] if one.last else 0.0, one.name))


def row_of(trial: TrialRecord, last_rung: int, devices: int = 1) -> dict[str, Any]:
    """One line of the summary; its seconds are those of all devices that the trial held."""
    line = trial.last or {}
    stages = [stage for rung in trial.rungs.values() for stage in rung["stages"]]
    return {column: line.get(column) for column in COLUMNS} | {
        "trial": trial.name,
        "status": trial.status,
        "rung": f"{len(trial.rungs)}/{last_rung + 1}"
        + " twice" * (trial.again is not None)
        + " by likelihood" * (line is not None and line.get("perf_by") == "likelihood"),
        "first_score": trial.rungs[last_rung]["score"] if trial.again is not None else None,
        "judged": trial.judged,
        "size_mb": line["size_bytes"] / 1e6 if line else None,
        "seconds": sum(one.seconds for one in costs_of([trial], None, devices)),
        "cached_steps": sum(stage["cached"] for stage in stages),
        "recipe": str(Recipe.of(trial.recipe)),
        "reason": trial.end["reason"] if trial.end is not None else "",
    }


def _plain(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _cells(row: dict[str, Any]) -> list[str]:
    def number(key: str, form: str) -> str:
        return "" if row[key] is None else format(row[key], form)

    interval = "" if row["score"] is None else f"{row['score_low']:.3f} – {row['score_high']:.3f}"
    return [
        row["trial"], row["status"], row["rung"], number("score", ".4f"), interval, number("judged", ".4f"),
        number("perf_norm", ".3f"), number("speed_norm", "+.3f"), number("fixed_norm", "+.3f"),
        number("size_mb", ".1f"), row["recipe"], row["reason"],
    ]  # fmt: skip


HEAD = [
    "trial",
    "status",
    "rung",
    "score",
    "95 %",
    "judged",
    "PerfNorm",
    "SpeedNorm",
    "at base's lengths",
    "MB",
    "recipe",
    "reason",
]


def _markdown(job: Job, told: dict[str, Any], learned: list[str], rows: list[dict[str, Any]]) -> str:
    last = next((trial.last for trial in in_order(job) if trial.last), None)
    facts = [*told["text"].splitlines(), *([where_of(job, last)] if last else [])]
    lines = [f"# {job.name}", "", *(f"- {line}" for line in facts), ""]
    lines += [
        "The base scores 0.5. Scores of lower rungs come from fewer items and less training, those by likelihood "
        "from predictions beside the base's and a speed that was timed once or predicted.",
        "",
    ]
    lines += ["| " + " | ".join(HEAD) + " |", "| " + " | ".join("---" for _ in HEAD) + " |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |" for row in rows]
    lines += ["", *(f"- {line}" for line in learned)]
    return "\n".join(lines).rstrip() + "\n"


def _page(
    job: Job, told: dict[str, Any], learned: list[str], trials: list[TrialRecord], rows: list[dict[str, Any]]
) -> str:
    verification = job.run / "verification.json"
    verdict = _verdict(_read(verification)) if verification.exists() else ""
    body = "".join(
        f'<tr class="{html.escape(row["status"])}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
        + "</tr>"
        for row in rows
    )  # fmt: skip
    facts = "".join(f"<p>{html.escape(line)}</p>" for line in told["text"].splitlines())
    last = next((trial.last for trial in trials if trial.last), None)
    where = where_of(job, last) if last else ""
    return TEMPLATE.format(
        title=html.escape(job.name), facts=facts, where=html.escape(where), verdict=verdict,
        learned="".join(f"<li>{html.escape(line)}</li>" for line in learned),
        picture=picture(trials, job.last_rung), head="".join(f"<th>{name}</th>" for name in HEAD), body=body,
    )  # fmt: skip


def where_of(job: Job, line: dict[str, Any]) -> str:
    """On what the figures were taken, and by which clock: numbers of different kinds are not compared."""
    clock = "processor seconds of the engine" if line["clock"] == "cpu" else "wall-clock seconds"
    share = f", {job.space.gpus} of which share a model" if job.devices > 1 else ""
    return f"base {job.base_name or job.base.name}; {line['engine']} on {line['device']}{share}; time in {clock}"


def _read(verification: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(verification.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise RunFailed(f"{verification} is damaged ({fault}): verify the submission again") from fault
    return content


def _verdict(result: dict[str, Any]) -> str:
    if "score_verified" not in result:
        word = "refused: " if result["agrees"] is False else ""
        return f"<p>submit.zip: {word}{html.escape(result['why'])}</p>"
    word = "agrees" if result["agrees"] else "does NOT agree"
    return (
        f"<p>submit.zip: trial {html.escape(result['trial'])}, scored again from the zip: "
        f"{result['score_verified']['score']:.4f}; the search said {result['score_search']['score']:.4f}: "
        f"{word} ({result['difference']:.4f} apart, {result['allowed']:.4f} allowed by the intervals).</p>"
    )


TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>squeeze: {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; font-size: 13px; width: 100% }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }}
.note {{ color: #555; font-size: 13px }}
.stopped td {{ color: #777 }} .infeasible td, .failed td {{ color: #a33 }}
</style>
<h1>{title}</h1>{facts}<p>{where}</p>{verdict}
{picture}
<p class="note">The base scores 0.5. Large points were measured in full; small ones were stopped earlier, on fewer items
and less training: their scores are estimates, and no rung's are compared with another's. Bars are 95 % intervals.</p>
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>
<ul>{learned}</ul>
</html>
"""
