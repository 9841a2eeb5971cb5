"""A loaded vLLM as lm-eval sees a model, and its tasks asked of it.

Runs beside `evaluation.worker` in the engine's own environment, as `harness.py` does, which builds the tasks: so it
imports nothing of this project but that. Knows nothing of benchmarks, slices or scores.
"""

import time
from typing import Any

import harness
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

THOUGHT = 16384  # tokens of an answer that may think first: the contest's max_gen_toks


class Served(TemplateLM):
    """The worker's model as the harness sees one; keeps the answers, seconds and clock of what it generates."""

    def __init__(self, worker: Any, thinking: bool) -> None:
        super().__init__()
        self.worker, self.llm, self.thinking = worker, worker.llm, thinking
        self.tokenizer = self.llm.get_tokenizer()
        self.limit = self.llm.llm_engine.model_config.max_model_len
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self.mhz: float | None = None
        self.answers: list[dict[str, Any]] = []  # as the worker tells them, by request

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        special = not harness.templated(self.tokenizer) if add_special_tokens is None else add_special_tokens
        return list(self.tokenizer.encode(string, add_special_tokens=special))

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        from vllm import SamplingParams

        wholes = [context + continuation for _, context, continuation in requests]
        self._check(wholes)
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1)
        outputs = self.llm.generate([{"prompt_token_ids": one} for one in wholes], params, use_tqdm=False)
        found = []
        for (_, context, _continuation), whole, output in zip(requests, wholes, outputs, strict=True):
            rows = [output.prompt_logprobs[place][whole[place]] for place in range(len(context), len(whole))]
            found.append((sum(row.logprob for row in rows), all(row.rank == 1 for row in rows)))
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        raise harness.Unusable("rolling likelihoods are not asked here: held-out text is")

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        from vllm import SamplingParams

        prompts = [self.tok_encode(request.args[0]) for request in requests]
        self._check(prompts)
        params = []
        for prompt, request in zip(prompts, requests, strict=True):
            asked = request.args[1] or {}
            until = asked.get("until") or []
            most = THOUGHT if self.thinking else asked.get("max_gen_toks", 256)
            params.append(
                SamplingParams(
                    max_tokens=min(most, self.limit - len(prompt)),
                    temperature=asked.get("temperature", 0.0) if asked.get("do_sample") else 0.0,
                    stop=[] if self.thinking else [until] if isinstance(until, str) else list(until),
                    seed=0,
                )
            )
        with self.worker.clock() as clock:
            cpu, begin = self.worker.computed(), time.perf_counter()
            outputs = self.llm.generate([{"prompt_token_ids": one} for one in prompts], params, use_tqdm=False)
            self.seconds, self.cpu_seconds = time.perf_counter() - begin, self.worker.computed() - cpu
        self.mhz = clock.mhz
        self.answers = [self.worker.answer(output, goes_on=False) for output in outputs]
        return [self._said(output.outputs[0].text, request) for output, request in zip(outputs, requests, strict=True)]

    def _said(self, text: str, request: Instance) -> str:
        """What follows the thinking, cut where the task says; nothing when thinking never ended."""
        if not self.thinking or not request.args[0].rstrip().endswith("<think>"):
            return text
        answer = text.rpartition("</think>")[2] if "</think>" in text else ""
        until = (request.args[1] or {}).get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            answer = answer.partition(stop)[0] if stop else answer
        return answer.strip()

    def _check(self, prompts: list[list[int]]) -> None:
        longest = max(map(len, prompts))
        if longest + 1 > self.limit:
            raise harness.Unusable(f"a prompt of {longest} tokens does not fit max_model_len {self.limit}")


def ask(worker: Any, parts: list[dict[str, Any]], thinking: bool) -> dict[str, Any]:
    """Ask `parts` [{task, docs, shots}] of the worker's model: values and answers by part and document, and seconds.

    A value is the task's first metric under its first filter. What is weighed is never thought about, and no answer.
    """
    tasks = [harness.build(part["task"], part["docs"], part["shots"], processed=True) for part in parts]
    generated = Served(worker, thinking)
    weighed = Served(worker, False)
    for model, chosen in (
        (generated, [task for task in tasks if task.OUTPUT_TYPE == "generate_until"]),
        (weighed, [task for task in tasks if task.OUTPUT_TYPE != "generate_until"]),
    ):
        for task in chosen:
            harness.put(task, model.tokenizer, model.thinking)
        instances = [one for task in chosen for one in task.instances]
        if instances:
            request = model.generate_until if model is generated else model.loglikelihood
            for one, said in zip(instances, request(instances, disable_tqdm=True), strict=True):
                one.resps.append(said)
        for task in chosen:
            task.apply_filters()
    asked = [one for task in tasks if task.OUTPUT_TYPE == "generate_until" for one in task.instances]
    answers = {id(one): answer for one, answer in zip(asked, generated.answers, strict=True)}
    found = [[_value(task, of_one) for of_one in _by_document(task)] for task in tasks]
    return {
        "values": found,
        "answers": [
            [[answers[id(one)] for one in of_one if id(one) in answers] for of_one in _by_document(task)]
            for task in tasks
        ],
        "seconds": generated.seconds,
        "cpu_seconds": generated.cpu_seconds,
        "mhz": generated.mhz,
    }


def _by_document(task: Any) -> list[list[Instance]]:
    """What was asked of each document, in order."""
    found: dict[int, list[Instance]] = {}
    for one in task.instances:
        found.setdefault(one.doc_id, []).append(one)
    return [sorted(found[number], key=lambda one: one.idx) for number in sorted(found)]


def _value(task: Any, instances: list[Instance]) -> float:
    """Of one document the first metric under the first filter."""
    metric, chosen = next(iter(task.aggregation())), next(iter(instances[0].filtered_resps))
    results = task.process_results(instances[0].doc, [one.filtered_resps[chosen] for one in instances])
    return float(results[metric])
