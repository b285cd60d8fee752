"""`planner whatif`."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.outputs import check_outputs, unwritten, write_output
from profiler import console
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from planner.whatif.policies import Setting
    from planner.whatif.run import Job, Result

# Imports inside the command keep `planner --help` quick: numba and statsmodels take seconds.
# ruff: noqa: PLC0415


class GatewayRouting(StrEnum):
    """How the simulated gateway picks a worker."""

    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"


#: Without --policy: ours, an HPA, Dynamo's classic planner, and the bound.
DEFAULT_POLICIES = ("planner", "hpa", "dynamo-classic", "clairvoyant")

#: A day: what starts more slowly is not scaled by its load.
LONGEST_STARTUP_S = 86_400.0

#: More than any one fleet has; counts are searched up to it.
MOST_GPUS = 1_000_000

_TRACE = "Azure CSV, Mooncake JSONL, CSV with arrival_s,isl,osl[,prefix_hit_tokens], or generate:NAME[,key=value…]."
_POLICY = (
    "planner, static:3p4d, static:2p2d..4p4d, static:peak, hpa, kpa, keda, wva, wva-v2, apa, dynamo, dynamo-classic, "
    "clairvoyant; may be given more than once."
)

_DISTURB = (
    "Also replay every policy with this, beside the undisturbed run: optimistic-profile, pessimistic-profile, "
    "drifting-lengths, missing-metrics, slow-workers, failing-starts, or all; may be given more than once."
)

_CHANGE = "Change a layout during the replay, as on a cluster: decode=tp2@600. With profiles of both layouts."


def whatif(
    trace: Annotated[str, typer.Option(metavar="FILE", help=_TRACE)],
    profile: Annotated[list[Path], typer.Option(metavar="DIR", help="Profile, or a folder with profiles below it.")],
    ttft_ms: Annotated[float, typer.Option(metavar="N", help="TTFT limit of a request, ms.")],
    itl_ms: Annotated[float, typer.Option(metavar="N", help="ITL limit of a request, ms.")],
    attainment: Annotated[float, typer.Option(metavar="X", help="Share of requests that must keep both.")] = 0.95,
    rate_scale: Annotated[float, typer.Option(metavar="X", help="So many times the requests in the same span.")] = 1.0,
    time_scale: Annotated[float, typer.Option(metavar="X", help="Compress time by so much.")] = 1.0,
    startup_s: Annotated[float, typer.Option(metavar="N", help="From asking for a worker to its readiness, s.")] = 30.0,
    start: Annotated[
        str, typer.Option(metavar="LAYOUT", help="Workers at time 0: 1p1d, or 1a for aggregated.")
    ] = "1p1d",
    max_gpus: Annotated[int, typer.Option(metavar="N", help="GPUs that a policy may hold at any moment.")] = 64,
    policy: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_POLICY)] = None,
    routing: Annotated[GatewayRouting, typer.Option(help="The gateway's choice.")] = GatewayRouting.LEAST_LOADED,
    prefix_cache_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Prefix cache of the fleet; 0 turns hits off. [default: unlimited]")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML with the planner's tuning.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the trace's scaling.")] = 0,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes. [default: cores]")] = None,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write one self-contained page.")] = None,
    requests_out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write the simulated requests (one policy only).")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write the decision records of the first planner policy.")
    ] = None,
    change_layout: Annotated[str | None, typer.Option(metavar="ROLE=LAYOUT@S", help=_CHANGE)] = None,
    least_capacity: Annotated[
        float, typer.Option(metavar="X", help="Share of the needed capacity that serves all through the change.")
    ] = 1.0,
    disturb: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_DISTURB)] = None,
) -> None:
    """Replay a trace under policies: attainment and GPU-hours of each.

    Exit code 1 when no policy reaches the attainment, undisturbed.
    """
    from planner.config import load_tuning
    from planner.core.settings import PlannerSettings, Tuning
    from planner.core.types import Sla
    from planner.whatif import graph as graphs
    from planner.whatif.policies import Setting, expand, parse_layout
    from planner.whatif.robustness import expand_disturbances, make_disturbance
    from planner.whatif.run import Job
    from planner.whatif.traces import open_trace, scaled, summarize

    sla = Sla(_positive("--ttft-ms", ttft_ms), _positive("--itl-ms", itl_ms), _share("--attainment", attainment))
    _positive("--rate-scale", rate_scale)
    _positive("--time-scale", time_scale)
    if not 0 <= startup_s <= LONGEST_STARTUP_S:
        raise InputError(f"is {startup_s:g}", expected=f"from 0 to {LONGEST_STARTUP_S:g} seconds", field="--startup-s")
    for name, number, least in (
        ("--max-gpus", max_gpus, 1),
        ("--jobs", 1 if jobs is None else jobs, 1),
        ("--seed", seed, 0),
    ):
        if number < least:
            raise InputError(f"is {number}", expected=f"at least {least}", field=name)
    if max_gpus > MOST_GPUS:
        raise InputError(f"is {max_gpus}", expected=f"at most {MOST_GPUS}", field="--max-gpus")
    check_outputs(
        {"--report": report, "--requests-out": requests_out, "--journal": journal},
        {"--trace": Path(trace), "--config": config},
    )
    tuning = load_tuning(config) if config is not None else Tuning()
    profiles = graphs.load_profiles(profile)
    change = None
    if change_layout is not None:
        if not 0 <= least_capacity <= 1:
            raise InputError(f"is {least_capacity:g}", expected="a share from 0 to 1", field="--least-capacity")
        if journal is not None:
            raise InputError("goes with one layout: a record is of one model", field="--journal")
        kept = start.endswith("a")
        profiles, change = graphs.split_change(change_layout, profiles, max_gpus, aggregated=kept)
        change = replace(change, least_capacity=least_capacity)
    graph = graphs.build_graph(profiles, aggregated=start.endswith("a"), max_gpus=max_gpus)
    begin = parse_layout(start, graph.pools, "--start")
    settings = PlannerSettings(
        sla=sla, pools=tuple(graph.pools.values()), max_gpus=max_gpus, lead_time_s=startup_s, **tuning.model_dump()
    )
    specs = list(dict.fromkeys(one for spec in policy or DEFAULT_POLICIES for one in expand(spec, graph.pools)))
    if requests_out is not None and len(specs) != 1:
        raise InputError(f"goes with one policy, {len(specs)} given", field="--requests-out")
    if change is not None and not all(spec.partition(":")[0] == "planner" for spec in specs):
        raise InputError("needs our planner alone: no other policy changes layouts", expected="--policy planner",
                         field="--change-layout")  # fmt: skip
    if journal is not None and not any(spec.startswith("planner") for spec in specs):
        raise InputError("needs our planner among the policies", expected="--policy planner", field="--journal")
    disturbances = expand_disturbances(disturb or ())
    if disturbances and change is not None:
        raise InputError("goes without a layout change", expected="one of the two", field="--disturb")
    for name, file in (("--report", report), ("--requests-out", requests_out), ("--journal", journal)):
        if file is not None and len(disturbances) > 1:
            right = "one disturbance, whose run it then tells of"
            raise InputError(f"goes with one disturbance, {len(disturbances)} given", expected=right, field=name)
    if journal is not None and any("profile" in spec for spec in disturbances):
        raise InputError(
            "names the profile, which is not what a planner with a wrong one decides by", field="--journal"
        )
    source = open_trace(trace, prefix_cache_tokens=prefix_cache_tokens)
    requests = scaled(source, rate_scale=rate_scale, time_scale=time_scale, seed=seed)
    # Read once before anything runs: a bad line far into the file is found now.
    summary = summarize(requests)
    if summary.requests == 0:
        raise InputError("holds no request", expected="a trace, scaled as asked, with requests", field="--trace")
    setting = Setting(
        engines=graph.engines,
        profiles=graph.profiles,
        pools=graph.pools,
        settings=settings,
        start=begin,
        startup_s=startup_s,
        routing=routing.value,
        trace=requests,
        sources=tuple(profiles),
        change=change,
    )
    gpus = sum(begin[pool.name] * pool.gpus_per_worker for pool in graph.pools.values())
    if gpus > max_gpus:
        raise InputError(f"{start} takes {gpus} GPUs", expected=f"at most {max_gpus} (--max-gpus)", field="--start")
    for one in disturbances:
        make_disturbance(one).check(setting, summary.span_s)
    ours = next((spec for spec in specs if spec.startswith("planner")), None)
    # With a disturbance, page and records tell of the disturbed run.
    told = disturbances[0] if disturbances else None
    work = []
    for spec in specs:
        for which in (None, *disturbances):
            records = journal is not None and spec == ours and which == told
            work.append(Job(setting, spec, records, requests_out if which == told else None, which))
    results = _run(work, jobs or os.cpu_count() or 1)
    _answer(setting, summary.requests, summary.span_s, results, ours, told, output, report, journal)


def _run(jobs: list[Job], processes: int) -> list[Result]:
    """All results in the order of the jobs, with a progress bar on standard error."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from planner.whatif.policies import make_policy
    from planner.whatif.run import run_all, warm_up

    for job in jobs:
        # A wrong option is found before anything runs. The clairvoyant's making is the work itself; it has no options.
        if job.spec != "clairvoyant":
            make_policy(job.spec, job.setting)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console.stderr, transient=True) as progress:
        task = progress.add_task("compiling the simulator (once, about a minute)", total=len(jobs))
        warm_up(jobs[0].setting)
        progress.update(task, description="replaying")
        found = {}
        for result in run_all(jobs, processes):
            found[result.spec, result.disturb] = result
            progress.update(task, advance=1, description=f"replayed {result.spec}")
    return [found[job.spec, job.disturb] for job in jobs]


