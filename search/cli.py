"""The command line. The work of each command is done elsewhere, and imported only when asked for."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from cluster.engines import EngineName
from cluster.storage import BadPlace, StorageFault, is_uri
from search.errors import BadInput, RunFailed

OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what Ray sets for the command of a job

app = typer.Typer(
    help="Find the best compressed version of a language model: search, score with a real vLLM, hand over.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SpaceArg = Annotated[str, typer.Argument(metavar="SPACE", help="a preset's name or a .yaml file")]
RunArg = Annotated[str, typer.Argument(metavar="RUN", help="a run folder, or its URI (s3://, gs://)")]
BaseOpt = Annotated[str, typer.Option("--base", help="tiny, a model folder, or a hub id")]
OutOpt = Annotated[
    str, typer.Option("--out", help="the run folder to make, or a URI that all nodes reach (s3://, gs://)")
]
TrialsOpt = Annotated[int | None, typer.Option("--trials", min=1, help="recipes to try (default: the space's)")]
HoursOpt = Annotated[
    float | None,
    typer.Option("--hours", min=0.001, help="wall clock after which trials are cut short; `resume` has as much again"),
]
AddressOpt = Annotated[str | None, typer.Option("--address", help="a Ray cluster; without it, this machine")]
StoreOpt = Annotated[
    str | None, typer.Option("--store", help="where artifacts live, a folder or a URI (default: RUN/store)")
]
SeedOpt = Annotated[int, typer.Option("--seed", help="of the searcher: which recipes chance picks")]
JsonOpt = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]
EngineOpt = Annotated[
    EngineName | None, typer.Option("--engine", help="own or contest (vLLM 0.14.1); default: the space's")
]
VerifyOpt = Annotated[bool, typer.Option("--verify/--no-verify", help="export the best trial and verify it at the end")]


@app.command()
def search(
    space: SpaceArg,
    base: BaseOpt,
    out: OutOpt,
    trials: TrialsOpt = None,
    hours: HoursOpt = None,
    address: AddressOpt = None,
    store: StoreOpt = None,
    seed: SeedOpt = 0,
    verify: VerifyOpt = True,
    as_json: JsonOpt = False,
) -> None:
    """Search SPACE for the best recipe, and hand over a verified submit.zip."""
    from search.start import new_job
    from search.whole import conclude

    job = new_job(
        space, base, out, trials=trials, hours=hours, store=store, seed=seed, asked=sys.argv[1:], address=address
    )
    conclude(job, address, verify, as_json)


@app.command()
def resume(run: RunArg, address: AddressOpt = None, verify: VerifyOpt = True, as_json: JsonOpt = False) -> None:
    """Go on with a search that was stopped or killed; finished rungs are not done again."""
    from search.job import Job
    from search.whole import conclude

    conclude(Job.load(run), address, verify, as_json)


@app.command()
def status(run: RunArg, as_json: JsonOpt = False) -> None:
    """Say how far a search is."""
    from search.job import Job
    from search.report import status_of, who_works
    from search.stores import with_shape

    job = with_shape(Job.load(run))
    told = status_of(job)
    told["text"] = "\n".join([told["text"], *who_works(job, told)])
    _print(told, as_json, told["text"])


@app.command()
def report(run: RunArg, as_json: JsonOpt = False) -> None:
    """Write report.html, summary.csv and summary.md from the ledger."""
    from search.home import REPORTS
    from search.job import Job
    from search.report import write_report
    from search.stores import with_shape

    job = with_shape(Job.load(run))
    written = write_report(job)
    job.keep(REPORTS)
    _print({"written": [str(path) for path in written]}, as_json, "wrote " + ", ".join(map(str, written)))


@app.command()
def export(
    run: RunArg,
    output: Annotated[Path, typer.Option("-o", "--output", help="the zip to write")] = Path("submit.zip"),
    pick: Annotated[str, typer.Option("--pick", help="score, quality, size, speed, or a trial's name")] = "score",
    as_json: JsonOpt = False,
) -> None:
    """Write a trial's model as submit.zip."""
    from search.export import export as write
    from search.job import Job

    trial = write(Job.load(run), pick, output)
    _print({"trial": trial.name, "written": str(output)}, as_json, f"wrote {output}: trial {trial.name}")


