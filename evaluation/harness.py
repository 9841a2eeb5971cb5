"""lm-eval's tasks: their documents, and how they are built anew at the other end.

Runs beside `evaluation.worker` in the engine's own environment, and in the caller's to read documents: so it imports
nothing of this project. A task is built anew from the documents it is given, already processed: both ends ask the
same, whatever either environment would have shuffled or downloaded. Knows nothing of benchmarks, slices or scores.
"""

import contextlib
import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lm_eval.api.task
import lm_eval.tasks
from lm_eval.tasks import TaskManager

ASKED = ("multiple_choice", "loglikelihood", "generate_until")  # what can be asked of a served model
SENTENCES = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
EXAMPLES = "squeeze_examples"  # the split that holds what examples are drawn from

SEED = 1234  # of the examples that are shown, lm-eval's own default
LONGEST = 8  # requests that are counted in tokens, the longest in characters

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

    `shots` are the documents that examples are drawn from, in a split of their own: never `docs`, whichever split the
    task would have taken them from.
    """
    change: dict[str, Any] = {"task": name}
    if docs is not None:
        config = manager(name).task_index[name].cfg or {}
        change["custom_dataset"] = lambda **_: _splits(config, docs, shots or docs[:1])
        change |= {"process_docs": None} if processed else {}
        shown = config.get("fewshot_config") or {}
        if shots or not shown.get("samples"):
            change["fewshot_config"] = shown | {"split": EXAMPLES} | ({"process_docs": None} if processed else {})
    random.seed(0)  # GPQA shuffles its options as it is read
    with _no_download() if "ifeval" in name else contextlib.nullcontext():
        return manager(name).load({"group": "asked", "task": [change]})["tasks"][name]


@contextlib.contextmanager
def _no_download() -> Iterator[None]:
    """IFEval's code tries to fetch nltk's data as it is imported, whether its rules need it or not: see `_check_rules`.

    Where they do, and it is not there, the task is refused with the command that fetches it.
    """
    import nltk

    with mock.patch.object(nltk, "download", lambda *_, **__: False):
        yield


def _splits(config: dict[str, Any], docs: list[Document], shots: list[Document]) -> Any:
    from datasets import Dataset, DatasetDict

    names = {config.get(key) for key in ("training_split", "validation_split", "test_split")}
    asked = config.get("test_split") or config.get("validation_split")
    parts = {str(one): Dataset.from_list(shots) for one in {*names, EXAMPLES} if one}
    return DatasetDict(parts | {str(asked): Dataset.from_list(docs)})


def put(task: Any, tokenizer: Any, thinking: bool) -> None:
    """Build the requests of `task` for a model with this `tokenizer`: through its chat template, examples included."""
    task.set_fewshot_seed(SEED)
    with mock.patch.object(lm_eval.api.task, "tqdm", lambda docs, **_: docs):  # its bar cannot be turned off
        task.build_all_requests(
            apply_chat_template=templated(tokenizer),
            chat_template=functools.partial(render, tokenizer, thinking) if templated(tokenizer) else None,
            tokenizer_name="served",
        )


def templated(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def render(tokenizer: Any, thinking: bool, chat: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    return str(
        tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=thinking
        )
    )


def longest(parts: list[dict[str, Any]], tokenizer: Any, thinking: bool) -> tuple[int, str, int]:
    """Of what would be asked of `parts`, what is weighed included, the most tokens: their number, task and document."""
    asked: list[tuple[str, str, int]] = []
    for part in parts:
        built = build(part["task"], part["docs"], part["shots"], processed=True)
        generates = built.OUTPUT_TYPE == "generate_until"
        put(built, tokenizer, thinking and generates)
        asked += [("".join(one.args[: 1 if generates else 2]), part["task"], one.doc_id) for one in built.instances]
    asked.sort(key=lambda one: -len(one[0]))
    special = not templated(tokenizer)
    return max(
        (len(tokenizer.encode(text, add_special_tokens=special)), task, number)
        for text, task, number in asked[:LONGEST]
    )


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
    return {
        "docs": docs,
        "texts": [str(task.doc_to_text(doc)) for doc in docs],
        "shots": _examples(name, task, docs, given=rows is None or bool(shots)) if config.num_fewshot else [],
        "generates": task.OUTPUT_TYPE == "generate_until",
        "max_tokens": (config.generation_kwargs or {}).get("max_gen_toks", 256),
        "metric": metric,
    }


def _examples(name: str, task: Any, docs: list[Document], given: bool) -> list[Document]:
    """What a task's examples are drawn from, without what is asked: an answer shown would be no answer found."""
    config, shown = task.config, task.config.fewshot_config
    own = f"give their rows in a file of their own, {name}.shots.jsonl beside {name}.jsonl"
    if shown.split or not shown.samples:  # else they are written in the task itself
        if not given:
            raise Unusable(f"{name} shows {config.num_fewshot} examples: {own}")
        split = shown.split or config.training_split or config.validation_split or config.test_split
        if split == (config.test_split or config.validation_split):
            raise Unusable(f"{name} takes its {config.num_fewshot} examples from the documents that are asked: {own}")
    texts = [task.doc_to_text(doc) for doc in docs]
    telling = len(set(texts)) == len(texts)  # where each text is one document's, the same text is the same document
    known = {_key(doc) for doc in docs} | (set(texts) if telling else set())
    found = [dict(doc) for doc in task.fewshot_docs()]
    left = [one for one in found if not {_key(one), task.doc_to_text(one, shown.doc_to_text)} & known]
    if len(left) < config.num_fewshot:
        gone = f"of the {len(found)} there are {len(found) - len(left)} are asked themselves"
        raise Unusable(f"{name} shows {config.num_fewshot} examples, and {gone}: {own}")
    return left


def _key(doc: Document) -> str:
    return json.dumps(doc, sort_keys=True, default=str)


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
