"""`planner graph`: a graph's YAML run as processes on this machine."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.render import render
from profiler import console
from profiler.console import Output
from profiler.errors import DependencyError, InputError

if TYPE_CHECKING:
    from worker_graph.local.client import Client
    from worker_graph.spec import GraphSpec

# Imports inside the commands keep `planner --help` quick.
# ruff: noqa: PLC0415

app = typer.Typer(
    help="Run a graph's YAML as processes on this machine, or render it for a cluster.", no_args_is_help=True
)
app.command()(render)

_FILE = typer.Argument(metavar="FILE", help="DynamoGraphDeployment YAML.")
_RUN_DIR = typer.Option(metavar="DIR", help="Logs, scrape targets, state. [default: by the graph's name]")


@app.command()
def up(
    file: Annotated[Path, _FILE],
    engine: Annotated[str, typer.Option(metavar="NAME", help="vllm, or simulated (needs --profile).")] = "vllm",
    profile: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Profiles of the simulated engine.")] = None,
    speed_up: Annotated[float, typer.Option(metavar="X", help="Of the simulated engine's time.")] = 1.0,
    startup_s: Annotated[float, typer.Option(metavar="N", help="Start-up of the simulated engine, its own s.")] = 0.0,
    gateway: Annotated[str, typer.Option(metavar="NAME", help="smg.")] = "smg",
    routing: Annotated[
        str | None, typer.Option(metavar="NAME", help="least-loaded, round-robin, random, kv. [default: the graph's]")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="To listen on; there is no authentication.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(metavar="N", help="Of the gateway; 0 for any.")] = 8000,
    metrics_port: Annotated[int, typer.Option(metavar="N", help="Of the gateway's metrics; 0 for any.")] = 0,
    control_port: Annotated[int, typer.Option(metavar="N", help="Of the control interface; 0 for any.")] = 0,
    gpus: Annotated[int, typer.Option(metavar="N", help="GPUs that workers may hold at any moment.")] = 8,
    startup_timeout_s: Annotated[float, typer.Option(metavar="N", help="A worker must be healthy by then, s.")] = 1800,
    drain_timeout_s: Annotated[float, typer.Option(metavar="N", help="A draining worker ends by then, s.")] = 600,
    vllm_command: Annotated[str, typer.Option(metavar="CMD", help="The program that serves.")] = "vllm",
    run_dir: Annotated[Path | None, _RUN_DIR] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once the gateway serves.")] = False,
) -> None:
    """Start gateway and workers; Ctrl-C, or `down`, ends them."""
    from worker_graph.local.gateway import GATEWAYS, ROUTINGS
    from worker_graph.local.launchers import LAUNCHERS
    from worker_graph.local.options import LocalOptions
    from worker_graph.local.up import default_run_dir, up

    spec = _spec(file)
    for name, value, known in (
        ("--engine", engine, LAUNCHERS),
        ("--gateway", gateway, GATEWAYS),
        ("--routing", routing or ROUTINGS[0], ROUTINGS),
    ):
        if value not in known:
            raise InputError(f"is {value!r}", expected=", ".join(known), field=name)
    for name, number, least in (
        ("--speed-up", speed_up, 0.01),
        ("--startup-s", startup_s, 0.0),
        ("--gpus", gpus, 0),
        ("--startup-timeout-s", startup_timeout_s, 0.0),
        ("--drain-timeout-s", drain_timeout_s, 0.0),
    ):
        if not least <= number < float("inf"):
            raise InputError(f"is {number:g}", expected=f"at least {least:g}", field=name)
    for name, number in (("--port", port), ("--metrics-port", metrics_port), ("--control-port", control_port)):
        if not 0 <= number <= 65535:
            raise InputError(f"is {number}", expected="0 to 65535", field=name)
    command = tuple(shlex.split(vllm_command))
    if not command:
        raise InputError("is empty", expected="a program", field="--vllm-command")
    folder = run_dir or default_run_dir(spec.name)
    if detach:
        _detach(spec.name, folder)
        return
    options = LocalOptions(
        run_dir=folder.absolute(), engine=engine, gateway=gateway, routing=routing, host=host, port=port,
        metrics_port=metrics_port, control_port=control_port, gpus=gpus, startup_timeout_s=startup_timeout_s,
        drain_timeout_s=drain_timeout_s, profiles=tuple(profile or ()), speed_up=speed_up,
        simulated_startup_s=startup_s, vllm_command=command,
    )  # fmt: skip
    say = _Say()
    _check_locally(spec, say)
    up(spec, options, say, lambda url: say(f"control interface: {url}; logs: {folder / 'logs'}"))


def _check_locally(spec: GraphSpec, say: Callable[[str], None]) -> None:
    """Say what this machine does in its own way; what it cannot do is an error that names the field."""
    from worker_graph.spec import Severity, unsupported_locally

    for found in unsupported_locally(spec):
        if found.severity is Severity.ERROR:
            raise spec.error(found.why, found.place)
        line = f", line {found.line}" if found.line is not None else ""
        say(f"{spec.source}{line}, {'.'.join(map(str, found.place))}: {found.why}")


class _Say:
    """One line on standard error for each thing that happens, with its time."""

    def __call__(self, text: str) -> None:
        console.stderr.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)


def _detach(graph: str, folder: Path) -> None:
    """Start this very command again without a terminal, and wait for its control interface."""
    from worker_graph.local.up import already_running, running

    if running(folder) is not None:
        # Before its log is begun anew.
        raise already_running(graph, folder)
    words = [word for word in sys.argv[1:] if word != "--detach"]
    log = folder / "supervisor.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = log.open("wb")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", field="--run-dir") from None
    with opened as sink:
        process = subprocess.Popen(  # noqa: S603 (this program, with the arguments that it was given)
            [sys.executable, "-m", "planner", *words],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    while process.poll() is None:
        found = running(folder)
        if found is not None and found["pid"] == process.pid:
            console.stdout.print(f"up: {found['control_url']} (log: {log})", markup=False, soft_wrap=True)
            return
        time.sleep(0.1)
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    last = text.splitlines()[-1] if text else "no output"
    if process.returncode == InputError.exit_code:
        raise InputError(last.removeprefix("error: "))
    raise DependencyError(f"the graph did not come up: {last} ({log})")


@app.command()
def scale(
    file: Annotated[Path, _FILE],
    counts: Annotated[list[str], typer.Argument(metavar="POOL=N…", help="Workers by component, as in the YAML.")],
    run_dir: Annotated[Path | None, _RUN_DIR] = None,
    output: Annotated[Output, typer.Option(help="A line for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Ask for so many workers, all pools at once."""
    from worker_graph.local.client import RefusedError

    wanted = {}
    for word in counts:
        pool, _, number = word.partition("=")
        if not (pool and number.isdecimal()):
            raise InputError(f"is {word!r}", expected="POOL=N, such as VllmDecodeWorker=3", field="POOL=N")
        wanted[pool] = int(number)
    try:
        outcome = _client(file, run_dir).scale(wanted)
    except RefusedError as error:
        if error.code != "over_budget":
            raise
        # It does not go away by itself: the counts are wrong, or the graph wants more GPUs.
        raise InputError(str(error)) from None
    if output is Output.JSON:
        typer.echo(json.dumps(outcome))
    else:
        for pool, done in outcome.items():
            console.stdout.print(f"{pool}: {done}", markup=False)


