"""What the nodes of a cluster lack, in one page. Looks and changes nothing; needs a Ray that was joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cluster.fleet import PATIENCE, SHOWN, ask, read
from cluster.kinds import kind_of
from cluster.nodes import Expected, NodeReport, expected_like, look_here


def survey(patience: float = PATIENCE) -> list[dict[str, Any]]:
    """One entry a node: node, address, ok, lacks [what, and what to do], kind, and its report where it gave one.

    Measured by this machine's environment. The contest's engine stands in the report alone: its absence is no fault but
    to those who ask for it.
    """
    import ray

    expected = expected_like(NodeReport.model_validate(look_here()))
    asked = {ask(one["NodeID"], "contest"): one for one in ray.nodes() if one["Alive"]}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=patience)
    late = f"no answer in {patience:.0f} s: see that Ray can start workers there"
    entries = []
    for answer, node in asked.items():
        report, lacks = read(answer, _asked_of(node, expected)) if answer in ready else (None, [late])
        entries.append(_entry(node, report, lacks))
    return sorted(entries, key=lambda entry: (entry["address"], entry["node"]))


def page(entries: list[dict[str, Any]], address: str) -> str:
    """The same for people."""
    fit = [entry for entry in entries if entry["ok"]]
    kinds = Counter(entry["kind"] for entry in fit if entry["kind"])
    told = ", ".join(f"{number} with {kind}" for kind, number in kinds.most_common())
    lines = [f"cluster at {address}: {len(fit)} of {len(entries)} nodes ok{f'; {told}' if told else ''}"]
    if len(kinds) > 1:
        lines.append("a search runs on one kind of device: on its space's target, else on what most nodes have")
    lines += [_line(entry) for entry in entries]
    contest = [entry for entry in fit if not entry["report"]["engine_lacks"]]
    lines.append(f"contest's engine: on {len(contest)} of {len(fit)}; `engine: contest` in a space asks for it")
    lines += sorted({f"  {one['report']['engine_lacks']}" for one in fit if one["report"]["engine_lacks"]})
    return "\n".join(lines)


def _asked_of(node: Mapping[str, Any], expected: Expected) -> Expected:
    """Where Ray counts a GPU there must be one."""
    return expected.model_copy(update={"device": "cuda"}) if kind_of("cuda", node["Resources"]) else expected


def _entry(node: Mapping[str, Any], report: NodeReport | None, lacks: list[str]) -> dict[str, Any]:
    has = node["Resources"]
    name = report.device_name if report is not None and report.device == "cuda" else ""
    gpu = kind_of("cuda", has, name)
    kind = gpu or kind_of("cpu", has, report.device_name if report is not None else "")
    return {
        "node": node["NodeID"],
        "address": node["NodeManagerAddress"],
        "ok": not lacks,
        "lacks": lacks,
        "kind": str(kind) if kind is not None else "",
        "gpus": has.get("GPU", 0.0),
        "cpus": has.get("CPU", 0.0),
        "report": report.model_dump() if report is not None else None,
    }


def _line(entry: Mapping[str, Any]) -> str:
    report = entry["report"] or {}
    host = f" ({report['host']})" if report else ""
    begin = f"{'ok ' if entry['ok'] else 'NO '} node {entry['node'][:SHOWN]} at {entry['address']}{host}"
    if not entry["ok"]:
        return f"{begin}: {'; '.join(entry['lacks'])}"
    gpus = f"{entry['gpus']:g} x {entry['kind']}, " if entry["gpus"] else ""
    return f"{begin}: {gpus}{entry['cpus']:g} CPUs, {report['disk_gb']:g} GB free"
