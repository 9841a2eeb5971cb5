"""A real vLLM in a process of its own: started once, kept warm between models, killed with all it started.

The other end is `evaluation/worker.py`, started by path with the engine environment's Python, so that environment
may hold another vLLM than ours. Requests go to its stdin and replies come from its stdout, one JSON line each:

    hello {}                                      -> engine, device, device_name, versions, harness [lm-eval's]
    load {model, settings}                        -> seconds, kernels, max_model_len
    generate {conversations, sampling, thinking}  -> seconds, cpu_seconds,
                                                     mhz, answers [{text, tokens, prompt_tokens, finish, ...}]
    generate {texts, sampling}                    -> the same, of texts that go on as they stand
    choose {conversations, options}               -> logprobs [of each conversation's options, one each]
    harness {parts [{task, docs, shots}], thinking} -> values, answers [by part and document], seconds, cpu_seconds, mhz
    score {texts, top, max_tokens}                -> texts [{tokens, ends, actual, top_ids, top_logprobs}]
    score {..., conversations, thinking}          -> the same, of texts that are the answers to conversations
    sleep {}, wake {}, unload {}                  -> {}

A request that failed is answered by {error, message, refused, memory}: after a refusal the engine can go on, and
`memory` says what there is where too little was the reason.

Knows nothing of benchmarks, scores or recipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.base import Decoding
from evaluation.processes import PATIENCE, await_released, end_session, of_session, on_device, said_of
from evaluation.protocol import (
    Answer,
    EngineFault,
    EngineSettings,
    Generation,
    Harnessed,
    OutOfMemory,
    ScoredText,
    lacks_memory,
)

WORKER = Path(__file__).with_name("worker.py")
KERNEL_LINE = re.compile(r"(?:Selected|Using)\s+(\w+(?:Kernel|LinearKernel|Backend\.\w+|_ATTN\w*))")  # in vLLM's log


class Engine:
    """Use as a context manager, or call `close`. Not thread-safe: one request at a time."""

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        self.settings = settings
        self.log = log
        self.about: dict[str, Any] = {}
        self.kernels: list[str] = []
        self.max_model_len = 0  # of the loaded model, tokens
        self.loaded: Path | None = None
        self.eager = False  # the loaded model has no CUDA graphs, so its speed says nothing; never so on a CPU
        self.asleep = False
        self._process: subprocess.Popen[str] | None = None
        self._killed: set[int] = set()

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
            if self.settings.device == "cuda" and about["device"] == "cpu":
                self.close()
                raise EngineFault(f"{self.settings.python} holds a CPU build of vLLM, or sees no GPU: build it anew")
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
        if left := await_released(self._killed, self.settings.device):
            raise EngineFault(
                f"processes {sorted(left)} of an engine killed {PATIENCE:.0f} s ago still hold memory: see nvidia-smi"
            )
        self._killed = set()  # their numbers may be given to others
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
        self.loaded, self.about = None, {}

    def load(self, folder: Path, eager: bool = False) -> None:
        """Serve the model in `folder` from now on; `eager` starts sooner on a GPU, for what is not timed."""
        self.start()
        self.loaded, self.asleep = None, False
        heard = self.log.stat().st_size
        self.eager = eager and self.about["device"] != "cpu"
        request = {"model": str(folder), "settings": self._llm_settings(folder)}
        try:
            reply = self._ask("load", self.settings.load_timeout, **request)
        except OutOfMemory as fault:
            raise OutOfMemory(f"{fault}; {self._memory_of(folder)}") from fault
        self.kernels = sorted({*reply["kernels"], *KERNEL_LINE.findall(self._said_since(heard))})
        self.max_model_len = reply["max_model_len"]
        self.loaded = folder

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
        self, conversations: Sequence[list[dict[str, str]]], options: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Of each conversation the log-probability (nats, summed over tokens) that each option is its answer.

        Nothing is thought before it.
        """
        request = {"conversations": list(conversations), "options": list(options)}
        found: list[list[float]] = self._ask("choose", self.settings.answer_timeout, **request)["logprobs"]
        return found

    def harness(self, parts: Sequence[dict[str, Any]], thinking: bool = False) -> Harnessed:
        """Ask tasks of lm-eval; `parts` name a task, its documents and what its examples are drawn from."""
        reply = self._ask("harness", self.settings.answer_timeout, parts=list(parts), thinking=thinking)
        return Harnessed.model_validate(reply)

    def score(self, texts: Sequence[str], top: int, max_tokens: int, **after: Any) -> list[ScoredText]:
        """Log-probabilities of `texts`, each cut to `max_tokens` tokens.

        With `conversations` and `thinking`, each text is the answer to a conversation of its own.
        """
        request = {"texts": list(texts), "top": top, "max_tokens": max_tokens} | after
        reply = self._ask("score", self.settings.answer_timeout, **request)
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
        """Give the model's memory back and keep the process."""
        if self.loaded is not None:
            ranks = self._ranks()
            self._ask("unload", self.settings.load_timeout)
            self.loaded = None
            await_released(ranks, self.settings.device)  # vLLM kills those that take long to end, and waits for none

    def _ranks(self) -> set[int]:
        """Processes that hold a part each of a model that several GPUs share."""
        if self._process is None or self.settings.device == "cpu" or self.settings.tensor_parallel_size == 1:
            return set()
        return on_device(of_session(self._process.pid) - {self._process.pid})

    def close(self) -> None:
        """Kill the process and all it started; returns once they are gone."""
        process, self._process, self.loaded, self.asleep = self._process, None, None, False
        if process is None:
            return
        self._killed = end_session(process.pid)
        process.wait()
        await_released(self._killed, "cpu")  # who stays is told by the next launch, which a GPU's list holds up too
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent bytes for a process that is gone
                    pipe.close()

    def _environment(self) -> dict[str, str]:
        quiet = {
            # On a CPU one process does all, and its processor seconds can be counted. On a GPU vLLM runs as it comes,
            # its core in a process of its own: that is what others time, and a core that ends frees all its memory.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if self.settings.device == "cpu" else "1",
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # the worker asks its own core for the kernels by a function
            "VLLM_CPU_KVCACHE_SPACE": str(self.settings.kv_cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self.settings.tensor_parallel_size > 1:
            # One engine waits while the other is timed: the processes of vLLM 0.14.1 would wait busily, for ever.
            quiet["VLLM_SLEEP_WHEN_IDLE"] = "1"
        if self.settings.device == "cpu":
            quiet |= {
                "TORCH_COMPILE_DISABLE": "1",  # eager mode anyway; spares a C++ compiler and 20 s at first use
                # One core is left to the caller. Threads that spin at barriers, bound to cores that somebody else
                # uses, made the same batch 45 times slower (docs/measurements.md): sleep there, and bind to none.
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(
                    max(1, (len(os.sched_getaffinity(0)) - 1) // self.settings.tensor_parallel_size)
                ),
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
        if settings.tensor_parallel_size > 1:
            # named, since what vLLM chooses by itself hangs on whether it finds Ray: these are processes of its own
            common |= {"tensor_parallel_size": settings.tensor_parallel_size, "distributed_executor_backend": "mp"}
        if self.about["device"] == "cpu":
            return common | {"enforce_eager": True}
        return common | {
            "enforce_eager": settings.eager or self.eager,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enable_sleep_mode": settings.sleeps,
        }

    def _memory_of(self, folder: Path) -> str:
        """What a load is known to ask for: that may be the least of it, so none of it is said to be what failed."""
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**30
        has = f"the model has {weights:.2f} GiB of weights on disk"
        if self.settings.device == "cpu":
            return f"{has}, its KV cache takes {self.settings.kv_cache_gib} GiB"
        gpus = self.settings.tensor_parallel_size
        whose = "the GPU's memory" if gpus == 1 else f"the memory of {gpus} GPUs"
        return f"{has}, and all it needs must fit in {self.settings.gpu_memory_utilization:.0%} of {whose}"

    def _ask(self, op: str, timeout: float, **request: Any) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EngineFault("the engine is not running")
        heard = self.log.stat().st_size
        try:
            process.stdin.write(json.dumps({"op": op, **request}) + "\n")
            process.stdin.flush()
            line = self._read_line(process, timeout)
        except TimeoutError as fault:
            self.close()
            raise EngineFault(f"{op}: {fault}, so it was killed; last words: {self._last_words()}") from fault
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineFault(f"{op}: the engine's process {self._ending(process)}; last words: {self._last_words()}")
        reply = json.loads(line)
        if "error" in reply:
            if not reply["refused"]:  # after a fault nobody knows what state it is in: the next load starts afresh
                self.close()
            told = f"{op}: {reply['error']}: {reply['message']}"
            short = not reply["refused"] and lacks_memory(told, self._said_since(heard))
            raise OutOfMemory(f"out of memory: {told} ({reply['memory']})") if short else EngineFault(told)
        return reply

    def _ending(self, process: subprocess.Popen[str]) -> str:
        """How it ended by itself, once it is gone with all it started."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closed its pipe and stays: then it is killed here
            process.wait(5)
        ended = process.returncode
        self.close()
        return said_of(ended)

    @staticmethod
    def _read_line(process: subprocess.Popen[str], timeout: float) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise TimeoutError(f"no answer within {timeout:.0f} s")
        return process.stdout.readline()

    def _said_since(self, position: int) -> str:
        """What the log holds after its first `position` bytes."""
        return self.log.read_bytes()[position:].decode(errors="replace")

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][-300:] if lines else "none"
