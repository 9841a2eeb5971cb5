"""lm-eval's tasks: their documents, and how a loaded vLLM does on them.

Runs beside `evaluation.worker` in the engine's own environment, and in the caller's to read documents: so it imports
nothing of this project. A task is built anew from the documents it is given, already processed: both ends ask the
same, whatever either environment would have shuffled or downloaded. Knows nothing of benchmarks, slices or scores.
"""

import functools
import random
import time
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager

ASKED = ("multiple_choice", "loglikelihood", "generate_until")  # what can be asked of a served model
THOUGHT = 16384  # tokens of an answer that may think first: the contest's max_gen_toks
SENTENCES = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
SEED = 1234  # of the examples that are shown, lm-eval's own default

Document = dict[str, Any]


class Unusable(Exception):
    """This task cannot be asked: the message says why."""


@functools.cache
def manager(name: str) -> TaskManager:
    """An index of tasks that holds `name`, if the harness has it: its own folder, or all of them, which takes long."""
    root = Path(lm_eval.tasks.__file__).parent
    folders = [one.name for one in root.iterdir() if one.is_dir() and name.startswith(one.name)]
    if folders:
        near = _folder(str(root / max(folders, key=len)))
        if name in near.task_index:
            return near
    return _all()


@functools.cache
def _folder(path: str) -> TaskManager:
    return TaskManager(include_path=path, include_defaults=False)


@functools.cache
def _all() -> TaskManager:
    return TaskManager()


def leaves(name: str) -> list[str]:
    """The tasks that `name` (a task, group or tag) is made of, in the harness's order. Raises `KeyError`."""
    entry = manager(name).task_index[name]
    if entry.kind.name in {"TASK", "PY_TASK"}:
        return [name]
    members = (entry.cfg or {}).get("task") if entry.kind.name == "GROUP" else sorted(entry.tags)
    named = [one if isinstance(one, str) else one.get("task") or one["group"] for one in members or []]
    return [leaf for member in named for leaf in leaves(member)]


def build(name: str, docs: list[Document] | None, shots: list[Document] | None = None, processed: bool = False) -> Any:
    """Task `name` with `docs` in place of its data set, or, where there are none, with its own from the hub.

    `shots` are the documents that examples are drawn from.
    """
    change: dict[str, Any] = {"task": name}
    if docs is not None:
        config = manager(name).task_index[name].cfg or {}
        change["custom_dataset"] = lambda **_: _splits(config, docs, shots or docs[:1])
        change |= {"process_docs": None} if processed else {}
    random.seed(0)  # GPQA shuffles its options as it is read
    return manager(name).load({"group": "asked", "task": [change]})["tasks"][name]


def _splits(config: dict[str, Any], docs: list[Document], shots: list[Document]) -> Any:
    from datasets import Dataset, DatasetDict

    names = {config.get(key) for key in ("training_split", "validation_split", "test_split")}
    asked = config.get("test_split") or config.get("validation_split")
    examples = config.get("fewshot_split") or (config.get("fewshot_config") or {}).get("split")
    parts = {str(one): Dataset.from_list(shots) for one in {*names, examples} if one}
    return DatasetDict(parts | {str(asked): Dataset.from_list(docs)})


def documents(name: str, rows: list[Document] | None, shots: list[Document] | None) -> dict[str, Any]:
    """Of one task: docs, texts, shots, generates, max_tokens and metric. Raises `Unusable`."""
    if (manager(name).task_index[name].cfg or {}).get("unsafe_code"):
        raise Unusable(f"{name} runs what a model writes, which is not done here")
    task = build(name, rows, shots)
    config = task.config
    metric = next(iter(task.aggregation()))
    if task.OUTPUT_TYPE not in ASKED or getattr(task, "MULTIMODAL", False):
        raise Unusable(f"{name} asks for {task.OUTPUT_TYPE} or for more than text, which is not done here")
    if task.aggregation()[metric].__name__ != "mean" or not task.higher_is_better()[metric]:
        raise Unusable(f"{name}'s metric {metric} is no mean of what is better when higher")
    docs = [dict(doc) for doc in task.eval_docs]
    _check_rules(docs)
    if config.num_fewshot and rows is not None and not shots:
        raise Unusable(f"{name} shows {config.num_fewshot} examples: give their rows in a file of their own")
    return {
        "docs": docs,
        "texts": [str(task.doc_to_text(doc)) for doc in docs],
        "shots": [dict(doc) for doc in task.fewshot_docs()] if config.num_fewshot else [],
        "generates": task.OUTPUT_TYPE == "generate_until",
        "max_tokens": (config.generation_kwargs or {}).get("max_gen_toks", 256),
        "metric": metric,
    }