def _answer(
    setting: Setting,
    requests: int,
    span_s: float,
    results: list[Result],
    ours: str | None,
    told: str | None,
    output: Output,
    report: Path | None,
    journal: Path | None,
) -> None:
    from rich.console import Console
    from rich.measure import Measurement

    from planner.explain import printable
    from planner.whatif.report import Report, write_report
    from planner.whatif.robustness.table import disturbed_json, disturbed_table
    from planner.whatif.table import as_json, change_words, outcome_table

    sla = setting.sla
    outcomes = [result.outcome for result in results if result.disturb == told]
    mine = next((result for result in results if (result.spec, result.disturb) == (ours, told)), None)
    trace_name = printable(setting.trace.name)
    if journal is not None and mine is not None:
        write_output("--journal", journal, "".join(f"{line}\n" for line in mine.records))
    if report is not None:
        facts = [
            ("profiles", ", ".join(str(p.path) for p in setting.sources)),
            ("start-up", f"{setting.startup_s:g} s"),
            ("start", ", ".join(f"{count} {name}" for name, count in setting.start.items())),
            ("budget", f"{setting.settings.max_gpus} GPUs"),
            ("routing", setting.routing.replace("_", " ")),
            ("KV hand-off", setting.engines.transfer.source),
            *([("disturbance", told)] if told is not None else []),
            ("command", printable(shlex.join(["planner", *sys.argv[1:]]))),
        ]
        notes = tuple(sorted({warning for p in setting.sources for warning in p.meta.warnings}))
        title = f"What if: {trace_name}"
        decisions = mine.decisions if mine is not None else ()
        page = Report(title, trace_name, requests, span_s, sla, facts, tuple(outcomes), decisions, notes)
        try:
            write_report(report, page)
        except OSError as error:
            raise unwritten("--report", report, error) from None
    if output is Output.JSON:
        found = (
            as_json(requests, span_s, sla, outcomes) if told is None else disturbed_json(requests, span_s, sla, results)
        )
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        console.stdout.print(f"{trace_name}: {requests:,} requests in {span_s:,.0f} s", markup=False, soft_wrap=True)
        table = outcome_table(outcomes, sla) if told is None else disturbed_table(results, sla)
        # Lines that do not fit the terminal wrap there; cut to its width, figures would be lost, and to a pipe, too.
        needed = Measurement.get(console.stdout, console.stdout.options.update(width=1000), table).minimum
        Console(highlight=False, width=max(needed, console.stdout.width)).print(table)
        for outcome in outcomes:
            if outcome.layout_change is not None:
                console.stdout.print(f"{outcome.policy}: {change_words(outcome)}", markup=False, soft_wrap=True)
        if report is not None:
            console.stdout.print(f"report: {report.resolve().as_uri()}", markup=False, soft_wrap=True)
        if journal is not None:
            command = f"planner explain {shlex.quote(str(journal))}"
            console.stdout.print(f"decisions: {printable(command)}", markup=False, soft_wrap=True)
    if not any(result.outcome.attainment >= sla.attainment for result in results if result.disturb is None):
        raise typer.Exit(1)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"is {value:g}", expected="a number above 0", field=name)
    return value


def _share(name: str, value: float) -> float:
    if not 0 < value <= 1:
        raise InputError(f"is {value:g}", expected="a share above 0 and up to 1, such as 0.95", field=name)
    return value
