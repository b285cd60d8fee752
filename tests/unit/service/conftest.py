"""The service on a fake graph: a connector that carries plans out at once, an observer that says what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.connectors.base import Connector, ConnectorError, LeaseState, NotHolderError, Supply, WorkerLoad
from planner.core.types import Known, LengthSample, Observation, Plan, PoolState, Unknown
from planner.service.checkpoint import Keeper
from planner.service.clock import Clock
from planner.service.load import load_config
from planner.service.loop import Loop
from planner.service.model import Model, load_model

PROFILES = Path(__file__).parents[3] / "profiling_results" / "llama-3.1-8b-instruct-fp8"
NOON = 1_767_268_800.0


@dataclass
class Time:
    """A clock that goes when it is told to."""

    wall_s: float = NOON

    def clock(self, speed_up: float = 1.0) -> Clock:
        return Clock(speed_up, wall=lambda: self.wall_s, steady=lambda: self.wall_s - NOON)


@dataclass
class FakeGraph(Connector):
    """Counts by pool, and one lease. Failures are exceptions to raise, by method."""

    time: Time
    counts: dict[str, int] = field(default_factory=lambda: {"prefill": 1, "decode": 1})
    startup_s: dict[str, tuple[float, ...]] = field(default_factory=dict)
    gpus: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    fails: dict[str, Exception] = field(default_factory=dict)
    holder: str = ""
    until_s: float = 0.0
    applied: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    loads: dict[str, WorkerLoad] = field(default_factory=dict)

    def _maybe(self, method: str) -> None:
        if method in self.fails:
            raise self.fails[method]

    def read(self) -> Supply:
        self._maybe("read")
        pools = {name: PoolState(n, n) for name, n in self.counts.items()}
        return Supply(pools, (), startup_s=self.startup_s, gpus_per_worker=self.gpus, notices=self.notices)

    def apply(self, plan: Plan, holder: str, loads: Mapping[str, WorkerLoad] | None = None) -> Mapping[str, str]:
        self._maybe("apply")
        self.loads = dict(loads or {})
        if holder != self.holder:
            raise NotHolderError(f"{self.holder} holds the lease")
        self.applied.append((holder, dict(plan)))
        done = {name: f"{self.counts[name]} -> {n}" for name, n in plan.items()}
        self.counts.update(plan)
        return done

    def lease(self, holder: str, duration_s: float) -> LeaseState:
        self._maybe("lease")
        if self.holder in {"", holder} or self.until_s <= self.time.wall_s:
            self.holder, self.until_s = holder, self.time.wall_s + duration_s
        return LeaseState(self.holder, self.holder == holder, self.until_s - self.time.wall_s)

    def release(self, holder: str) -> None:
        if self.holder == holder:
            self.holder = ""


@dataclass
class FakeEyes:
    """An observer: arrivals per second as told, lengths of a conversation."""

    rate_rps: float | Unknown = 20.0
    fails: Exception | None = None
    spans_s: list[float] = field(default_factory=list)
    closed: bool = False
    worker_loads: dict[str, WorkerLoad] = field(default_factory=dict)

    def observe(
        self,
        supply: Supply | None,
        interval_s: float,
        now_s: float,  # noqa: ARG002 - part of the interface
        supply_reason: str = "",
    ) -> Observation:
        self.spans_s.append(interval_s)
        if self.fails is not None:
            raise self.fails
        rate = self.rate_rps
        unknown = isinstance(rate, Unknown)
        return Observation(
            interval_s,
            rate if unknown else Known(round(rate * interval_s)),
            Known(1.0),
            Unknown("none") if unknown else Known(LengthSample((900, 1500) * 8, (150, 250) * 8, (0, 0) * 8)),
            Known(supply.pools) if supply is not None else Unknown(supply_reason),
            ttft_ms=Known(120.0),
            itl_ms=Unknown("no metrics"),
            attainment=Unknown("not yet") if unknown else Known(0.97),
        )

    def glance(self, now_s: float) -> Observation:  # noqa: ARG002 - part of the interface
        if self.fails is not None:
            raise self.fails
        rate, none = self.rate_rps, Unknown("not looked at")
        return Observation(5.0, rate if isinstance(rate, Unknown) else Known(round(rate * 5.0)), none, none, none)

    def close(self) -> None:
        self.closed = True


def settings(**changes: Any) -> dict[str, Any]:
    """A configuration that is right; sections are merged one level deep."""
    made: dict[str, Any] = {
        "graph": "chat",
        "model": "llama",
        "connector": {"kind": "dry_run", "dry_run": {"workers": {"prefill": 1, "decode": 1}}},
        "profiles": [str(PROFILES)],
        "sla": {"ttft_ms": 200, "itl_ms": 10},
        "budget": {"max_gpus": 16},
        "pools": {"prefill": {"role": "prefill"}, "decode": {"role": "decode"}},
        "service": {"identity": "one"},
    }
    for name, value in changes.items():
        made[name] = {**made.get(name, {}), **value} if isinstance(value, dict) and name != "pools" else value
    return made


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "planner.yaml"
    path.write_text(yaml.safe_dump(settings()))
    return load_model(load_config(path), path)


@dataclass
class Rig:
    """A loop and what surrounds it."""

    loop: Loop
    graph: FakeGraph
    eyes: FakeEyes
    time: Time

    def ticks(self, n: int = 1, every_s: float = 15.0) -> Rig:
        for _ in range(n):
            self.time.wall_s += every_s
            self.loop.tick()
        return self

    @property
    def decision(self) -> Any:
        assert self.loop.snapshot is not None
        assert self.loop.snapshot.record is not None
        return self.loop.snapshot.record.decision

    @property
    def outcome(self) -> Mapping[str, str]:
        assert self.loop.snapshot is not None
        return self.loop.snapshot.outcome


Rigging = Callable[..., Rig]


@pytest.fixture
def rig(tmp_path: Path, model: Model) -> Rigging:
    """Makes loops; each in a folder of its own unless it is named."""

    def make(
        folder: str = "a",
        graph: FakeGraph | None = None,
        time: Time | None = None,
        eyes: FakeEyes | None = None,
        keeper: Keeper | None = None,
        **changes: Any,
    ) -> Rig:
        here = tmp_path / folder
        here.mkdir(exist_ok=True)
        path = here / "planner.yaml"
        path.write_text(yaml.safe_dump(settings(**changes)))
        config = load_config(path)
        time = time or (graph.time if graph is not None else Time())
        graph, eyes = graph or FakeGraph(time), eyes or FakeEyes()
        return Rig(Loop(config, model, graph, eyes, time.clock(config.speed_up), keeper), graph, eyes, time)

    return make


DOWN = ConnectorError("the supervisor is down")
