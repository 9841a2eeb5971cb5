"""A task of lm-eval (MMLU, GPQA, IFEval) as a benchmark: its documents are items, its first metric their grade.

The harness itself asks and grades, in the engine's environment (`evaluation.harness`); here its documents are read,
from the hub or from local copies of the same columns, and its values are taken as they are. Knows no task.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from evaluation.benchmarks.base import KINDS, BadData, Decoding, Item, OutOfReach, read_rows
from evaluation.benchmarks.hub import HUB

T = TypeVar("T")
PREFIX = "lm_eval:"
ABSENT = {"livecodebench": "lm-eval has no task of LiveCodeBench, which would have to run what a model writes"}


class HarnessTask:
    """`lm_eval:TASK`; the value is the mean over documents of the task's first metric.

    A task that only weighs likelihoods generates nothing, so it `weighs` and is not timed.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.task = name.removeprefix(PREFIX)
        self.weighs = True
        self._limits: dict[str, int] = {}  # generated tokens at most, by task
        self._generating: set[str] = set()  # tasks that do not only weigh
        self._shots: dict[str, list[dict[str, Any]]] = {}  # what examples are drawn from, by task
        self._items = self._read(source)

    def items(self, rows: list[dict[str, Any]]) -> list[Item]:
        """All documents, in the harness's order; they were read with the task, so `rows` is not looked at."""
        return self._items

    def decoding(self, item: Item) -> Decoding:
        return Decoding(max_tokens=self._limits[item.category])

    def grade(self, item: Item, answers: tuple[str, ...]) -> float:
        """The harness's own value, which is the answer here."""
        return float(answers[0]) if answers else 0.0

    def generates(self, item: Item) -> bool:
        """Whether its task does: a group may hold tasks that generate and tasks that weigh."""
        return item.category in self._generating

    def parts(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """What the harness is asked: of each task its documents, and what its examples are drawn from."""
        by_task: dict[str, list[dict[str, Any]]] = {}
        for item in items:
            by_task.setdefault(item.category, []).append(item.reference["doc"])
        return [{"task": task, "docs": docs, "shots": self._shots[task]} for task, docs in by_task.items()]

    def in_order(self, items: Sequence[Item], told: Sequence[Sequence[T]]) -> list[T]:
        """What was told by part and document, in the order of `items`."""
        by_task = {part["task"]: iter(found) for part, found in zip(self.parts(items), told, strict=True)}
        return [next(by_task[item.category]) for item in items]

    def longest(self, items: Sequence[Item], tokenizer: Any, thinking: bool) -> tuple[int, str]:
        """Tokens of the longest prompt of `items` asked together, template and examples included, and whose it is."""
        from evaluation import harness

        with _quiet():
            tokens, task, number = harness.longest(self.parts(items), tokenizer, thinking)
        return tokens, [item.id for item in items if item.category == task][number]

    def _read(self, source: str) -> list[Item]:
        for name, why in ABSENT.items():
            if name in self.task.lower():
                raise BadData(f"{self.name}: {why}: leave it out")
        with _quiet():
            from evaluation import harness

            try:
                leaves = harness.leaves(self.task)
            except KeyError as fault:
                raise BadData(f"{self.name}: {self._unknown(sorted(harness.manager(self.task).task_index))}") from fault
            return [item for leaf in leaves for item in self._read_leaf(leaf, source, alone=len(leaves) == 1)]

    def _read_leaf(self, leaf: str, source: str, alone: bool) -> list[Item]:
        from jinja2 import TemplateError

        from evaluation import harness

        rows, shots = (None, None) if source == HUB else _local(self.name, leaf, source, alone)
        try:
            found = harness.documents(leaf, rows, shots)
            json.dumps([found["docs"], found["shots"]])
        except harness.Unusable as fault:
            raise BadData(f"{self.name}: {fault}") from fault
        except (OSError, ValueError, TypeError) as fault:
            reason = f"{type(fault).__name__}: {' '.join(str(fault).split())[:160]}"
            remedy = "accept its terms on its page where it is gated and set HF_TOKEN, or download it and name its file"
            kind = OutOfReach if source == HUB and isinstance(fault, OSError) else BadData
            raise kind(f"{self.name}: no documents of {leaf} from {source} ({reason}): {remedy}") from fault
        except (
            LookupError,
            TemplateError,
        ) as fault:  # a template or function of the task asked for a column that no row has
            raise BadData(f"{self.name}: the rows of {source} lack a column of {leaf}: {fault}") from fault
        self.weighs = self.weighs and not found["generates"]
        self._generating |= {leaf} if found["generates"] else set()
        self._limits[leaf] = found["max_tokens"]
        self._shots[leaf] = found["shots"]
        about = {
            "harness": version("lm_eval"),
            "metric": found["metric"],
            "shots": hashlib.sha256(json.dumps(found["shots"], sort_keys=True).encode()).hexdigest()[:16],
        }
        return [
            Item(id=f"{PREFIX}{leaf}-{number}", turns=(text,), reference=about | {"doc": doc}, category=leaf)
            for number, (doc, text) in enumerate(zip(found["docs"], found["texts"], strict=True))
        ]

    def _unknown(self, known: list[str]) -> str:
        import difflib

        near = difflib.get_close_matches(self.task, known, n=3)
        like = f"; it has {', '.join(near)}" if near else ""
        return f"lm-eval {version('lm_eval')} has no task {self.task}{like}"


def _local(name: str, leaf: str, source: str, alone: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Rows of one task, and those its examples are drawn from, where they lie beside them as LEAF.shots.jsonl."""
    if source.startswith(HUB):
        raise BadData(
            f"{name}: {source}: write {HUB} alone, for where the task's rows were published, or a file's name"
        )
    path = Path(source)
    if not path.is_dir():
        if not alone:
            raise BadData(f"{name} is made of several tasks: name a folder with a file of each, {leaf}.jsonl first")
        return read_rows(path, ()), None
    files = [path / f"{leaf}{kind}" for kind in KINDS if (path / f"{leaf}{kind}").exists()]
    shots = [path / f"{leaf}.shots{kind}" for kind in KINDS if (path / f"{leaf}.shots{kind}").exists()]
    if not files:
        raise BadData(f"{name}: {source} holds no {leaf}.jsonl, .json or .parquet")
    return read_rows(files[0], ()), read_rows(shots[0], ()) if shots else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness talks on stdout, warns of its own defaults and draws bars: none of it is for who runs a search."""
    import datasets

    for name in ("lm_eval", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if shown:
            datasets.enable_progress_bars()
