"""A real vLLM in a process of its own: started once, kept warm between models, killed with all it started.

The other end is `evaluation/worker.py`, started by path with the engine environment's Python, so that environment
may hold another vLLM than ours. Requests go to its stdin and replies come from its stdout, one JSON line each:

    hello {}                                      -> engine, device, device_name, versions
    load {model, settings}                        -> seconds, kernels, max_model_len
    generate {conversations, sampling, thinking}  -> seconds, cpu_seconds,
                                                     mhz, answers [{text, tokens, prompt_tokens, finish}]
    generate {texts, sampling}                    -> the same, of texts that go on as they stand
    choose {conversations, options, thinking}     -> logprobs [of each conversation's options, one each]
    harness {parts [{task, docs, shots}], thinking} -> values, tokens [by part and document], seconds, cpu_seconds
    score {texts, top, max_tokens}                -> texts [{tokens, ends, actual, top_ids, top_logprobs}]
    sleep {}, wake {}, unload {}                  -> {}

A request that failed is answered by {error, message, refused}; after a refusal the engine can go on.

Knows nothing of benchmarks, scores or recipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from evaluation.benchmarks.base import Decoding

WORKER = Path(__file__).with_name("worker.py")


class EngineFault(Exception):
    """The engine could not do what it was asked: the message says what, and what the engine said."""


class EngineSettings(BaseModel):
    """Limits that change timings, pinned so that two measurements can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("cpu", description="cpu or cuda: what the models are served on")
    clock: Literal["wall", "cpu"] = Field(
        "wall", description="cpu counts the seconds the engine's threads computed: for CPU machines shared with others"
    )
    python: str = Field(sys.executable, description="the interpreter of the environment that holds vLLM")
    versions: dict[str, str] = Field(default_factory=dict, description="package to version that it must report")
    max_model_len: int = Field(4096, description="tokens of prompt and answer together, at most")
    max_num_batched_tokens: int = Field(8192, description="tokens in one forward pass, at most")
    max_num_seqs: int = Field(256, description="sequences in one batch, at most")
    gpu_memory_utilization: float = Field(0.85, description="share of the GPU's memory (the contest's value)")
    kv_cache_gib: int = Field(1, description="KV cache on a CPU, GiB")
    eager: bool = Field(False, description="no CUDA graphs: starts sooner, generates slower; always so on a CPU")
    sleeps: bool = Field(False, description="on a GPU: able to lend its memory to another engine and to take it back")
    max_logprobs: int = Field(64, description="likeliest tokens a position can report")
    load_timeout: float = Field(900.0, description="seconds before a load counts as hung")
    answer_timeout: float = Field(1800.0, description="seconds before a batch counts as hung")


class Answer(BaseModel):
    """What the model said to one prompt."""

    model_config = ConfigDict(frozen=True)

    text: str
    tokens: int
    prompt_tokens: int
    finish: str | None


class Generation(BaseModel):
    """One batch of answers, and the wall and processor seconds spent inside vLLM's generate."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    cpu_seconds: float
    mhz: float | None = Field(None, description="clock of the GPU, or of the processor, while it generated")
    answers: list[Answer]


class Harnessed(BaseModel):
    """What lm-eval found: of each part's documents a value and the tokens generated, and the seconds of all."""

    model_config = ConfigDict(frozen=True)

    values: list[list[float]]
    tokens: list[list[int]]
    seconds: float
    cpu_seconds: float


class ScoredText(BaseModel):
    """A text of n tokens: n - 1 log-probabilities of what came next, and the likeliest tokens at each place.

    Token k ends before character ends[k]; several tokens may make up one character, and end before the same one.
    """

    model_config = ConfigDict(frozen=True)

    tokens: list[int]
    ends: list[int] = Field(default_factory=list)  # none where a slow tokenizer does not tell
    actual: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]


