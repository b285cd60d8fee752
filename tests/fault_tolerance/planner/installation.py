"""A whole installation on free ports: a graph of simulated engines behind smg, Prometheus, and planners.

Everything is a program of its own, started as a user starts it. Engines and planner run `SPEED_UP` times faster than
time; seconds here are wall seconds unless they are said to be the planner's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from planner.demo.settings import DECODE, MODEL, PREFILL, bundled_profiles, graph_yaml
from tests.servers import Server, free_port, get, running, start_prometheus, wait_until
from worker_graph.local.client import Client

SPEED_UP = 5.0

#: Between ticks.
TICK_S = 1.0

#: Samples older than this are unknown.
STALE_S = 6.0

#: A scale-down waits for so long, and a fault lasts for so many ticks, which are longer.
DOWN_WINDOW_S, TICKS = 4.0, 7

#: Times that a tick may come between a person and the graph: it takes a twentieth of the time between two.
MOST_UNDONE = 5

#: What a planner may spend; the graph would let it have more, so that keeping within it is the planner's own doing.
BUDGET, GRAPH_GPUS = 5, 12

#: Until something that must happen counts as not happening: long, for the machine may be slow.
PATIENCE_S = 120.0

Counts = dict[str, int]
Json = Any

PAIR: Counts = {PREFILL: 1, DECODE: 1}


def planner_command(*words: str) -> list[str]:
    """`planner WORDS…` of this checkout."""
    return [sys.executable, "-m", "planner", *words]


@dataclass
class Graph:
    """`planner graph up`, always on the same ports."""

    folder: Path
    control_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    starts: int = 0
    supervisor: Server | None = None

    @property
    def client(self) -> Client:
        """A new client of its supervisor; one for each thread."""
        return Client(f"http://127.0.0.1:{self.control_port}", timeout_s=10.0)

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> Path:
        return self.folder / "run" / "targets.json"

    def start(self, stack: ExitStack) -> None:
        """Start it with a pair of workers and wait until these serve; what an earlier start left is ended by it."""
        file = self.folder / "graph.yaml"
        file.write_text(graph_yaml(), encoding="utf-8")
        command = planner_command(
            "graph", "up", str(file), "--engine", "simulated", "--profile", str(bundled_profiles()),
            "--speed-up", f"{SPEED_UP:g}", "--startup-s", "5", "--gpus", str(GRAPH_GPUS), "--port", str(self.port),
            "--control-port", str(self.control_port), "--run-dir", str(self.folder / "run"),
        )  # fmt: skip
        self.starts += 1
        url = f"http://127.0.0.1:{self.control_port}"
        log = self.folder / f"graph-{self.starts}.log"
        server = stack.enter_context(running(command, url, log, f"{url}/status"))
        # Its workers are in sessions of their own: after SIGTERM it ends them, after SIGKILL it could not.
        stack.callback(server.stop)
        self.supervisor = server
        wait_until(self.settled, "the graph's workers serve", PATIENCE_S)

    def status(self) -> Json:
        return self.client.status()

    def settled(self) -> bool:
        """Whether there is what is asked for, and nothing else."""
        status = self.status()
        pools = status["pools"].values()
        whole = all(pool["ready"] == pool["desired"] and not pool["draining"] for pool in pools)
        return bool(status["gateway"]["ready"]) and whole

    def desired(self) -> Counts:
        return {name: pool["desired"] for name, pool in self.status()["pools"].items()}

    def process_ids(self) -> list[int]:
        """Of gateway and workers."""
        status = self.status()
        return [status["gateway"]["pid"], *(worker["pid"] for worker in status["workers"] if worker["pid"])]


@dataclass
class Prometheus:
    """The server that scrapes the graph; started again, it has the same address and data."""

    folder: Path
    targets: Path
    port: int = field(default_factory=free_port)
    server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, stack: ExitStack) -> None:
        self.server = stack.enter_context(start_prometheus(self.folder, self.targets, port=self.port))


@dataclass
class Planner:
    """`planner run` of one configuration, which may be ended and started again."""

    config: Json
    folder: Path
    starts: int = 0
    server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config['service']['port']}"

    @property
    def journal(self) -> Path:
        return self.folder / str(self.config["service"]["journal"])

    def start(self, stack: ExitStack) -> None:
        """Start it and wait for its first tick."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "planner.yaml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        self.starts += 1
        log = self.folder / f"planner-{self.starts}.log"
        command = planner_command("run", "--config", str(file))
        self.server = stack.enter_context(running(command, self.url, log, f"{self.url}/readyz"))
        stack.callback(self.server.stop)

    @property
    def process(self) -> Server:
        assert self.server is not None, "it was started"
        return self.server

    def alive(self) -> bool:
        return self.process.process.poll() is None

    def state(self) -> Json:
        return json.loads(get(f"{self.url}/api/state", 10.0))

    def decisions(self, since_s: float = 0.0) -> list[Json]:
        """Summaries of the ticks that began after a unix time, oldest first."""
        since = round(since_s * SPEED_UP * 1000.0)
        answer = json.loads(get(f"{self.url}/api/decisions?since={since}&limit=5000", 10.0))
        return list(answer["decisions"])

    def wait_for_ticks(self, count: int, since_s: float) -> list[Json]:
        """The decisions since then, once there are so many."""
        wait_until(lambda: len(self.decisions(since_s)) >= count, f"{count} ticks", PATIENCE_S, every_s=0.3)
        return self.decisions(since_s)

    def records(self) -> list[Json]:
        """The journal's records, from the disk; a line that is being written is left out."""
        text = self.journal.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def planner_of(
    folder: Path, graph: Graph, prometheus_url: str, *, identity: str = "one", service: Mapping[str, Json] | None = None
) -> Planner:
    """A planner of a graph, not started yet.

    Args:
        folder: for its files.
        graph: that it scales.
        prometheus_url: where it reads.
        identity: under which it holds the lease.
        service: more settings of its section `service`.
    """
    config = {
        "graph": "demo",
        "model": MODEL,
        # A hung supervisor is asked twice a tick: to read, and for the lease.
        "connector": {"kind": "local", "local": {"control_url": graph.client.url, "timeout_s": 1.0}},
        "metrics": {
            "source": "prometheus",
            "engine": "vllm",
            "gateway": "smg",
            "prometheus": {"url": prometheus_url, "timeout_s": 1.0},
        },
        "profiles": [str(bundled_profiles())],
        # Loose enough for what a slow machine adds to every latency, times the speed-up.
        "sla": {"ttft_ms": 6000.0, "itl_ms": 100.0, "attainment": 0.9},
        "budget": {"max_gpus": BUDGET},
        "pools": {PREFILL: {"role": "prefill"}, DECODE: {"role": "decode"}},
        "lead_time_s": 20.0,
        "speed_up": SPEED_UP,
        "tuning": {
            "interval_s": TICK_S * SPEED_UP,
            "stale_after_s": STALE_S * SPEED_UP,
            # Whoever takes a gap in the metrics for a lull scales down within the test.
            "behaviour": {"down": {"window_s": DOWN_WINDOW_S * SPEED_UP}},
        },
        "service": {
            "port": free_port(),
            "journal": "journal.jsonl",
            "checkpoint": "checkpoint.json",
            "lease_s": 6.0,
            "identity": identity,
            **(service or {}),
        },
    }
    return Planner(config, folder)


