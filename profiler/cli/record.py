"""`profiler record`: open-loop runs on engines that are there, kept for comparison with the simulator."""

from __future__ import annotations

import asyncio
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from profiler import console
from profiler.errors import DependencyError, InputError
from profiler.load import Counting, Kind, Outcome

if TYPE_CHECKING:
    from profiler.record.schedule import Schedule

# Imports inside the command keep `profiler --help` quick.
# ruff: noqa: PLC0415

#: A client beyond one of these shares in what it measures.
BUSY_SHARE, LATE_MS = 0.8, 20.0

_SCHEDULE = (
    "poisson:rate=4,duration_s=60,isl=1000,isl_cv=0.6,osl=150,osl_cv=0.5,seed=1 or trace:file=F,start_s=0,"
    "duration_s=60; with name=…, else r1, r2, … Several run one after the other."
)


def record(
    to: Annotated[Path, typer.Option(metavar="DIR|FILE.csv", help="Folder of the runs, or the one run's file.")],
    model: Annotated[str, typer.Option(help="Model, as in the profiles that the runs will be compared with.")],
    gpu: Annotated[str, typer.Option(help="GPU, as in those profiles: h100-sxm, or the driver's name for it.")],
    schedule: Annotated[list[str] | None, typer.Option(metavar="SPEC", help=_SCHEDULE)] = None,
    url: Annotated[str | None, typer.Option(help="An aggregated worker, without /v1.")] = None,
    prefill_url: Annotated[list[str] | None, typer.Option(help="Prefill worker; may be given more than once.")] = None,
    decode_url: Annotated[list[str] | None, typer.Option(help="Decode worker; may be given more than once.")] = None,
    served_model: Annotated[str | None, typer.Option(help="Name that requests ask for. [default: --model]")] = None,
    tp: Annotated[int, typer.Option(min=1, help="TP of the aggregated worker.")] = 1,
    prefill_tp: Annotated[int, typer.Option(min=1, help="TP of each prefill worker.")] = 1,
    decode_tp: Annotated[int, typer.Option(min=1, help="TP of each decode worker.")] = 1,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Plain CSV: arrival_s,isl,osl.")] = None,
    start_s: Annotated[float, typer.Option(help="Where the trace's slice begins, s.")] = 0.0,
    duration_s: Annotated[float | None, typer.Option(help="How long the slice is, s. [default: to its end]")] = None,
    rate_scale: Annotated[float, typer.Option(help="Share of the slice's requests that is kept, at most 1.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is kept of the trace.")] = 0,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="As the workers were started.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=1, help="As the workers were started.")] = None,
    prompt: Annotated[Kind, typer.Option(help="What prompts are made of.")] = Kind.IDS,
    counting: Annotated[Counting, typer.Option(help="How tokens are counted in streams.")] = Counting.IDS,
    speed_up: Annotated[float, typer.Option(help="Of simulated engines.")] = 1.0,
    timeout_s: Annotated[float, typer.Option(help="A request that takes longer is lost.")] = 600.0,
) -> None:
    """Send open-loop runs to an aggregated worker or to pairs, and keep what became of each request.

    Exit code 3 when a run lost every request; the runs are written all the same.
    """
    from profiler.record.jobs import ClientOptions, Target, run_all
    from profiler.record.schedule import TraceSchedule, parse_schedule
    from profiler.schema import parse_model

    for name, value in (("--speed-up", speed_up), ("--timeout-s", timeout_s)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"is {value:g}", expected="a number above 0", field=name)
    schedules: list[Schedule] = [parse_schedule(text) for text in schedule or []]
    if trace is not None:
        slice_of = {"file": trace, "start_s": start_s, "duration_s": duration_s, "rate_scale": rate_scale, "seed": seed}
        schedules.append(parse_model(TraceSchedule, slice_of, "--trace"))
    if not schedules:
        raise InputError("nothing to send", expected="--schedule or --trace", field="--schedule")
    target = Target(
        aggregated=() if url is None else (url,),
        prefill=tuple(prefill_url or ()),
        decode=tuple(decode_url or ()),
        model=model,
        served_model=served_model or model,
        gpu=gpu,
        tp={"aggregated": tp, "prefill": prefill_tp, "decode": decode_tp},
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    options = ClientOptions(prompt=prompt, counting=counting, speed_up=speed_up, timeout_s=timeout_s)
    command = shlex.join(["profiler", *sys.argv[1:]])

    def before(name: str, count: int, span_s: float) -> None:
        console.stderr.print(f"{name}: {count} requests over {span_s:.0f} s")

    runs = asyncio.run(run_all(target, schedules, to, options=options, command=command, before=before))
    for done in runs:
        client, outcomes = done.meta.client, done.meta.outcomes
        tallies = ", ".join(f"{count} {name}" for name, count in outcomes.items())
        typer.echo(
            f"{done.path}: {tallies}; client at {client.cpu_share:.0%} CPU, late by {client.late_p99_ms:.1f} ms (p99)"
        )
        if client.cpu_share > BUSY_SHARE or client.late_p99_ms > LATE_MS:
            console.stderr.print(f"[yellow]warning:[/] {done.meta.name}: the client could not keep up", soft_wrap=True)
        for one in done.results:
            if one.error:
                text = escape(one.error)
                console.stderr.print(f"[yellow]warning:[/] {done.meta.name}: {text}", soft_wrap=True)
                break
    empty = [done.meta.name for done in runs if Outcome.COMPLETED.value not in done.meta.outcomes]
    if empty:
        raise DependencyError(f"no request completed in {', '.join(empty)}; the files say why")