@app.command()
def status(
    file: Annotated[Path, _FILE],
    run_dir: Annotated[Path | None, _RUN_DIR] = None,
    output: Annotated[Output, typer.Option(help="Tables for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Pools, workers, and what happened last. Exit code 1 when a worker that was asked for does not serve."""
    found = _client(file, run_dir).status()
    if output is Output.JSON:
        typer.echo(json.dumps(found))
    else:
        _print_status(found)
    if any(pool["ready"] != pool["desired"] for pool in found["pools"].values()) or not found["gateway"]["ready"]:
        raise typer.Exit(1)


def _print_status(found: dict[str, Any]) -> None:
    from rich.table import Table

    gateway, lease, gpus = found["gateway"], found["lease"]["holder"], found["gpus"]
    lines = [
        f"graph {found['graph']}: {gateway['url']} ({gateway['name']}{'' if gateway['ready'] else ', not ready'})",
        f"GPUs: {gpus['held']} of {gpus['budget']} held; scaled by {lease or 'nobody'}",
    ]
    for text in lines:
        console.stdout.print(text, markup=False, highlight=False, soft_wrap=True)
    pools = Table("pool", "role", "desired", "ready", "starting", "draining", "GPUs each", box=None)
    for name, pool in found["pools"].items():
        counts = (pool[key] for key in ("desired", "ready", "starting", "draining", "gpus_per_worker"))
        pools.add_row(name, pool["role"], *map(str, counts))
    console.stdout.print(pools)
    workers = Table("worker", "state", "address", "age s", "process", "", box=None)
    for one in found["workers"]:
        facts = (one["name"], one["state"], one["address"], f"{one['age_s']:g}", str(one["pid"] or ""), one["reason"])
        workers.add_row(*facts)
    console.stdout.print(workers)
    for name, pool in found["pools"].items():
        if pool["last_failure"]:
            said = f"{name}: {pool['failures']} failures, the last: {pool['last_failure']}"
            console.stdout.print(said, markup=False, highlight=False, soft_wrap=True)


@app.command()
def down(file: Annotated[Path, _FILE], run_dir: Annotated[Path | None, _RUN_DIR] = None) -> None:
    """End the graph and everything that it started, whether or not its supervisor still runs."""
    from worker_graph.local import leftovers
    from worker_graph.local.up import default_run_dir, running

    folder = run_dir or default_run_dir(_spec(file).name)
    say = _Say()
    if running(folder) is not None:
        _client(file, run_dir).shut_down()
        while running(folder) is not None:
            time.sleep(0.1)
        say("down")
    elif leftovers.end(folder, say) == 0:
        say("nothing was running")


def _spec(file: Path) -> GraphSpec:
    from worker_graph.spec import load_graph

    return load_graph(file)


def _client(file: Path, run_dir: Path | None) -> Client:
    """Of the graph that runs from this folder."""
    from worker_graph.local.client import Client
    from worker_graph.local.up import default_run_dir, running

    spec = _spec(file)
    folder = run_dir or default_run_dir(spec.name)
    found = running(folder)
    if found is None:
        raise DependencyError(f"graph {spec.name} is not running from {folder}; start it with: planner graph up {file}")
    return Client(found["control_url"])
