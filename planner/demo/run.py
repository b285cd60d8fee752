"""The demo from start to end: graph, planner, load, verdict; whatever happens, nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import requests
from rich.live import Live
from rich.table import Table

from planner.core.types import Sla
from planner.demo.children import Child
from planner.demo.settings import MODEL, DemoSettings, graph_yaml, planner_yaml
from planner.demo.starting_size import replay_pair
from planner.demo.table import live_table
from planner.whatif.traces import open_trace
from profiler import console
from profiler.load import Load, Outcome, Result, ScheduledRequest, summarize
from worker_graph.local import leftovers
from worker_graph.local.client import Client
from worker_graph.local.ports import free_ports
from worker_graph.local.up import running

#: Seconds within which a program must be up on a busy laptop.
_START_S = 60.0

#: Redraws of the terminal's table per second, and looks at the planner.
_REDRAW_HZ, _LOOK_S = 4, 0.5


def run(demo: DemoSettings, profiles: Path, folder: Path, port: int) -> bool:
    """Run the demo.

    Args:
        demo: what to run.
        profiles: of the simulated engines, and the planner's own.
        folder: for files, logs and the decision journal; emptied first.
        port: of the page; 0 for any.

    Returns:
        Whether the planner kept the SLA.

    Raises:
        InputError: something that was given is wrong.
        DependencyError: a program did not come up, or ended.
    """
    offered = schedule(demo.trace)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    page_port = port or free_ports("127.0.0.1", 1)[0]
    with _interruptible(), contextlib.ExitStack() as children:
        console.stderr.print("starting the gateway and two workers …")
        client = _start_graph(demo, profiles, folder, children)
        planner = _start_planner(demo, profiles, folder, client.url, page_port, children)
        gateway = client.status()["gateway"]["url"]
        page = f"http://127.0.0.1:{page_port}"
        console.stdout.print(f"[bold]watch it:[/] {page}   (gateway: {gateway}, files: {folder})", soft_wrap=True)
        before_s = float(client.status()["gpus"]["held_s"])
        results = asyncio.run(_load(demo, offered, gateway, page, [planner]))
        gpu_hours = (float(client.status()["gpus"]["held_s"]) - before_s) * demo.speed_up / 3600.0
        console.stderr.print("\nending everything …")
    pair = replay_pair(offered, profiles)
    _print_verdict(demo.sla, results, gpu_hours, pair, 2 * offered[-1].at_s / 3600.0)
    journal = folder / "decisions.jsonl"
    console.stdout.print(f"why each decision was made: planner explain {journal}", markup=False, soft_wrap=True)
    return summarize(results, demo.sla.ttft_ms, demo.sla.itl_ms).attainment >= demo.sla.attainment


def schedule(trace: str) -> list[ScheduledRequest]:
    """The requests of a trace, as `--trace` takes it."""
    return [
        ScheduledRequest(float(at), int(isl), int(osl))
        for chunk in open_trace(trace).chunks()
        for at, isl, osl in zip(chunk.arrival_s, chunk.isl, chunk.osl, strict=True)
    ]


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start_graph(demo: DemoSettings, profiles: Path, folder: Path, children: contextlib.ExitStack) -> Client:
    """`planner graph up`, until both workers serve."""
    file, run_dir = folder / "graph.yaml", folder / "graph"
    file.write_text(graph_yaml(), encoding="utf-8")
    words = [
        "graph", "up", str(file), "--engine", "simulated", "--profile", str(profiles), "--port", "0",
        "--speed-up", f"{demo.speed_up:g}", "--startup-s", f"{demo.engine_startup_s:g}",
        "--gpus", str(demo.max_gpus), "--run-dir", str(run_dir),
    ]  # fmt: skip
    # Workers have sessions of their own: what a graph that had to be killed left is ended by its notes.
    children.callback(leftovers.end, run_dir, console.stderr.print)
    graph = Child(words, folder / "graph.log")
    children.callback(graph.stop)
    client = Client(graph.wait_for(lambda: running(run_dir), _START_S, "the graph")["control_url"])

    def serving() -> bool | None:
        pools = client.status()["pools"].values()
        return True if all(pool["ready"] == pool["desired"] for pool in pools) else None

    graph.wait_for(serving, _START_S, "the first two workers")
    return client


def _start_planner(
    demo: DemoSettings, profiles: Path, folder: Path, control_url: str, port: int, children: contextlib.ExitStack
) -> Child:
    """`planner run`, until its API answers."""
    file = folder / "planner.yaml"
    file.write_text(planner_yaml(demo, profiles, control_url, port), encoding="utf-8")
    planner = Child(["run", "--config", str(file)], folder / "planner.log")
    children.callback(planner.stop)

    def answering() -> bool | None:
        try:
            requests.get(f"http://127.0.0.1:{port}/api/state", timeout=2.0, proxies={"http": ""})
        except requests.ConnectionError:
            return None
        return True

    planner.wait_for(answering, _START_S, "the planner")
    return planner


async def _load(
    demo: DemoSettings, offered: Sequence[ScheduledRequest], gateway: str, page: str, children: Sequence[Child]
) -> list[Result]:
    """Send the load; meanwhile show what happens."""
    progress = {"sent": 0, "completed": 0, "attained": 0, "lost": 0}

    def ended(result: Result) -> None:
        progress["completed" if result.outcome is Outcome.COMPLETED else "lost"] += 1
        progress["attained"] += result.attains(demo.sla.ttft_ms, demo.sla.itl_ms)

    def sending() -> Iterator[ScheduledRequest]:
        for request in offered:
            yield request
            progress["sent"] += 1

    load = Load(gateway, MODEL, speed_up=demo.speed_up, seed=demo.seed)
    shown = asyncio.create_task(_show(demo, offered[-1].at_s, progress, page, children))
    sent = asyncio.create_task(load.run_open(sending(), ended))
    try:
        await asyncio.wait({shown, sent}, return_when=asyncio.FIRST_COMPLETED)
        if shown.done():
            shown.result()
        return await sent
    finally:
        for task in (shown, sent):
            task.cancel()
        await asyncio.gather(shown, sent, return_exceptions=True)


async def _show(
    demo: DemoSettings, span_s: float, progress: dict[str, int], page: str, children: Sequence[Child]
) -> None:
    """Redraw the table until cancelled; raises when one of the programs has ended."""
    began, state = time.monotonic(), None

    def table() -> Any:
        elapsed_s = (time.monotonic() - began) * demo.speed_up
        return live_table(
            elapsed_s=elapsed_s, span_s=span_s, speed_up=demo.speed_up, sla=demo.sla, progress=progress, state=state
        )

    timeout = aiohttp.ClientTimeout(total=2.0)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with Live(get_renderable=table, console=console.stderr, refresh_per_second=_REDRAW_HZ):
            while True:
                for child in children:
                    child.check()
                try:
                    async with session.get(f"{page}/api/state") as answer:
                        state = await answer.json()
                except (aiohttp.ClientError, TimeoutError):
                    state = None
                await asyncio.sleep(_LOOK_S)


def _print_verdict(
    sla: Sla, results: Sequence[Result], gpu_hours: float, pair: Sequence[Result], pair_hours: float
) -> None:
    table = Table("", "attain", "TTFT p50", "TTFT p99", "ITL p99", "lost", "GPU-hours", box=None)
    for name, ended, hours in (
        ("planner (live)", results, gpu_hours),
        ("1p1d (replayed)", pair, pair_hours),
    ):
        found = summarize(ended, sla.ttft_ms, sla.itl_ms)
        latency = [found.ttft_ms.get("p50"), found.ttft_ms.get("p99"), found.itl_ms.get("p99")]
        figures = (
            "-" if value is None else f"{value:,.{digits}f}" for value, digits in zip(latency, (0, 0, 1), strict=True)
        )
        table.add_row(name, f"{found.attainment:.1%}", *figures, str(sum(found.lost.values())), f"{hours:.2f}")
    count = len(results)
    limits = f"TTFT {sla.ttft_ms:g} ms and ITL {sla.itl_ms:g} ms"
    heading = f"{count} requests, latencies in ms; wanted: {limits} for {sla.attainment:.0%} of them"
    console.stdout.print(heading, highlight=False)
    console.stdout.print(table)
