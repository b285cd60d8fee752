"""The interface of a connector: it reads a graph's supply and carries a plan out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from planner.core.in_place import Rolling
from planner.core.layout_change import LayoutProposal
from planner.core.types import Plan, Pool, PoolState
from profiler.errors import DependencyError


class ConnectorError(DependencyError):
    """The target could not be read or changed; the message says what failed, for people."""


class NotHolderError(ConnectorError):
    """Another planner holds the graph's lease; nothing was changed."""


class WorkerStatus(StrEnum):
    """Where one worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    TERMINATING = "terminating"


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker as the connector sees it.

    Attributes:
        name: unique within the graph.
        pool: name of its pool.
        status: where it is in its life.
        address: host:port that serves its API and `/metrics`; equals the label `instance` of its series. Empty before
            the worker has one.
    """

    name: str
    pool: str
    status: WorkerStatus
    address: str


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What one worker does now, for choosing which one a scale-down ends.

    Attributes:
        requests: running and waiting.
        kv_usage: share of its KV cache in use, 0 to 1: what would have to be computed again elsewhere.
    """

    requests: float
    kv_usage: float = 0.0


@dataclass(frozen=True, slots=True)
class LayoutStatus:
    """Changes of a graph's layouts.

    Attributes:
        under_way: what changes now and how far it is, for people; empty where nothing does.
        ended_s: unix time at which the last one ended; None where there was none.
        last: how that one ended, for people.
    """

    under_way: str = ""
    ended_s: float | None = None
    last: str = ""


@dataclass(frozen=True, slots=True)
class Supply:
    """What a graph has.

    Attributes:
        pools: counts by pool name; the load fields of these states are Unknown here, observing fills them in.
        workers: every worker, for matching with its metrics.
        gateways: host:port of each gateway's `/metrics`.
        startup_s: measured seconds from asking for a worker to its readiness, by pool, newest last.
        gpus_per_worker: GPUs that one worker holds, by pool, as the graph says; without what it does not say.
        layouts: tensor- and data-parallel size of a pool's workers, by pool; without what the graph does not say.
        rolling: how an operator replaces workers, by pool, of pools whose layout is changed where they stand; another
            object stands beside the old one while that of the others changes.
        notices: what people should know of the graph and what to do about it: another controller of the same
            replicas, a worker that cannot be scheduled, a layout change that does not go on.
        layout_change: of the graph's pools. While one changes, its workers of both layouts are counted as workers of
            the old one, by what they stand for.
    """

    pools: Mapping[str, PoolState]
    workers: tuple[Worker, ...]
    gateways: tuple[str, ...] = ()
    startup_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    gpus_per_worker: Mapping[str, int] = field(default_factory=dict)
    layouts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    rolling: Mapping[str, Rolling] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    layout_change: LayoutStatus = LayoutStatus()

    def contradiction(self, pools: Mapping[str, Pool]) -> str | None:
        """How the graph's pools differ from those that are planned, in words; None if they do not.

        A worker that holds more GPUs than its profile was measured on would break the budget unseen. A worker that
        asks for none (on CPUs) has no GPUs to count, and the budget counts the profile's.
        """
        if not pools.keys() <= self.pools.keys():
            missing = ", ".join(sorted(pools.keys() - self.pools.keys()))
            return f"the graph has no pool {missing}; it has {', '.join(sorted(self.pools))}"
        for name, pool in pools.items():
            gpus = self.gpus_per_worker.get(name, 0)
            if gpus not in {0, pool.gpus_per_worker}:
                return f"a worker of pool {name} holds {gpus} GPUs in the graph, {pool.gpus_per_worker} in its profile"
        return None


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who may act on the graph.

    Attributes:
        holder: identity of the planner that holds the lease; empty when none does.
        held: whether that is the one that asked.
        expires_in_s: seconds until it lapses unless it is renewed.
    """

    holder: str
    held: bool
    expires_in_s: float


class Connector(ABC):
    """Carries plans out on one kind of target. Every method may block, and raises ConnectorError when it cannot do."""

    @abstractmethod
    def read(self) -> Supply:
        """The graph's supply now."""

    @abstractmethod
    def apply(self, plan: Plan, holder: str, loads: Mapping[str, WorkerLoad] | None = None) -> Mapping[str, str]:
        """Ask for these workers; idempotent, and never above the budget in between.

        What the budget does not hold yet, because workers that drain still have their GPUs, is left to a later call.

        Args:
            plan: workers by pool; a pool that it does not name stays as it is.
            holder: identity of the planner that asks; it must hold the lease.
            loads: of workers by name, for choosing those that a scale-down ends; one that is not named counts as busy.

        Returns:
            What was done, by pool, in a few words.

        Raises:
            NotHolderError: another planner holds the lease.
            ConnectorError: the target could not be changed, or not whole; the next tick tries again.
        """

    def change_layout(self, proposal: LayoutProposal, holder: str) -> str:  # noqa: ARG002 - not every target can
        """Begin to change the layout of one pool; every `apply` carries it on, until `read` shows that it has ended.

        Args:
            proposal: what to change to.
            holder: identity of the planner that asks; it must hold the lease.

        Returns:
            What is begun, for people.

        Raises:
            NotHolderError: another planner holds the lease.
            ConnectorError: this target's layouts cannot be changed, or not now.
        """
        raise ConnectorError("layouts of this graph cannot be changed by the planner")

    @abstractmethod
    def lease(self, holder: str, duration_s: float) -> LeaseState:
        """Take or renew the lease for so many seconds, if no other planner holds it."""

    @abstractmethod
    def release(self, holder: str) -> None:
        """Give the lease back, if this planner holds it."""
