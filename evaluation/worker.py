"""The engine's process: loads models into vLLM and answers requests, one JSON line each way.

Runs in the engine's own environment, which may hold another vLLM (0.14.1 to 0.32) than the caller's: so it imports
nothing of this project, and is started by path. Knows nothing of benchmarks, scores or artifacts. Requests and
replies are described in `evaluation.engine`, which is the other end.
"""

import contextlib
import gc
import importlib.metadata
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import machine
from reading import Reader, Unreadable

Request = dict[str, Any]
Reply = dict[str, Any]


class Refused(Exception):
    """The request cannot be done, and nothing was begun: the engine is as it was."""


def kernels_of(model: Any) -> list[str]:
    """What runs the linear layers of a loaded model: kernel classes, or the method's where it has none."""
    names = set()
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if method is None:
            continue
        scheme = getattr(module, "scheme", None) or method
        kernel = getattr(scheme, "kernel", None)
        names.add(type(kernel if kernel is not None else scheme).__name__)
    return sorted(names)


def seconds_of(_worker: Any) -> float:
    """Processor seconds of the process that this is sent to."""
    return time.process_time()


def harness_version() -> str:
    """lm-eval's, or none: only an engine that is asked for its tasks needs it."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def die_with_parent() -> None:
    """End this process and all it started as soon as the process that started it is gone, however it ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def collecting_once() -> Iterator[None]:
    """Garbage is collected at the end alone, and what is left is set aside: no model holds it.

    vLLM collects seven times while one model takes another's place. Each time goes through what imports left, more
    than a million objects and half a second: most of what a small model's load takes.
    """
    collect = gc.collect
    gc.collect = lambda generation=2: 0
    try:
        yield
    finally:
        gc.collect = collect
        gc.unfreeze()  # what was set aside by the last time, or by vLLM after its load
        gc.collect()
        gc.freeze()


