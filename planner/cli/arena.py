"""`planner arena`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler import console
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from planner.whatif.arena.cases import Case
    from planner.whatif.arena.record import RunRecord
    from planner.whatif.arena.results import Results
    from planner.whatif.arena.run import Task, Terms
    from planner.whatif.arena.setting import Place
    from planner.whatif.arena.store import Store

# Imports inside the command keep `planner --help` quick: numba and statsmodels take seconds.
# ruff: noqa: PLC0415

_CASES = "A set of cases: standard, quick, ablation, sensitivity, or a YAML file."
_TRACES = "Folder with the public traces (azure2023/, mooncake/); without it, generated ones stand in."


def arena(
    cases: Annotated[str, typer.Argument(metavar="CASES", help=_CASES)] = "standard",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")] = Path("out/arena"),
    case: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only cases of this name, or pattern; more than once.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="In place of the set's policies; more than once.")
    ] = None,
    traces: Annotated[Path | None, typer.Option(metavar="DIR", envvar="PLIMSOLL_TRACES", help=_TRACES)] = None,
    profiles: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the cases' profiles are below.")] = Path(
        "profiling_results"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what is in the folder, and run all again.")] = False,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes. [default: cores]")] = None,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Replay a set of cases under a set of policies: who attains what for how many GPU-hours, beside the bound.

    Runs that the folder holds already are not done again. Exit code 1 when a run failed.
    """
    from planner.whatif.arena.cases import cases_of, find_set, load_set
    from planner.whatif.arena.store import Store

    if jobs is not None and jobs < 1:
        raise InputError(f"is {jobs}", expected="at least 1", field="--jobs")
    for name, folder in (("--traces", traces), ("--profiles", profiles)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{str(folder)!r} is no folder", expected="a folder", field=name)
    file = find_set(cases)
    spec = load_set(file)
    chosen = cases_of(spec, case or ())
    policies = tuple(dict.fromkeys(policy or spec.policies))
    places = _places(chosen, traces, profiles, file)
    _check_policies(policies, places)
    with Store(out, fresh=fresh) as store:
        terms, runs = _run(places, policies, store, jobs or os.cpu_count() or 1)
    from planner.whatif.arena.results import gather

    results = gather(file.stem, spec.about, policies, terms, runs, spec.reference)
    _answer(results, out, output)
    if results.failures:
        raise typer.Exit(1)


def _places(cases: Sequence[Case], traces: Path | None, profiles: Path, file: Path) -> list[Place]:
    """Every case with its trace and profiles; what is missing is found before anything runs."""
    from planner.whatif.arena.setting import Place, graph_of, profile_folders
    from planner.whatif.arena.source import find_source

    sources = {case.spec.name: case for case in cases}
    found = {name: find_source(case.spec, traces, file.parent, file=file) for name, case in sources.items()}
    places = [Place(case, found[case.spec.name], profile_folders(case, profiles, file), file) for case in cases]
    for place in places:
        graph_of(place)
    return places


def _check_policies(policies: Sequence[str], places: Sequence[Place]) -> None:
    """A policy that there is not, or a wrong option, is found before anything runs."""
    from planner.whatif.arena.setting import setting_of
    from planner.whatif.policies import expand, make_policy

    # One case of each kind says enough, and the first is read anyway.
    kinds = {(place.case.spec.graph, place.case.spec.without): place for place in reversed(places)}
    for place in kinds.values():
        setting = setting_of(place, place.case.spec.seeds[0])
        for policy in place.case.policies(policies):
            if expand(policy, setting.pools) != [policy]:
                raise InputError(f"{policy!r} is several policies", expected="single ones", field="--policy")
            make_policy(policy, setting)


def _run(
    places: Sequence[Place], policies: Sequence[str], store: Store, processes: int
) -> tuple[list[Terms], list[RunRecord]]:
    """Every run, those that are kept and those that are made now, with a progress bar on standard error."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from planner.whatif.arena.run import batches, run_batch, task_of, terms_of
    from planner.whatif.arena.statistics import is_bound
    from planner.whatif.processes import in_processes

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console.stderr, transient=True) as progress:
        _compile(places, progress)
        where = [(place, seed) for place in places for seed in place.case.spec.seeds]
        reading = progress.add_task("reading traces", total=len(where))
        made: dict[tuple[str, int], Terms] = {}
        for one in in_processes(terms_of, where, processes):
            made[one.place.case.name, one.seed] = one
            progress.update(reading, advance=1)
        progress.remove_task(reading)
        terms = [made[place.case.name, seed] for place, seed in where]
        # A process keeps its last traces: a trace's runs stay together, and the bounds, which take longest, come first.
        bounds_first = sorted(policies, key=lambda name: not is_bound(name))
        tasks = [task_of(one, policy) for one in terms for policy in one.place.case.policies(bounds_first)]
        todo = [task for task in tasks if task.key not in store.runs]
        bar = progress.add_task("replaying", total=len(tasks), completed=len(tasks) - len(todo))
        failed = 0
        for record in chain.from_iterable(in_processes(run_batch, batches(todo), processes)):
            store.add(record)
            failed += record.error is not None
            words = f"replayed {record.case}, {record.policy}" + (f" ({failed} failed)" if failed else "")
            progress.update(bar, advance=1, description=words)
    return terms, [_named(task, store.runs[task.key]) for task in tasks]


def _named(task: Task, record: RunRecord) -> RunRecord:
    """A kept run under the name that its case has now: what the name was is no part of the result."""
    return record.model_copy(update={"case": task.terms.place.case.name, "seed": task.terms.seed})


def _compile(places: Sequence[Place], progress: Progress) -> None:
    """The simulator's kernel, into its cache, before several processes want it at once."""
    from planner.whatif.arena.setting import setting_of
    from planner.whatif.run import warm_up

    task = progress.add_task("compiling the simulator (once, about a minute)", total=None)
    for place in {place.case.spec.graph: place for place in places}.values():
        warm_up(setting_of(place, place.case.spec.seeds[0]))
    progress.remove_task(task)


def _answer(results: Results, out: Path, output: Output) -> None:
    from rich.console import Console

    from planner.whatif.arena.page import page
    from planner.whatif.arena.results import as_json
    from planner.whatif.arena.table import least_width, markdown, ours_in_words, tables
    from profiler.atomic import write_atomic

    answer = json.dumps(as_json(results), allow_nan=False)
    try:
        write_atomic(out / "results.json", answer + "\n")
        write_atomic(out / "table.md", markdown(results))
        write_atomic(out / "arena.html", page(results))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", source=out, field="--out") from None
    if output is Output.JSON:
        typer.echo(answer)
        return
    # Into a pipe nothing is left out, however narrow it says it is.
    for table in tables(results, console.stdout.width if console.stdout.is_terminal else None):
        Console(highlight=False, width=max(least_width(table), console.stdout.width)).print(table)
    said = [ours_in_words(results), f"page: {(out / 'arena.html').resolve().as_uri()}"]
    said += [f"failed: {run.case}, {run.policy}, seed {run.seed}: {run.error}" for run in results.failures]
    for line in filter(None, said):
        console.stdout.print(line, markup=False, soft_wrap=True)
