"""A real vLLM in its own process: what it answers, and that nothing of it stays when it should be gone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cluster.resources import find_device
from evaluation.benchmarks.base import Decoding, read_rows
from evaluation.benchmarks.heldout import compare, perplexity
from evaluation.engine import Engine
from evaluation.protocol import EngineFault, EngineSettings
from evaluation.reference import HELDOUT, MODEL

CHAT = [{"role": "user", "content": "Say hello."}]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pids, seconds=20.0):
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(alive(pid) for pid in pids)


def test_it_says_what_it_is(engine):
    assert engine.about["engine"].startswith("vllm ")
    assert engine.about["device"] == find_device()
    assert engine.about["versions"]["torch"] == torch.__version__


def test_answers_are_counted_timed_and_bounded(engine):
    engine.load(MODEL)
    done = engine.generate([CHAT, CHAT], [Decoding(max_tokens=3), Decoding(max_tokens=12)])
    assert [answer.tokens <= most for answer, most in zip(done.answers, (3, 12), strict=True)] == [True, True]
    assert done.seconds > 0
    assert done.cpu_seconds > 0
    assert done.answers[0].prompt_tokens == done.answers[1].prompt_tokens > 0


def test_greedy_answers_repeat(engine):
    engine.load(MODEL)
    first, second = (engine.generate([CHAT], [Decoding(max_tokens=16)]).answers[0].text for _ in range(2))
    assert first == second


def test_its_log_probabilities_are_those_of_transformers(engine):
    """Perplexity within 1 %, on the texts that searches use."""
    from transformers import AutoModelForCausalLM

    engine.load(MODEL)
    texts = [row["text"] for row in read_rows(HELDOUT, ("text",))][:12]
    scored = engine.score(texts, top=16, max_tokens=256)
    ours = perplexity([compare(one, one) for one in scored])
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    total, positions = 0.0, 0
    for one in scored:
        ids = torch.tensor([one.tokens])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (len(one.tokens) - 1)
        positions += len(one.tokens) - 1
    assert ours == pytest.approx(float(torch.tensor(total / positions).exp()), rel=0.01)


def test_a_broken_model_is_told_and_the_next_one_served(engine, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(MODEL, broken)
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(EngineFault, match="load: "):
        engine.load(broken)
    engine.load(MODEL)
    assert engine.generate([CHAT], [Decoding(max_tokens=2)]).answers[0].tokens >= 1


def test_a_prompt_that_does_not_fit_is_told(engine):
    engine.load(MODEL)
    with pytest.raises(EngineFault, match="does not fit max_model_len"):
        engine.generate([[{"role": "user", "content": "1 2 3 4 " * 2000}]], [Decoding(max_tokens=2)])


def test_an_engine_of_another_version_is_refused(engine, tmp_path):
    other = Engine(EngineSettings(versions={"vllm": "0.14.1"}), tmp_path / "log")
    other._ask = lambda *_, **__: engine.about  # what our own engine said of itself when it started
    other.launch = lambda: None
    with pytest.raises(EngineFault, match=r"holds vllm .*, not 0\.14\.1"):
        other.start()
    assert other.about == {}


def test_without_an_interpreter_it_says_so(tmp_path):
    engine = Engine(EngineSettings(python=str(tmp_path / "python")), tmp_path / "log")
    with pytest.raises(EngineFault, match="no interpreter at"):
        engine.start()


def test_an_environment_without_vllm_is_told(tmp_path):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # no site-packages
    script.chmod(0o755)
    engine = Engine(EngineSettings(python=str(script)), tmp_path / "log")
    with pytest.raises(EngineFault, match="No module named"):
        engine.start()
    engine.close()


def test_an_engine_that_hangs_is_killed(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nsleep 600\n")
    script.chmod(0o755)
    engine = Engine(EngineSettings(python=str(script), load_timeout=0.5), tmp_path / "log")
    begin = time.monotonic()
    with pytest.raises(EngineFault, match="no answer within"):
        engine.start()
    assert time.monotonic() - begin < 10
    assert subprocess.run(["pgrep", "-f", str(script)], capture_output=True, check=False).stdout == b""


def test_it_dies_with_whoever_started_it(tmp_path):
    """SIGKILL leaves the starter no chance to clean up: the engine has to notice by itself."""
    code = (
        "import sys, time; from pathlib import Path; from evaluation.engine import Engine, EngineSettings; "
        f"engine = Engine(EngineSettings(), Path({str(tmp_path / 'log')!r})).start(); "
        "print(engine._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert alive(pid)
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
    assert wait_gone([pid])