def scaled_by_hand(graph: Graph, planner: Planner, counts: Counts, at_s: float) -> None:
    """Ask for workers as a person would, until the planner has seen them and they serve.

    A planner that read the graph just before and carries its plan out just after undoes it; then it is asked for again.
    One that does so time after time lowers what it should keep.

    Args:
        graph: to scale.
        planner: that looks on.
        counts: by pool.
        at_s: unix time before.
    """
    asked = 0

    def seen() -> bool:
        nonlocal asked
        if graph.desired() != counts:
            asked += 1
            assert asked <= MOST_UNDONE, f"{counts} by hand was undone {MOST_UNDONE} times: {planner.decisions()[-1]}"
            graph.client.scale(counts)
        newest = planner.decisions(at_s)[-1:]
        kept = bool(newest) and newest[0]["current"] == newest[0]["plan"] == counts
        return kept and graph.desired() == counts and graph.settled()

    wait_until(seen, f"{counts} by hand", PATIENCE_S, every_s=0.3)


def left_running(mark: str) -> list[str]:
    """Command lines of the processes that have a word in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                environment, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended, or is another user's
            if mark.encode() in environment:
                found.append(f"{folder.name} {command.replace(bytes(1), b' ').decode()}")
    return found


def alive(process_ids: Sequence[int]) -> list[int]:
    """Those that run; one that has ended and waits to be collected does not."""
    found = []
    for pid in process_ids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found