@app.command()
def verify(
    submission: Annotated[Path, typer.Argument(metavar="SUBMIT.ZIP")],
    run: Annotated[
        str | None, typer.Option("--run", help="its run: a folder, or a URI (default: the zip's folder)")
    ] = None,
    engine: EngineOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Unpack a submission, load it with vLLM and transformers, score it again, write verification.json."""
    from search.job import Job
    from search.stores import with_base
    from search.whole import verify_and_tell

    beside = submission.resolve().parent
    given = run if run is not None else str(beside) if (beside / "run.json").exists() else None
    job = with_base(Job.load(given), checked=False) if given is not None else None
    verify_and_tell(submission, job, as_json, engine)


@app.command()
def compress(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a YAML or JSON file, or JSON text: a list of steps")],
    base: BaseOpt,
    output: Annotated[Path, typer.Option("-o", "--output", help="the model folder to make")],
    data: Annotated[Path | None, typer.Option("--data", help="chat rows (column conversations)")] = None,
    as_json: JsonOpt = False,
) -> None:
    """Apply one recipe to a model, without searching."""
    from search.single import compress as work

    told = work(recipe, base, output, data)
    _print(told, as_json, told["text"])


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="DIR", help="a model folder, or tiny")],
    baseline: Annotated[str | None, typer.Option("--baseline", help="score against this model")] = None,
    space: Annotated[str, typer.Option("--space", help="whose benchmarks are asked")] = "demo",
    engine: EngineOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Measure a model with vLLM; with --baseline, score it."""
    from search.measuring import evaluate as work

    told = work(model, baseline, space, engine)
    _print(told, as_json, told["text"])


@app.command()
def plan(
    space: SpaceArg,
    base: BaseOpt,
    store: Annotated[str | None, typer.Option("--store", help="tell what of it is in this store already")] = None,
    trials: TrialsOpt = None,
    hours: HoursOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Say what a search would try, refuse and cost; starts nothing, and needs config and tokenizer alone."""
    from search.plan import plan as work

    if store is not None and is_uri(store):
        raise BadInput(f"--store {store}: a plan looks into a store's folder; leave it out")
    told = work(space, base, Path(store) if store is not None else None, trials, hours)
    _print(told, as_json, told["text"])


@app.command()
def doctor(
    address: Annotated[str | None, typer.Option("--address", help="a Ray cluster, of whose nodes to tell")] = None,
    as_json: JsonOpt = False,
) -> None:
    """Say what this machine lacks, or with --address each node of a cluster, and what to do."""
    if address is not None:
        _doctor_of(address, as_json)
        return
    from cluster.doctor import examine

    found = examine()
    text = "\n".join(
        f"{'ok ' if one['ok'] else 'NO '} {one['what']}: {one['found']}{'' if one['ok'] else ' — ' + one['do']}"
        for one in found
    )
    _print({"checks": found}, as_json, text)
    if not all(one["ok"] for one in found):
        raise typer.Exit(1)


def _doctor_of(address: str, as_json: bool) -> None:
    import ray

    from cluster.survey import page, survey
    from search.joining import start_ray

    start_ray(address, Path())
    try:
        found = survey()
    finally:
        ray.shutdown()
    _print({"address": address, "nodes": found}, as_json, page(found, address))
    if not all(one["ok"] for one in found):
        raise typer.Exit(1)


def _print(content: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(content, ensure_ascii=False) if as_json else text)


def main() -> None:
    """Entry point: bad input ends with 2, failed work with 1, each in one line."""
    # Threads that spin at barriers steal the cores they wait for; read by OpenMP when torch is loaded, here and in
    # the workers that Ray starts from here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Interrupting is how `ray job stop` asks; a head begun in a shell's background has its jobs ignore it.
    if OF_A_JOB in os.environ and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except (BadInput, BadPlace) as fault:
        _complain(str(fault), 2)
    except TyperException as fault:  # unknown commands and options, missing or malformed values
        if not fault.format_message():  # no command at all: the help was shown
            raise SystemExit(2) from fault
        _complain(f"{fault.format_message().rstrip('.')}; see --help", 2)
    except (RunFailed, StorageFault) as fault:
        _complain(str(fault), 1)
    except OSError as fault:  # a disk that is full, a file that may not be read
        _complain(f"{fault.strerror or fault}: {str(fault.filename)[:200]}", 1)
    except KeyboardInterrupt:
        _complain("interrupted", 1)
    else:
        raise SystemExit(code if isinstance(code, int) else 0)


def _complain(text: str, code: int) -> None:
    text = " ".join(text.split())
    print(f"squeeze: {text}", file=sys.stderr)
    if "--json" in sys.argv[1:]:
        print(json.dumps({"error": text, "exit": code}, ensure_ascii=False))
    raise SystemExit(code)


if __name__ == "__main__":
    main()
