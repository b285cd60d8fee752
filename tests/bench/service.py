"""Cost of the service: `python -m tests.bench.service`. Ticks of a full state, a day's journal, the HTTP interface."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import yaml
from aiohttp.test_utils import TestClient, TestServer

from planner.service.api import make_app
from planner.service.load import load_config
from planner.service.loop import Loop
from planner.service.model import load_model
from tests.unit.service.conftest import FakeEyes, FakeGraph, Time, settings

#: A day of ticks of 15 s.
DAY = 5760

#: Ticks that fill every part of the state: an hour of bins, a thousand lengths.
FULL = 420


def memory_mib() -> float:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def ticking(folder: Path, graph: FakeGraph, eyes: FakeEyes) -> Loop:
    path = folder / "planner.yaml"
    path.write_text(yaml.safe_dump(settings()))
    config = load_config(path)
    return Loop(config, load_model(config, path), graph, eyes, graph.time.clock())


def fill(journal: Path) -> None:
    """The last record, once for each tick of the day before it."""
    record = json.loads(journal.read_text().splitlines()[-1])
    end = dt.datetime.fromisoformat(record["time"])
    with journal.open("w") as file:
        for back in range(DAY - 1, -1, -1):
            record["time"] = (end - dt.timedelta(seconds=15 * back)).isoformat(timespec="milliseconds")
            record["decision"]["at_s"] = end.timestamp() - 15 * back
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


async def ask(loop: Loop) -> None:
    async with TestClient(TestServer(make_app(loop, lambda record: record.time))) as client:
        number = loop.history.newest.number if loop.history.newest is not None else 0
        for path in (
            "/healthz",
            "/metrics",
            "/api/state",
            f"/api/decisions?limit={DAY}",
            f"/api/decisions?since={number - 1}",
            f"/api/decisions/{number}",
        ):
            spent, size = [], 0
            for _ in range(5):
                began = time.process_time()
                async with client.get(path) as answer:
                    size = len(await answer.read())
                spent.append(time.process_time() - began)
            shown = path.replace(str(number), "<id>").replace(str(number - 1), "<newest>")
            print(f"GET {shown}: {1000 * statistics.median(spent):.1f} ms of CPU, {size / 1024:.0f} KiB")


def main() -> None:
    clock = Time()
    graph, eyes = FakeGraph(clock), FakeEyes()
    with tempfile.TemporaryDirectory() as name:
        loop = ticking(Path(name), graph, eyes)
        wall, cpu = [], []
        for k in range(FULL):
            clock.wall_s += 15.0
            eyes.rate_rps = 60.0 + 30.0 * ((k * 7919) % 13) / 13.0
            began, used = time.perf_counter(), time.process_time()
            loop.tick()
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
        settled = slice(100, None)
        middle = 1000 * statistics.median(wall[settled])
        print(f"a tick: {1000 * statistics.median(cpu[settled]):.1f} ms of CPU, worst {1000 * max(cpu[settled]):.1f}")
        print(f"a tick: {middle:.1f} ms of wall time, the disk's part included")
        journal = loop.journal.path
        size = len(journal.read_text().splitlines()[-1])
        checkpoint = loop.config.service.checkpoint.stat().st_size
        print(f"a record: {size / 1024:.0f} KiB, a day {DAY * size / 2**20:.0f} MiB")
        print(f"a checkpoint: {checkpoint / 1024:.0f} KiB")
        loop.close()
        fill(journal)
        before = memory_mib()
        loop = ticking(Path(name), graph, eyes)
        began = time.perf_counter()
        loop.journal.open()
        loop.history.preload(loop.journal, "chat", clock.wall_s)
        seconds = time.perf_counter() - began
        entries = loop.history.page(None, DAY)
        summaries = sum(len(entry.json) for entry in entries) / 2**20
        print(f"history of {len(entries)} decisions from the journal: {seconds:.1f} s, {memory_mib() - before:.0f} MiB "
              f"more ({summaries:.0f} MiB of JSON); the process {memory_mib():.0f} MiB")  # fmt: skip
        clock.wall_s += 15.0
        loop.tick()
        asyncio.run(ask(loop))
        loop.close()


if __name__ == "__main__":
    main()