class Worker:
    """Holds at most one model at a time."""

    def __init__(self) -> None:
        import torch
        import transformers
        import vllm
        from vllm.platforms import current_platform

        self.llm: Any = None
        self.reader: Any = None  # of the loaded model
        self.gpus = 1  # that share it; on a CPU processes that do
        self.device = "cpu" if current_platform.is_cpu() else "cuda"
        if self.device == "cpu":
            # vLLM's attention uses AMX tiles without asking the kernel for them, which is an illegal instruction
            # until somebody has: oneDNN does, so only models without a bf16 or int8 matrix (W4A8) died of it.
            torch.cpu._init_amx()
        else:
            gc.enable()  # before a load: vLLM's core may be a fork of this process, and would never collect
        self.about = {
            "engine": f"vllm {vllm.__version__}",
            "device": self.device,
            "device_name": machine.device_name(self.device),
            "versions": {
                "python": platform.python_version(),
                "vllm": vllm.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "compressed-tensors": importlib.metadata.version("compressed-tensors"),
            },
            "harness": harness_version(),
        }

    def hello(self, _request: Request) -> Reply:
        return self.about

    def load(self, request: Request) -> Reply:
        """Load `model` (a folder) with `settings` (keyword arguments of vllm.LLM); unloads what was there."""
        from vllm import LLM

        self.unload(request)
        self.gpus = request["settings"].get("tensor_parallel_size", 1)
        begin = time.perf_counter()
        self.llm = LLM(model=request["model"], **request["settings"])
        gc.enable()  # all is imported now
        self.reader = Reader(self.llm.get_tokenizer())
        return {
            "seconds": time.perf_counter() - begin,
            "kernels": sorted(set().union(*self.llm.apply_model(kernels_of))),
            "max_model_len": self.llm.llm_engine.model_config.max_model_len,
        }

    def sleep(self, _request: Request) -> Reply:
        """Weights to main memory, KV cache given up; the engine holds next to nothing of the GPU until `wake`."""
        self.llm.sleep(level=1)
        return {}

    def wake(self, _request: Request) -> Reply:
        self.llm.wake_up()
        return {}

    def unload(self, _request: Request) -> Reply:
        if self.llm is None:
            return {}
        engine_core: Any = getattr(self.llm.llm_engine, "engine_core", None)
        if (self.device == "cuda" or self.gpus > 1) and hasattr(engine_core, "shutdown"):
            engine_core.shutdown()
        with collecting_once() if self.device == "cpu" else contextlib.nullcontext():
            self.llm = engine_core = None
        gc.collect()
        return {}

    def render(self, conversations: list[list[dict[str, str]]], thinking: bool) -> list[list[int]]:
        try:
            prompts: list[list[int]] = self.reader.prompts(conversations, thinking)
        except Unreadable as fault:
            raise Refused(str(fault)) from fault
        return prompts

    def generate(self, request: Request) -> Reply:
        """Answer `conversations`, or go on with `texts` as they stand; `seconds` is spent inside vLLM's generate alone.

        `cpu_seconds` is what the engine's own threads computed in that time: on a shared CPU machine the wall clock
        also counts what others did.
        """
        from vllm import SamplingParams

        if "texts" in request:
            tokenizer = self.llm.get_tokenizer()
            prompts = [tokenizer.encode(text, add_special_tokens=False) for text in request["texts"]]
        else:
            prompts = self.render(request["conversations"], request["thinking"])
        params = [SamplingParams(**one) for one in request["sampling"]]
        limit = self.llm.llm_engine.model_config.max_model_len
        chats = request.get("conversations") or [[]] * len(prompts)
        fits = [len(prompt) < limit for prompt in prompts]
        for prompt, one, fit, chat in zip(prompts, params, fits, chats, strict=True):
            if not fit and not any(message["role"] == "assistant" for message in chat):
                raise Refused(f"a prompt of {len(prompt)} tokens does not fit max_model_len {limit}")
            one.max_tokens = max(1, min(one.max_tokens, limit - len(prompt)))
        asked = [{"prompt_token_ids": prompt} for prompt, fit in zip(prompts, fits, strict=True) if fit]
        params = [one for one, fit in zip(params, fits, strict=True) if fit]
        with self.clock() as clock:
            cpu, begin = self.computed(), time.perf_counter()
            outputs = iter(self.llm.generate(asked, params, use_tqdm=False) if asked else [])
            seconds, cpu_seconds = time.perf_counter() - begin, self.computed() - cpu
        # Where the model's own answers filled the context, its next one was cut off before its first token.
        full = {"text": "", "tokens": 0, "finish": "length"}
        answers = [
            self.answer(next(outputs), "texts" in request) if fit else full | {"prompt_tokens": len(prompt)}
            for prompt, fit in zip(prompts, fits, strict=True)
        ]
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "mhz": clock.mhz, "answers": answers}

    def clock(self) -> machine.Clock:
        """What tells of the device while something is timed."""
        return machine.Clock(self.device, self.gpus)

    def computed(self) -> float:
        """Processor seconds so far, of this process and, on a CPU, of those that share the model: they wait busily."""
        others = self.llm.collective_rpc(seconds_of) if self.device == "cpu" and self.gpus > 1 else []
        return time.process_time() + sum(others)

    def answer(self, output: Any, goes_on: bool) -> Reply:
        """One answer, or what a text goes on with."""
        said = output.outputs[0]
        ids = list(said.token_ids)
        return {
            "text": ("" if goes_on else self.reader.opened(output.prompt_token_ids)) + said.text,
            "tokens": len(ids),
            "prompt_tokens": len(output.prompt_token_ids),
            "finish": said.finish_reason,
            **self.reader.signs(ids),
        }

    def choose(self, request: Request) -> Reply:
        """Of each conversation the summed log-probability of each of its `options`, were it the answer."""
        import weighing

        rendered = self.render(request["conversations"], thinking=False)
        try:
            return {"logprobs": weighing.weigh(self.llm, rendered, request["options"])}
        except weighing.TooLong as fault:
            raise Refused(str(fault)) from fault

    def harness(self, request: Request) -> Reply:
        """lm-eval's tasks, by `served.py` beside this file: only an engine that is asked for one needs lm-eval."""
        import harness
        import served

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        try:
            return served.ask(self, request["parts"], request["thinking"])
        except harness.Unusable as fault:
            raise Refused(str(fault)) from fault

    def score(self, request: Request) -> Reply:
        """Log-probabilities of each text's tokens, and the `top` likeliest at each position.

        Position i of a text predicts token i + 1, so a text of n tokens gives n - 1 rows. After `conversations` each
        text is the answer to its own, and its first token is the last of the prompt.
        """
        from vllm import SamplingParams

        cut = [self.cut(text, request["max_tokens"]) for text in request["texts"]]
        before: list[list[int]] = [[] for _ in cut]
        if "conversations" in request:
            limit = self.llm.llm_engine.model_config.max_model_len - 1  # one token is generated
            rendered = self.render(request["conversations"], request["thinking"])
            if long := [len(prompt) for prompt in rendered if len(prompt) >= limit]:
                raise Refused(f"a prompt of {max(long)} tokens leaves no room in max_model_len {limit + 1}")
            # The prompt's last token speaks first: it stands before character 0 of the text.
            cut = [
                (prompt[-1:] + tokens[: limit - len(prompt)], [0, *ends[: limit - len(prompt)]] if ends else [])
                for prompt, (tokens, ends) in zip(rendered, cut, strict=True)
            ]
            before = [prompt[:-1] for prompt in rendered]
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=request["top"])
        asked = [{"prompt_token_ids": ahead + tokens} for ahead, (tokens, _) in zip(before, cut, strict=True)]
        outputs = self.llm.generate(asked, params, use_tqdm=False)
        texts = []
        for ahead, (tokens, ends), output in zip(before, cut, outputs, strict=True):
            actual, top_ids, top_values = [], [], []
            for token, row in zip(tokens[1:], output.prompt_logprobs[len(ahead) + 1 :], strict=True):
                ranked = sorted(row.items(), key=lambda pair: -pair[1].logprob)[: request["top"]]
                actual.append(row[token].logprob)
                top_ids.append([key for key, _ in ranked])
                top_values.append([value.logprob for _, value in ranked])
            texts.append(
                {"tokens": tokens, "ends": ends, "actual": actual, "top_ids": top_ids, "top_logprobs": top_values}
            )
        return {"texts": texts}

    def cut(self, text: str, most: int) -> tuple[list[int], list[int]]:
        """The first `most` tokens of `text`, and the character each ends before; no ends from a slow tokenizer."""
        tokenizer = self.llm.get_tokenizer()
        if not getattr(tokenizer, "is_fast", False):
            return tokenizer.encode(text, add_special_tokens=False)[:most], []
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"][:most], [end for _, end in found["offset_mapping"][:most]]


def main() -> None:
    die_with_parent()
    gc.disable()  # imports leave more than a million objects: a sixth of a start went into looking whether they do
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints goes to the log, not between the replies
    worker: Worker | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if worker is None:
                worker = Worker()
            reply = getattr(worker, request["op"])(request)
        except Exception as fault:  # told to the caller, who decides
            import traceback

            traceback.print_exc()
            reply = {
                "error": type(fault).__name__,
                "message": str(fault)[:2000],
                "refused": isinstance(fault, Refused),
                "memory": machine.memory(worker.device, worker.gpus) if worker is not None else machine.memory("cpu"),
            }
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
