"""Begin a run: everything the user gave is checked before anything is written or started."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compressors.artifact import base_artifact
from compressors.data import OutOfReach as NoData
from compressors.data import load_conversations
from compressors.shape import check_recipe, read_shape
from compressors.step import EngineTraits, Infeasible
from evaluation.benchmarks.base import BadData, OutOfReach
from evaluation.benchmarks.harness_task import HarnessTask
from evaluation.harnessed import differs, version_in
from evaluation.nearness import check_comparable
from evaluation.suite import Suite
from search.bases import find_base
from search.errors import BadInput, Misfit
from search.forms import MOST, count_of, drawn, is_bounded, recipes_of, steps_of
from search.home import Home
from search.job import Job
from search.joining import cluster_address, hardware_of
from search.ledger import Ledger
from search.lengths import check_lengths
from search.places import make, places
from search.refusals import reasons
from search.serving import check_here, environment_of, traits, traits_anywhere
from search.space import SELF, Space
from search.space_file import read_space
from search.target import check_submissions

DRAWN = 500  # recipes drawn from a space that has more than are gone through, before it is refused
MOST_REASONS = 3  # told of a space with nothing feasible
PACKAGES = (
    "squeeze",
    "ray",
    "torch",
    "transformers",
    "llmcompressor",
    "compressed-tensors",
    "optuna",
    "wandb",
)


def new_job(
    space: str,
    base: str,
    out: str | Path,
    trials: int | None = None,
    hours: float | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    asked: Sequence[str] = (),
    address: str | None = None,
) -> Job:
    """A job whose run folder exists and holds run.json, timed on what the cluster at `address` has.

    Raises `BadInput`, having left nothing behind, `RunFailed` where that cluster cannot be joined.
    """
    file = read_space(space)
    spec, folder = file.space, find_base(base)
    found = places(str(out), str(store) if store is not None else None)
    device, accelerator = hardware_of(address, spec.target, found.run, spec.gpus)
    if cluster_address(address) is None:
        check_here(device, spec.gpus)
    # a driver's machine that is not timed on needs no engine
    serves = traits if cluster_address(address) is None else traits_anywhere
    with file.told():
        left_out = check_inputs(spec, folder, serves(device, spec.engine, spec.gpus))
    check_weights(folder)
    job = Job(
        base=folder,
        base_name=base,
        base_key=base_artifact(folder).key,
        **found._asdict(),
        space=spec,
        device=device,
        accelerator=accelerator,
        trials=trials or spec.trials,
        hours=hours or spec.hours,
        seed=seed,
        left_out=left_out,
        asked=list(asked),
        versions=versions(),
    )
    make(found)
    job.save()
    Ledger(job.run / "ledger.jsonl").path.touch()  # from now on a missing ledger is a loss, not a beginning
    if job.home:
        Home(job.home, job.run).begin()
    return job


def check_inputs(spec: Space, folder: Path, engine: EngineTraits, unread: list[str] | None = None) -> dict[str, str]:
    """Read every file the search would read; see that the base is whole and that something can be done to it.

    What the hub does not give is noted in `unread`, where it is given, and refused elsewhere. Returns the benchmarks
    that nobody can grade, and why. Raises `BadInput`; `Misfit` where the space's file has a line for it.
    """
    left_out = check_questions(spec, folder, unread)
    _check_grid(spec)
    if spec.submissions is not None:
        with _said_of("submissions"):
            check_submissions(Path(spec.submissions), folder)
    if spec.calibration != SELF:
        with _said_of("calibration"), _noting(unread):
            load_conversations(spec.calibration)
    try:
        check_recipe([], read_shape(folder), engine)
        for step in steps_of(spec):
            step.preflight(folder)
    except (Infeasible, ValueError, OSError) as fault:
        raise BadInput(str(fault)) from fault
    _check_feasible(spec, folder, engine)
    return left_out


@contextmanager
def _said_of(*place: str) -> Iterator[None]:
    """What is wrong with a file that a space names is told with the line that names it."""
    try:
        yield
    except (BadInput, ValueError, OSError) as fault:
        raise Misfit(str(fault), *place) from fault


def check_questions(spec: Space, folder: Path, unread: list[str] | None = None) -> dict[str, str]:
    """See that the base is whole and read what it will be asked; returns the benchmarks that nobody can grade.

    `unread` as in `check_inputs`: then the template alone is tried, on two turns.
    """
    check_base(folder)
    with _noting(unread):
        return _check_suite(spec, folder)
    check_template(folder, 2, spec.thinking)
    return {}


@contextmanager
def _noting(unread: list[str] | None) -> Iterator[None]:
    """Go on after what the hub does not give, noting it, where there is a place to."""
    try:
        yield
    except (NoData, OutOfReach) as fault:
        if unread is None:
            raise BadInput(str(fault)) from fault
        unread.append(str(fault))


def _check_suite(spec: Space, folder: Path) -> dict[str, str]:
    try:
        suite = Suite(spec.evaluation, [rung.items for rung in spec.rungs])
        check_template(folder, max(len(item.turns) for part in suite.slices for item in part.items), spec.thinking)
        check_lengths(suite, spec, folder)
        _check_harness(suite, spec)
        for number, rung in enumerate(spec.rungs):
            if rung.by == "likelihood":
                check_comparable(suite, number)
    except OutOfReach:
        raise
    except (BadData, Infeasible, ValueError, OSError) as fault:
        raise BadInput(str(fault)) from fault
    return suite.left_out


def check_suite(job: Job) -> None:
    """Before a run goes on: what its first trials were asked, and judged by, can still be had. Raises `BadInput`."""
    try:
        Suite(job.space.evaluation, [rung.items for rung in job.space.rungs], left_out=job.left_out)
    except BadData as fault:
        raise BadInput(f"{fault}; the trials of {job.place} were measured with it") from fault


def check_base(folder: Path) -> None:
    """Config and tokenizer load, and the weight files are whole as far as their headers tell."""
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoTokenizer

    try:
        AutoConfig.from_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)
    except Exception as fault:  # whatever a broken file makes transformers raise, it is the base that is broken
        raise BadInput(f"transformers cannot read the base {folder}: {' '.join(str(fault).split())[:300]}") from fault
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as fault:
            raise BadInput(f"the base's weights {path} are damaged: {fault}") from fault


def check_template(folder: Path, turns: int, thinking: bool = False) -> None:
    """A conversation can be put to the model in `folder`: it has a chat template, which renders `turns` questions."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise BadInput(
            f"the tokenizer in {folder} has no chat template, and every question is put by one: add "
            "chat_template.jinja, or chat_template to tokenizer_config.json, from the model's publisher"
        )
    chat = [{"role": "user", "content": "1 2 3"}]
    for _ in range(turns - 1):
        chat += [{"role": "assistant", "content": "4"}, {"role": "user", "content": "5 6"}]
    try:
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    except Exception as fault:  # a template is a program: it may raise anything
        told = f"{turns} question{'s' * (turns > 1)}: {type(fault).__name__}: {fault}"
        raise BadInput(f"the chat template in {folder} fails on {told}; mend it") from fault


