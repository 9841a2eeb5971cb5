"""Documents of lm-eval's tasks as the caller reads them: quietly, and in the form that docs/benchmarks.md shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.reference import MODEL
from tests.evaluation.test_harness import ifeval, written


def test_the_rows_that_the_page_shows_are_taken(tmp_path):
    shown = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    examples = [json.loads(line) for line in shown.split("```json\n")[1].split("```")[0].splitlines()]
    assert {one["task"].split("_")[0] for one in examples} == {"mmlu", "gpqa", "ifeval"}
    for one in examples:
        source = written(tmp_path / "rows.jsonl", [one["row"]])
        [item] = HarnessTask(f"lm_eval:{one['task']}", source).items([])
        assert next(str(text) for text in one["row"].values() if str(text).endswith(("?", "."))) in item.turns[0]


QUIET = """
import sys
from transformers import AutoTokenizer
from evaluation.benchmarks.harness_task import HarnessTask
task = HarnessTask("lm_eval:ifeval", sys.argv[1])
task.longest(task.items([]), AutoTokenizer.from_pretrained(sys.argv[2]), False)
"""


def test_reading_and_counting_a_task_says_nothing(tmp_path):
    """In a process of its own: what a task's code does as it is imported, it does once."""
    rules = written(tmp_path / "rows.jsonl", ifeval(2))
    called = [sys.executable, "-c", QUIET, rules, str(MODEL)]
    bare = os.environ | {"NLTK_DATA": "", "HOME": str(tmp_path)}  # no data of nltk's
    done = subprocess.run(called, env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