def _check_rules(docs: list[Document]) -> None:
    """IFEval counts sentences and words with data that nltk fetches by itself, and without network does not."""
    import nltk

    needing = {rule for doc in docs for rule in doc.get("instruction_id_list") or ()} & SENTENCES
    if needing:
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError as fault:
            remedy = "python -m nltk.downloader punkt_tab, in the engine's environment too"
            raise Unusable(f"the rule {min(needing)} needs nltk's punkt_tab, which is not here: {remedy}") from fault


class Served(TemplateLM):
    """A loaded vLLM `LLM` as the harness sees a model; counts tokens and seconds of what it generates."""

    def __init__(self, llm: Any, thinking: bool) -> None:
        super().__init__()
        self.llm, self.thinking = llm, thinking
        self.tokenizer = llm.get_tokenizer()
        self.limit = llm.llm_engine.model_config.max_model_len
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self.lengths: list[int] = []  # tokens generated, by request

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def templated(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        special = not self.templated if add_special_tokens is None else add_special_tokens
        return list(self.tokenizer.encode(string, add_special_tokens=special))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=self.thinking,
            )
        )

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
        raise Unusable("rolling likelihoods are not asked here: held-out text is")

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
        begin, cpu = time.perf_counter(), time.process_time()
        outputs = self.llm.generate([{"prompt_token_ids": one} for one in prompts], params, use_tqdm=False)
        self.seconds += time.perf_counter() - begin
        self.cpu_seconds += time.process_time() - cpu
        self.lengths += [len(output.outputs[0].token_ids) for output in outputs]
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
            raise Unusable(f"a prompt of {longest} tokens does not fit max_model_len {self.limit}")


def ask(llm: Any, parts: list[dict[str, Any]], thinking: bool) -> dict[str, Any]:
    """Ask `parts` [{task, docs, shots}] of a loaded model: values and tokens by part and document, and seconds.

    A value is the task's first metric under its first filter. What is weighed is never thought about.
    """
    tasks = [build(part["task"], part["docs"], part["shots"], processed=True) for part in parts]
    generated = Served(llm, thinking)
    weighed = Served(llm, False)
    for model, chosen in (
        (generated, [task for task in tasks if task.OUTPUT_TYPE == "generate_until"]),
        (weighed, [task for task in tasks if task.OUTPUT_TYPE != "generate_until"]),
    ):
        for task in chosen:
            task.set_fewshot_seed(SEED)
            task.build_all_requests(
                apply_chat_template=model.templated,
                chat_template=model.apply_chat_template if model.templated else None,
                tokenizer_name="served",
            )
        instances = [one for task in chosen for one in task.instances]
        if instances:
            request = model.generate_until if model is generated else model.loglikelihood
            for one, said in zip(instances, request(instances, disable_tqdm=True), strict=True):
                one.resps.append(said)
        for task in chosen:
            task.apply_filters()
    asked = [one for task in tasks if task.OUTPUT_TYPE == "generate_until" for one in task.instances]
    lengths = {id(one): length for one, length in zip(asked, generated.lengths, strict=True)}
    found = [[_value(task, of_one) for of_one in _by_document(task)] for task in tasks]
    return {
        "values": found,
        "tokens": [[sum(lengths.get(id(one), 0) for one in of_one) for of_one in _by_document(task)] for task in tasks],
        "seconds": generated.seconds,
        "cpu_seconds": generated.cpu_seconds,
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