class Engine:
    """Use as a context manager, or call `close`. Not thread-safe: one request at a time."""

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        self.settings = settings
        self.log = log
        self.about: dict[str, Any] = {}
        self.kernels: list[str] = []
        self.max_model_len = 0  # of the loaded model, tokens
        self.loaded: Path | None = None
        self.asleep = False
        # A process that can sleep takes its memory by an allocator that outlives the model: it serves one, and ends.
        self._served = False
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Engine:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Engine:
        """Start the process unless it runs. Raises `EngineFault` when its environment holds no usable vLLM."""
        self.launch()
        if not self.about:
            about = self._ask("hello", self.settings.load_timeout)
            self._check_versions(about["versions"])
            self.about = about
        return self

    def _check_versions(self, found: dict[str, str]) -> None:
        """A figure of another version is no figure of this engine: `EngineFault` names the first that differs."""
        for package, wanted in self.settings.versions.items():
            version = found.get(package, "none")
            if version.partition("+")[0] != wanted:
                self.close()
                raise EngineFault(f"{self.settings.python} holds {package} {version}, not {wanted}: build it anew")

    def launch(self) -> None:
        """Start the process without waiting for it: it imports vLLM while the caller does something else."""
        if self._process is not None and self._process.poll() is None:
            return
        if not Path(self.settings.python).exists():
            raise EngineFault(f"no interpreter at {self.settings.python}: is the engine's environment installed?")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [self.settings.python, str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment(),
                start_new_session=True,
            )
        self.loaded, self.about, self._served = None, {}, False

    def load(self, folder: Path) -> None:
        """Serve the model in `folder` from now on."""
        if self.settings.sleeps and self._served:
            self.close()
        self.start()
        self.loaded, self.asleep = None, False
        reply = self._ask("load", self.settings.load_timeout, model=str(folder), settings=self._llm_settings(folder))
        self.kernels, self.max_model_len = reply["kernels"], reply["max_model_len"]
        self.loaded, self._served = folder, True

    def generate(
        self,
        conversations: Sequence[list[dict[str, str]]],
        decodings: Sequence[Decoding],
        thinking: bool = False,
    ) -> Generation:
        """Answer each conversation; greedy unless its decoding says otherwise."""
        sampling = [
            {"max_tokens": d.max_tokens, "temperature": d.temperature, "seed": 0, "ignore_eos": d.exact}
            for d in decodings
        ]
        request = {"conversations": list(conversations), "sampling": sampling, "thinking": thinking}
        return Generation.model_validate(self._ask("generate", self.settings.answer_timeout, **request))

    def complete(self, texts: Sequence[str], max_tokens: int, temperature: float, seed: int) -> list[Answer]:
        """Go on with each text as it stands, no template; the n-th is drawn with `seed` + n."""
        sampling = [{"max_tokens": max_tokens, "temperature": temperature, "seed": seed + n} for n in range(len(texts))]
        reply = self._ask("generate", self.settings.answer_timeout, texts=list(texts), sampling=sampling)
        return Generation.model_validate(reply).answers

    def choose(
        self, conversations: Sequence[list[dict[str, str]]], options: Sequence[Sequence[str]], thinking: bool = False
    ) -> list[list[float]]:
        """Of each conversation the log-probability (nats, summed over tokens) that each option is its answer."""
        request = {"conversations": list(conversations), "options": list(options), "thinking": thinking}
        found: list[list[float]] = self._ask("choose", self.settings.answer_timeout, **request)["logprobs"]
        return found

    def harness(self, parts: Sequence[dict[str, Any]], thinking: bool = False) -> Harnessed:
        """Ask tasks of lm-eval; `parts` name a task, its documents and what its examples are drawn from."""
        reply = self._ask("harness", self.settings.answer_timeout, parts=list(parts), thinking=thinking)
        return Harnessed.model_validate(reply)

    def score(self, texts: Sequence[str], top: int, max_tokens: int) -> list[ScoredText]:
        """Log-probabilities of `texts`, each cut to `max_tokens` tokens."""
        reply = self._ask("score", self.settings.answer_timeout, texts=list(texts), top=top, max_tokens=max_tokens)
        return [ScoredText.model_validate(text) for text in reply["texts"]]

    def sleep(self) -> None:
        """Lend the GPU's memory to others: the weights wait in main memory until `wake`. Nothing on a CPU."""
        if self.settings.sleeps and self.loaded is not None and not self.asleep:
            self._ask("sleep", self.settings.load_timeout)
            self.asleep = True

    def wake(self) -> None:
        """Take the memory back; nothing for one that is awake."""
        if self.asleep:
            self._ask("wake", self.settings.load_timeout)
            self.asleep = False

    def unload(self) -> None:
        """Give the model's memory back; the process stays, save one that can sleep."""
        if self.settings.sleeps and self._served:
            self.close()
        elif self.loaded is not None:
            self._ask("unload", self.settings.load_timeout)
            self.loaded = None

    def close(self) -> None:
        """Kill the process and all it started; returns once they are gone."""
        process, self._process, self.loaded, self.asleep = self._process, None, None, False
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent bytes for a process that is gone
                    pipe.close()

    def _environment(self) -> dict[str, str]:
        quiet = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this process is the engine's own already
            "VLLM_CPU_KVCACHE_SPACE": str(self.settings.kv_cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self.settings.device == "cpu":
            quiet |= {
                "TORCH_COMPILE_DISABLE": "1",  # eager mode anyway; spares a C++ compiler and 20 s at first use
                # One core is left to the caller. Threads that spin at barriers, bound to cores that somebody else
                # uses, made the same batch 45 times slower (docs/measurements.md): sleep there, and bind to none.
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
                "OMP_WAIT_POLICY": "PASSIVE",
            }
        return dict(os.environ) | quiet

    def _llm_settings(self, folder: Path) -> dict[str, Any]:
        settings = self.settings
        config = json.loads((folder / "config.json").read_text())
        common = {
            "max_model_len": min(settings.max_model_len, config["max_position_embeddings"]),
            "max_num_batched_tokens": settings.max_num_batched_tokens,
            "max_num_seqs": settings.max_num_seqs,
            "enable_prefix_caching": False,
            "max_logprobs": settings.max_logprobs,
            "seed": 0,
            "dtype": "bfloat16",
        }
        if self.about["device"] == "cpu":
            return common | {"enforce_eager": True}
        return common | {
            "enforce_eager": settings.eager,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enable_sleep_mode": settings.sleeps,
        }

    def _ask(self, op: str, timeout: float, **request: Any) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EngineFault("the engine is not running")
        try:
            process.stdin.write(json.dumps({"op": op, **request}) + "\n")
            process.stdin.flush()
            line = self._read_line(process, timeout)
        except (BrokenPipeError, TimeoutError) as fault:
            self.close()
            raise EngineFault(f"{op}: {fault}; last words: {self._last_words()}") from fault
        if not line:
            self.close()
            raise EngineFault(f"{op}: the engine's process ended; last words: {self._last_words()}")
        reply = json.loads(line)
        if "error" in reply:
            if not reply["refused"]:  # after a fault nobody knows what state it is in: the next load starts afresh
                self.close()
            raise EngineFault(f"{op}: {reply['error']}: {reply['message']}")
        return reply

    @staticmethod
    def _read_line(process: subprocess.Popen[str], timeout: float) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise TimeoutError(f"no answer within {timeout:.0f} s")
        return process.stdout.readline()

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][-300:] if lines else "none"
