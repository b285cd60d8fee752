"""The interface of a connector: it reads a graph's supply and carries a plan out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

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
        address: host:port that serves its API and `/metrics`; equals the label `instance` of its series.
    """

    name: str
    pool: str
    status: WorkerStatus
    address: str


@dataclass(frozen=True, slots=True)
class Supply:
    """What a graph has.

    Attributes:
        pools: counts by pool name; the load fields of these states are Unknown here, observing fills them in.
        workers: every worker, for matching with its metrics.
        gateways: host:port of each gateway's `/metrics`.
        startup_s: measured seconds from asking for a worker to its readiness, newest last; empty before the first.
        gpus_per_worker: GPUs that one worker holds, by pool, as the graph says; without what it does not say.
    """

    pools: Mapping[str, PoolState]
    workers: tuple[Worker, ...]
    gateways: tuple[str, ...] = ()
    startup_s: tuple[float, ...] = ()
    gpus_per_worker: Mapping[str, int] = field(default_factory=dict)

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
    def apply(self, plan: Plan, holder: str) -> Mapping[str, str]:
        """Ask for these workers; idempotent, and never above the budget in between.

        Args:
            plan: workers by pool; a pool that it does not name stays as it is.
            holder: identity of the planner that asks; it must hold the lease.

        Returns:
            What was done, by pool, in a few words.

        Raises:
            NotHolderError: another planner holds the lease.
            ConnectorError: the target could not be changed, or not whole; the next tick tries again.
        """

    @abstractmethod
    def lease(self, holder: str, duration_s: float) -> LeaseState:
        """Take or renew the lease for so many seconds, if no other planner holds it."""

    @abstractmethod
    def release(self, holder: str) -> None:
        """Give the lease back, if this planner holds it."""
