"""A graph of real vLLM workers under the planner and under load, watched from outside."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from profiler.errors import DependencyError
from profiler.load import ScheduledRequest
from tests.integration.vllm_cpu.pacing import Pace
from tests.integration.vllm_cpu.workers import ENVIRONMENT, metric_at
from worker_graph.local.client import Client

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "local-vllm.md"
PREFILL, DECODE = "prefill", "decode"
BY_SOURCE = "vllm:prompt_tokens_by_source_total"
SOURCES = ("external_kv_transfer", "local_compute", "local_cache_hit")


def example(kind: str) -> Any:
    """The file of the how-to that has this at its top; so that what the page tells users to copy is what runs here."""
    found = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)]
    (one,) = (document for document in found if kind in document)
    return one


def graph(model: Path, pace: Pace, cache: Path) -> str:
    """The page's graph with the tests' model, a KV cache of its size, and pacing."""
    document = example("kind")
    settings = {**ENVIRONMENT, **pace.environment, "VLLM_CACHE_ROOT": str(cache), "VLLM_CONFIG_ROOT": str(cache)}
    document["spec"]["envs"] = [{"name": name, "value": value} for name, value in settings.items()]
    for name in (PREFILL, DECODE):
        container = document["spec"]["services"][name]["extraPodSpec"]["mainContainer"]
        container["args"][0] = str(model)
        container["args"] = [one.replace("bytes=1G", "bytes=64M") for one in container["args"]]
    return yaml.safe_dump(document, sort_keys=False)


def planner(control_url: str, profiles: Path, sla: Mapping[str, float], port: int) -> str:
    """The page's planner with the tests' profiles and SLA, in a hurry: a test has minutes, not days."""
    document = example("connector")
    document["connector"]["local"]["control_url"] = control_url
    document["profiles"] = [str(profiles)]
    document["sla"] = dict(sla)
    # A short memory of errors: the rise of the load, which nothing foretold, is else held against the next forecasts
    # for twenty minutes, and the graph kept large for them.
    forecast = {"residuals": 12}
    document["tuning"] = {"interval_s": 5, "behaviour": {"down": {"window_s": 30}}, "forecast": forecast}
    document["service"] = {"port": port, "identity": "planner"}
    return yaml.safe_dump(document, sort_keys=False)


Counts = tuple[int, int]


@dataclass
class Watcher:
    """Looks at a graph from outside, time and again, in a thread.

    Attributes:
        asked: (prefill, decode) workers that were asked for, each change once.
        ready: workers that serve now.
        whole: whether just those serve that are asked for, and no other is left.
        sessions: process ids of all that the graph started.
        addresses: host:port of all workers.
        holders: who held the lease.
        tokens: prompt tokens of each decode worker by where their KV came from, as last seen.
    """

    client: Client
    asked: list[Counts] = field(default_factory=list)
    ready: Counts = (0, 0)
    whole: bool = False
    sessions: set[int] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    tokens: dict[str, dict[str, float]] = field(default_factory=dict)

    def look(self) -> None:
        """Once."""
        status = self.client.status()
        pools = status["pools"]
        counts = {key: (pools[PREFILL][key], pools[DECODE][key]) for key in ("desired", "ready")}
        if self.asked[-1:] != [counts["desired"]]:
            self.asked.append(counts["desired"])
        self.ready = counts["ready"]
        self.whole = counts["desired"] == counts["ready"] and len(status["workers"]) == sum(counts["ready"])
        self.holders.add(status["lease"]["holder"])
        self.sessions |= {one["pid"] for one in [*status["workers"], status["gateway"]] if one["pid"]}
        for worker in status["workers"]:
            if worker["state"] in {"ready", "draining"}:
                self.addresses.add(worker["address"])
                if worker["pool"] == DECODE:
                    # One that is going may be gone; what it said last stands.
                    with contextlib.suppress(urllib.error.URLError, OSError):
                        self.tokens[worker["name"]] = prompt_tokens(f"http://{worker['address']}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look every 0.2 s until left."""
        over = threading.Event()

        def again() -> None:
            while not over.wait(0.2):
                # A busy supervisor is asked again; one that is gone fails the test elsewhere.
                with contextlib.suppress(DependencyError):
                    self.look()

        thread = threading.Thread(target=again, name="watcher")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def prompt_tokens(url: str) -> dict[str, float]:
    """Prompt tokens of a worker by source."""
    return {source: metric_at(url, BY_SOURCE, source=source) for source in SOURCES}


def requests_until(
    over: Callable[[], bool], rate_rps: float, words: int, osl: int, *, at_most_s: float, then_s: float = 0.0
) -> Iterator[ScheduledRequest]:
    """Evenly spaced requests until something has come true and for a while after, or for so long at most."""
    count, ends = 0, at_most_s
    while count / rate_rps < ends:
        at_s = count / rate_rps
        if ends == at_most_s and over():
            ends = min(at_most_s, at_s + then_s)
        yield ScheduledRequest(at_s, words, osl)
        count += 1


def processes_of(sessions: set[int]) -> list[str]:
    """Processes of these sessions that still run, by their command lines; zombies are none."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text("utf-8").rsplit(")", 1)[1].split()[:4]
            if int(session) in sessions and state != "Z":
                found.append(stat.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