def check_weights(folder: Path) -> None:
    """Every number of the base is one: NaN or Inf in a weight would be found only after hours, if at all."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping, keys() alone
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and tensor.itemsize > 1 and not bool(tensor.isfinite().all()):
                    raise BadInput(f"the base's tensor {name} in {path} holds NaN or Inf")


def _check_harness(suite: Suite, spec: Space) -> None:
    """The engine's environment asks lm-eval's tasks: it must hold what read their documents here."""
    if any(isinstance(grader, HarnessTask) for grader in suite.graders.values()):
        python = environment_of(spec.engine).python
        if why := differs(version_in(python), python):
            raise BadInput(why)


def _check_grid(spec: Space) -> None:
    if spec.searcher != "grid":
        return
    for number, step in enumerate(spec.steps):
        for field, ends in step.ranges.items():
            if not ends.listed:
                raise Misfit(
                    f"searcher grid goes through all recipes, and {step.step}.{field} from {ends.low} to {ends.high} "
                    "is too many: give it points, or take another searcher",
                    "steps", number, field,
                )  # fmt: skip


def _check_feasible(spec: Space, folder: Path, engine: EngineTraits) -> None:
    shape = read_shape(folder)
    refused: list[tuple[str, str]] = []
    between = () if is_bounded(spec) and count_of(spec) <= MOST else drawn(spec, DRAWN)
    for recipe in itertools.chain(spec.seed_recipes(), itertools.islice(recipes_of(spec), MOST), between):
        try:
            check_recipe(recipe.steps, shape, engine)
        except Infeasible as refusal:
            refused.append((str(recipe), str(refusal)))
            continue
        if recipe.steps:
            return
    told = f"no recipe of this space is feasible for {folder} on {engine.name}"
    why = [
        f"infeasible, {one['recipes']}: {one['reason']} (such as {one['example']})"
        for one in reasons(refused)[:MOST_REASONS]
    ]
    raise Misfit(
        f"{told}; {'; '.join(why)}" if why else f"{told}: it holds the base alone", "lanes" if spec.lanes else "steps"
    )


def versions() -> dict[str, str]:
    """Of this project and of the libraries whose behaviour results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
