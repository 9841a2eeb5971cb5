"""Tasks of lm-eval through the warm engine: their values beside transformers', their rungs, and what is refused."""

import json
import random
import re
from importlib.metadata import version

import pytest
import torch

from evaluation import harness
from evaluation.answers import AnswerStore
from evaluation.benchmarks.base import BadData
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.health import Health, ModelFault
from evaluation.machine import cpu_mhz
from evaluation.measure import Measurer
from evaluation.protocol import EngineFault
from evaluation.record import Subject
from evaluation.reference import ITEMS, MODEL
from evaluation.suite import Suite, SuiteSpec
from tests.evaluation import broken
from tests.evaluation.test_likelihood import serve_tiny

BASE = Subject(key="tiny", folder=MODEL)


def written(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def mmlu(count, subject="anatomy"):
    """The reference model's own questions in MMLU's columns."""
    rows = [json.loads(line) for line in (ITEMS / "kmmlu_redux.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {"question": r["question"], "subject": subject, "choices": r["options"], "answer": int(r["solution"]) - 1}
        for r in rows[:count]
    ]


def gpqa(count):
    return [
        {"Question": f"{n} + 1?", "Correct Answer": str(n + 1)}
        | {f"Incorrect Answer {k}": f"{n}{k}" for k in (1, 2, 3)}
        for n in range(count)
    ]


def ifeval(count):
    rules = [("punctuation:no_comma", {}), ("change_case:english_lowercase", {})]
    return [
        {"key": n, "prompt": f"Say {n}.", "instruction_id_list": [rules[n % 2][0]], "kwargs": [rules[n % 2][1]]}
        for n in range(count)
    ]


def sums(count, first=0):
    """GSM8K's columns, and GSM-Plus's."""
    told = {n: f"#### {n + 1}" for n in range(first, first + count)}
    return [{"question": f"{n} and 1?", "answer": right, "solution": right} for n, right in told.items()]


def gsm8k(folder, count):
    """A folder of the task's rows, and others for its examples."""
    written(folder / "gsm8k.jsonl", sums(count))
    written(folder / "gsm8k.shots.jsonl", sums(6, first=100))
    return str(folder)


def by_transformers(texts, continuations):
    """Of each text the most likely continuation, the text as a user's turn."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    best, margins = [], []
    for text in texts:
        chat = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        sums = []
        for continuation in continuations:
            begin = len(tokenizer.encode(prompt.rstrip(), add_special_tokens=False))
            whole = tokenizer.encode(prompt + continuation, add_special_tokens=False)
            with torch.no_grad():
                logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            sums.append(sum(float(logprobs[i - 1, whole[i]]) for i in range(begin, len(whole))))
        ranked = sorted(sums, reverse=True)
        best.append(sums.index(ranked[0]))
        margins.append(ranked[0] - ranked[1])
    return best, margins


def test_a_task_of_likelihoods_is_graded_as_by_transformers(engine, tmp_path):
    rows = mmlu(8)
    task = HarnessTask("lm_eval:mmlu_anatomy", written(tmp_path / "rows.jsonl", rows))
    items = task.items([])
    assert task.weighs
    assert items[0].turns[0].startswith(rows[0]["question"].strip() + "\nA. ")
    serve_tiny(engine)
    found = engine.harness(task.parts(items))
    best, margins = by_transformers([item.turns[0] for item in items], "ABCD")
    values = task.in_order(items, found.values)
    sure = [n for n, margin in enumerate(margins) if margin > 0.3]  # nearer than that bf16 decides
    assert len(sure) >= 4
    assert [values[n] for n in sure] == [float(best[n] == rows[n]["answer"]) for n in sure]
    assert (found.tokens, found.seconds) == ([[0] * 8], 0.0)


def test_a_group_is_its_tasks_and_a_rung_only_adds(engine, tmp_path, monkeypatch):
    leaves = harness.leaves("mmlu_humanities")
    assert len(leaves) == 13
    for leaf in leaves:
        written(tmp_path / f"{leaf}.jsonl", mmlu(2, leaf))
    rules = written(tmp_path / "ifeval.jsonl", ifeval(4))
    asked = {"lm_eval:mmlu_humanities": str(tmp_path), "lm_eval:ifeval": rules}
    suite = Suite(SuiteSpec(benchmarks=asked), (0.5, 1.0))
    counts = []
    real = engine.harness
    monkeypatch.setattr(
        engine, "harness", lambda parts, *rest: counts.append(sum(len(p["docs"]) for p in parts)) or real(parts, *rest)
    )
    measurer = Measurer(engine, engine, BASE, suite, AnswerStore(tmp_path / "answers"), passes=2)
    low, high = measurer.measure(BASE, 0), measurer.measure(BASE, 1)
    assert counts == [13, 2, 2, 13, 2, 2]  # what is weighed is asked once, what is timed as often as there are passes
    weighed, generated = (high.benchmarks[name] for name in asked)
    assert low.benchmarks["lm_eval:mmlu_humanities"].grades.items() <= weighed.grades.items()
    assert (len(weighed.grades), weighed.passes, len(generated.grades), len(generated.passes)) == (26, [], 4, 2)
    assert set(weighed.grades.values()) | set(generated.grades.values()) <= {0.0, 1.0}
    assert generated.tokens > 0
    assert generated.seconds > 0
    measurer.measure(BASE, 1)
    assert len(counts) == 6


def test_what_a_group_only_weighs_is_asked_once(engine, tmp_path, monkeypatch):
    """Of both kinds of task in one group, the later passes ask those that generate alone."""
    leaves = harness.leaves("gpqa")
    for leaf in leaves:
        written(tmp_path / f"{leaf}.jsonl", gpqa(2))
    suite = Suite(SuiteSpec(benchmarks={"lm_eval:gpqa": str(tmp_path)}, limit=10), (1.0,))
    kinds = [suite.graders["lm_eval:gpqa"].generates(item) for part in suite.slices for item in part.items]
    assert {True, False} == set(kinds)
    counts = []
    real = engine.harness
    monkeypatch.setattr(
        engine, "harness", lambda parts, *rest: counts.append(sum(len(p["docs"]) for p in parts)) or real(parts, *rest)
    )
    measurer = Measurer(engine, engine, BASE, suite, AnswerStore(tmp_path / "answers"), passes=2)
    measured = measurer.measure(BASE, 0)
    measurer.measure(BASE, 0, beside="beside another")
    assert counts == [10 - sum(kinds), *[sum(kinds)] * 4]
    figures = measured.benchmarks["lm_eval:gpqa"]
    assert len(figures.grades) == 10
    assert figures.tokens > 0
    assert measured.health["lm_eval:gpqa"].answers == sum(kinds)


def test_answers_are_known_by_the_version_that_asked_and_another_is_refused(engine, tmp_path, monkeypatch):
    serve_tiny(engine)
    rules = written(tmp_path / "rows.jsonl", ifeval(1))
    suite = Suite(SuiteSpec(benchmarks={"lm_eval:ifeval": rules}), (1.0,))
    asker = Measurer(engine, engine, BASE, suite, AnswerStore(tmp_path / "answers"), passes=1).asker
    [part] = suite.up_to(0)
    asker.ask(part, BASE)
    ours = version("lm_eval")
    monkeypatch.setattr("evaluation.harnessed.version", lambda _: "0.5.0")
    monkeypatch.setitem(engine.about, "harness", "0.5.0")
    assert not asker.record(part, BASE).passes
    monkeypatch.setitem(engine.about, "harness", ours)
    with pytest.raises(EngineFault, match=rf"holds lm-eval {ours}, and lm-eval 0\.5\.0 reads the documents here"):
        asker.record(part, BASE)


def test_rules_are_graded_as_the_answers_obey_them(engine, tmp_path):
    """IFEval's own rules on what the model says: the same greedy answers, read here by hand."""
    from evaluation.benchmarks.base import Decoding

    rows = ifeval(6)
    task = HarnessTask("lm_eval:ifeval", written(tmp_path / "rows.jsonl", rows))
    items = task.items([])
    assert not task.weighs
    assert task.decoding(items[0]) == Decoding(max_tokens=1280)
    serve_tiny(engine)
    heard = engine.log.stat().st_size
    found = engine.harness(task.parts(items))
    assert not re.search(r"it/s|nltk_data", engine._said_since(heard))
    chats = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    said = [one.text for one in engine.generate(chats, [Decoding(max_tokens=1280)] * 6).answers]
    commas = [float("," not in text and bool(text.strip())) for text in said]
    assert found.values[0][::2] == commas[::2]
    assert all(found.tokens[0])


@pytest.mark.parametrize(
    ("make", "said"), [(broken.silent, "gives no answer: of 6 answers 100% empty"), (broken.endless, "never stops")]
)
def test_a_broken_model_is_told_and_a_clock_is_read(engine, tmp_path, make, said):
    suite = Suite(SuiteSpec(benchmarks={"lm_eval:gsm8k": gsm8k(tmp_path, 6)}), (1.0,))
    measurer = Measurer(engine, engine, BASE, suite, AnswerStore(tmp_path / "answers"), passes=1)
    base = measurer.measure(BASE, 0)
    assert base.health["lm_eval:gsm8k"].answers == 6
    assert base.health["lm_eval:gsm8k"] != Health(answers=6, empty=6)
    assert (base.mhz is not None) == bool(cpu_mhz())
    with pytest.raises(ModelFault, match=f"the model {said}"):
        measurer.measure_pair(Subject(key="broken", folder=make(tmp_path / "model")), 0)


def test_documents_are_the_same_each_time_they_are_read(tmp_path):
    """GPQA shuffles its options as it is read."""
    source = written(tmp_path / "rows.jsonl", gpqa(6))
    random.seed(5)
    first = HarnessTask("lm_eval:gpqa_main_zeroshot", source).items([])
    random.seed(6)
    assert HarnessTask("lm_eval:gpqa_main_zeroshot", source).items([]) == first
    assert len({item.reference["doc"]["answer"] for item in first}) > 1


def test_examples_come_from_a_file_of_their_own(tmp_path):
    written(tmp_path / "gsm8k.jsonl", sums(2))
    with pytest.raises(BadData, match="gsm8k shows 5 examples: give their rows"):
        HarnessTask("lm_eval:gsm8k", str(tmp_path))
    task = HarnessTask("lm_eval:gsm8k", gsm8k(tmp_path, 2))
    assert len(task.parts(task.items([]))[0]["shots"]) == 6


def shown(folder, name="gsm8k"):
    """Prompts of the folder's rows, as the engine builds them."""
    task = HarnessTask(f"lm_eval:{name}", str(folder))
    [part] = task.parts(task.items([]))
    built = harness.build(part["task"], part["docs"], part["shots"], processed=True)
    built.set_fewshot_seed(1)
    built.build_all_requests()
    return [one.args[0] for one in built.instances]


def test_no_example_is_asked_itself(tmp_path):
    """Rows that stand in both files, whatever their answers, are shown to nobody."""
    gsm8k(tmp_path, 8)
    both = [row | {"answer": "so #### 0"} for row in sums(8)]
    written(tmp_path / "gsm8k.shots.jsonl", [*both, *sums(5, first=100)])
    for number, prompt in enumerate(shown(tmp_path)):
        assert [one for one in range(8) if f"Question: {one} and 1?" in prompt] == [number]
        assert prompt.count(" and 1?") == 6
    written(tmp_path / "gsm8k.shots.jsonl", [*both, *sums(4, first=100)])
    with pytest.raises(BadData, match=r"gsm8k shows 5 examples, and of the 12 there are 8 are asked themselves: give"):
        HarnessTask("lm_eval:gsm8k", str(tmp_path))


def test_a_split_that_is_asked_gives_no_examples(tmp_path, monkeypatch):
    """GSM-Plus draws them from its only split: refused, until they have a file of their own."""
    folder = tmp_path / "qintongli" / "GSM-Plus"  # a folder of that name is to `datasets` what the hub is
    folder.mkdir(parents=True)
    written(folder / "test.jsonl", sums(8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(BadData, match="gsm_plus takes its 5 examples from the documents that are asked: give their"):
        HarnessTask("lm_eval:gsm_plus", "hub:")
    written(tmp_path / "gsm_plus.jsonl", sums(3))
    written(tmp_path / "gsm_plus.shots.jsonl", sums(8))
    for number, prompt in enumerate(shown(tmp_path, "gsm_plus")):
        assert [one for one in range(3) if f"{one} and 1?" in prompt] == [number]


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("livecodebench", [], "lm-eval has no task of LiveCodeBench, .*: leave it out"),
        ("mmlu_anatmy", [], r"lm-eval 0\.4\.\d+ has no task mmlu_anatmy; it has mmlu_anatomy"),
        ("humaneval", [{"prompt": "x"}], "humaneval runs what a model writes"),
        ("wikitext", [{"page": "x"}], "wikitext asks for loglikelihood_rolling"),
        ("mmlu", mmlu(1), "is made of several tasks: name a folder with a file of each, mmlu_"),
        (
            "mmlu_anatomy",
            [{"question": "x"}],
            "the rows of .* lack a column of mmlu_anatomy: .choices",
        ),
        ("ifeval", [ifeval(1)[0] | {"instruction_id_list": ["length_constraints:number_sentences"]}], "punkt_tab"),
    ],
)
def test_what_cannot_be_asked_is_named(tmp_path, monkeypatch, name, rows, said):
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(BadData, match=said):
        HarnessTask(f"lm_eval:{name}", written(tmp_path / "rows.jsonl", rows))


def test_a_set_out_of_reach_and_a_folder_without_a_task_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(BadData, match=r"no documents of gpqa_main_zeroshot from hub: .*accept its terms"):
        HarnessTask("lm_eval:gpqa_main_zeroshot", "hub:")
    with pytest.raises(BadData, match="write hub: alone"):
        HarnessTask("lm_eval:gpqa_main_zeroshot", "hub:other/gpqa")
    with pytest.raises(BadData, match="holds no mmlu_"):
        HarnessTask("lm_eval:mmlu", str(tmp_path))


def test_weighed_tasks_alone_give_nothing_to_time(tmp_path):
    with pytest.raises(BadData, match="nothing to time"):
        Suite(SuiteSpec(benchmarks={"lm_eval:mmlu_anatomy": written(tmp_path / "rows.jsonl", mmlu(2))}), (1.0,))


def test_a_document_too_long_is_refused_and_the_engine_goes_on(engine, tmp_path):
    long = [row | {"question": "가나다 " * 1500} for row in mmlu(1)]
    task = HarnessTask("lm_eval:mmlu_anatomy", written(tmp_path / "rows.jsonl", long))
    serve_tiny(engine)
    with pytest.raises(EngineFault, match="does not fit max_model_len"):
        engine.harness(task.parts(task.items([])))
    assert engine.loaded == MODEL
