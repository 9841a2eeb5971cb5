"""The command line: fast help, one clear line and exit 2 for bad input, nothing left behind."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.main import get_command

from search.cli import app, main
from search.job import Job

SQUEEZE = str(Path(sys.executable).with_name("squeeze"))


def squeeze(*words, cwd=None):
    return subprocess.run([SQUEEZE, *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False)


def test_the_commands_and_options_are_these():
    """A change here is a change for every user: make it on purpose."""
    commands = get_command(app).commands
    found = {name: sorted(o for p in command.params for o in p.opts) for name, command in commands.items()}
    assert found == {
        "search": ["--address", "--base", "--hours", "--json", "--out", "--seed", "--store", "--trials", "--verify",
                   "space"],
        "resume": ["--address", "--json", "--verify", "run"],
        "status": ["--json", "run"],
        "report": ["--json", "run"],
        "export": ["--json", "--output", "--pick", "-o", "run"],
        "verify": ["--engine", "--json", "--run", "submission"],
        "compress": ["--base", "--data", "--json", "--output", "-o", "recipe"],
        "evaluate": ["--baseline", "--engine", "--json", "--space", "model"],
        "plan": ["--base", "--hours", "--json", "--store", "--trials", "space"],
        "doctor": ["--address", "--json"],
    }  # fmt: skip


def test_help_answers_within_a_second():
    squeeze("--help")  # the first start compiles bytecode
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        assert squeeze("--help").returncode == 0
        times.append(time.perf_counter() - begin)
    assert min(times) < 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "demo", "--base", "no/such/folder", "--out", "run"], "no base model at no/such/folder"),
        (["search", "demo", "--base", "space.yaml", "--out", "run"], "is a file"),
        (["search", "demo", "--base", ".", "--out", "run"], "not a model folder"),
        (["search", "nonesuch", "--base", "tiny", "--out", "run"], "no preset named nonesuch"),
        (["search", "step.yaml", "--base", "tiny", "--out", "run"], "unknown step shrink"),
        (["search", "field.yaml", "--base", "tiny", "--out", "run"], "step drop_layers has no field number"),
        (["search", "items.yaml", "--base", "tiny", "--out", "run"], "no benchmark items at"),
        (["search", "demo", "--base", "tiny", "--out", "/proc/run"], "cannot write into /proc/run"),
        (["search", "demo", "--base", "b" * 300, "--out", "run"], "cannot be read"),
        (["search", "demo", "--base", "tiny", "--out", "o" * 300], "File name too long"),
        (["search", "demo", "--base", "tiny", "--out", "run", "--store", "/proc/store"], "cannot write into /proc"),
        (["search", "demo", "--base", "tiny", "--out", "run", "--trials", "0"], "--trials"),
        (["search", "demo", "--out", "run"], "base"),
        (["search", "demo", "--base", "untokenized", "--out", "run"], "has no tokenizer"),
        (["search", "null.yaml", "--base", "tiny", "--out", "run"], "kmmlu_pro"),
        (["search", "short.yaml", "--base", "tiny", "--out", "run"], "do not fit max_model_len 128"),
        (
            ["search", "prompts.yaml", "--base", "tiny", "--out", "run"],
            "evaluation.prompts: hub names no data set: write",
        ),
        (["plan", "heldout.yaml", "--base", "tiny"], "evaluation.heldout: hub names no data set: write hub:OWNER/NAME"),
        (["plan", "chats.yaml", "--base", "tiny"], "calibration: hub names no data set: write hub:OWNER/NAME"),
        (["search", "folder.yaml", "--base", "tiny", "--out", "run"], "no space at folder.yaml"),
        (["search", "latin.yaml", "--base", "tiny", "--out", "run"], "not YAML"),
        (["search", "list.yaml", "--base", "tiny", "--out", "run"], "unknown step ['a']"),
        (["search", "rows.yaml", "--base", "tiny", "--out", "run"], "a row is a mapping"),
        (["resume", "."], "not a run folder"),
        (["status", "badrun"], "run.json"),
        (["status", "s4://bucket/run"], "s4://bucket/run is no place squeeze knows"),
        (["report", "s3://key:secret@bucket/run"], "give credentials in the environment"),
        (["export", "run.yaml", "--pick", "score"], "not a run folder"),
        (["verify", "none.zip"], "no submission at none.zip"),
        (["compress", '[{"step": "shrink"}]', "--base", "tiny", "-o", "out"], "shrink"),
        (["compress", "3", "--base", "tiny", "-o", "out"], "no recipe at 3"),
        (["compress", '[{"step": "drop_layers", "count": 1}]', "--base", "tiny", "-o", "space.yaml"], "there already"),
        (["plan", "step.yaml", "--base", "tiny"], "step.yaml, line 3: steps: unknown step shrink"),
        (["plan", "circle.yaml", "--base", "tiny"], "circle.yaml, line 3: steps: the conditions go round in a circle"),
        (["search", "circle.yaml", "--base", "tiny", "--out", "run"], "circle.yaml, line 3: steps: the conditions go"),
        (["plan", "nothing.yaml", "--base", "tiny"], "nothing.yaml, line 2: no recipe of this space is feasible for"),
        (["search", "nothing.yaml", "--base", "tiny", "--out", "run"], "nothing.yaml, line 2: no recipe of this space"),
        (["plan", "demo", "--base", "tiny", "--store", "nowhere"], "no store at nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, space_text, words, said, monkeypatch, capfd):
    """In this process, which has torch and transformers: each new one takes seconds to import them."""
    (tmp_path / "space.yaml").write_text(space_text)
    (tmp_path / "step.yaml").write_text(space_text.replace("step: drop_layers\n", "step: shrink\n"))
    (tmp_path / "field.yaml").write_text(space_text.replace("count: [1, 2, 3]", "number: 3"))
    (tmp_path / "items.yaml").write_text(space_text.replace("reference:items/kmmlu_pro.jsonl", "nothing.jsonl"))
    (tmp_path / "list.yaml").write_text(space_text.replace("step: drop_layers\n", "step: [a]\n"))
    (tmp_path / "rows.yaml").write_text(space_text.replace("reference:items/kmmlu_pro.jsonl", "rows.jsonl"))
    (tmp_path / "rows.jsonl").write_text("3\n")
    (tmp_path / "null.yaml").write_text(space_text.replace("reference:items/kmmlu_pro.jsonl", "null"))
    (tmp_path / "short.yaml").write_text(space_text.replace("kmmlu_pro", "ko_longrag") + "max_model_len: 128\n")
    for name in ("prompts", "heldout"):
        (tmp_path / f"{name}.yaml").write_text(space_text.replace("evaluation:", f"evaluation:\n  {name}: hub"))
    (tmp_path / "chats.yaml").write_text(space_text.replace("reference:text/calibration.jsonl", "hub"))
    circle = "steps:\n  - {step: nf4, when: {nf4.use: true}}\n"
    (tmp_path / "circle.yaml").write_text("\n" + circle + space_text[space_text.index("evaluation:") :])
    nothing = "\nsteps:\n  - {step: drop_layers, count: [10, 11]}\n"
    (tmp_path / "nothing.yaml").write_text(nothing + space_text[space_text.index("evaluation:") :])
    (tmp_path / "latin.yaml").write_bytes("steps: café".encode("latin-1"))
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "badrun").mkdir()
    (tmp_path / "badrun" / "run.json").write_text("[]")
    (tmp_path / "badrun" / "ledger.jsonl").touch()
    (tmp_path / "untokenized").mkdir()
    (tmp_path / "untokenized" / "config.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["squeeze", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capfd.readouterr().err
    assert ended.value.code == 2, told
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_imported_on_the_way_to_bad_input_says_nothing(tmp_path, space_text):
    (tmp_path / "items.yaml").write_text(space_text.replace("reference:items/kmmlu_pro.jsonl", "nothing.jsonl"))
    done = squeeze("search", "items.yaml", "--base", "tiny", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "no benchmark items at" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["items.yaml"]


def test_a_run_whose_base_changed_is_not_resumed(tmp_path, space):
    job = Job(
        base=tmp_path / "gone",
        base_key="0",
        run=tmp_path,
        store=tmp_path / "store",
        space=space,
        device="cpu",
        trials=3,
    )
    job.save()
    (tmp_path / "ledger.jsonl").touch()
    done = squeeze("resume", tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "is gone" in done.stderr


def test_a_fault_is_json_where_json_was_asked_for(tmp_path):
    done = squeeze("status", tmp_path, "--json")
    assert json.loads(done.stdout) == {"error": done.stderr.strip().removeprefix("squeeze: "), "exit": 2}


def test_a_run_that_lost_its_ledger_does_not_begin_anew(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    done = squeeze("resume", tmp_path)
    assert done.returncode == 2
    assert "lost its ledger" in done.stderr


def test_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    done = squeeze("search", "demo", "--base", "tiny", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "squeeze resume" in done.stderr
