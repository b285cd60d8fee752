"""Graphs that run as processes on this machine, scaled through their supervisor's interface."""

from __future__ import annotations

from collections.abc import Mapping

from planner.connectors.base import (
    Connector,
    ConnectorError,
    LeaseState,
    NotHolderError,
    Supply,
    Worker,
    WorkerLoad,
    WorkerStatus,
)
from planner.core.types import Plan, PoolState
from profiler.errors import PlimsollError
from worker_graph.local.client import Client, RefusedError

_STATUS = {"ready": WorkerStatus.READY, "draining": WorkerStatus.TERMINATING}


class LocalConnector(Connector):
    """A graph started with `planner graph up`.

    Args:
        control_url: of the supervisor.
        timeout_s: of one call.
        max_gpus: the planner's budget, which the supervisor keeps in every step of carrying a plan out; None for all
            that the graph was started with.
    """

    def __init__(self, control_url: str, timeout_s: float = 5.0, max_gpus: int | None = None) -> None:
        self._client = Client(control_url, timeout_s)
        self._max_gpus = max_gpus

    def read(self) -> Supply:
        """Pools by component name, workers, the gateway's metrics address."""
        try:
            status = self._client.status()
            pools = {
                name: PoolState(
                    desired=pool["desired"],
                    ready=pool["ready"],
                    starting=pool["starting"],
                    terminating=pool["draining"],
                )
                for name, pool in status["pools"].items()
            }
            workers = tuple(
                Worker(one["name"], one["pool"], _STATUS.get(one["state"], WorkerStatus.STARTING), one["address"])
                for one in status["workers"]
            )
            startup_s = {name: tuple(float(s) for s in pool["startup_s"]) for name, pool in status["pools"].items()}
            gpus = {name: int(pool["gpus_per_worker"]) for name, pool in status["pools"].items()}
            return Supply(pools, workers, (status["gateway"]["metrics"],), startup_s, gpus)
        except PlimsollError as error:
            raise ConnectorError(str(error)) from None
        except (KeyError, TypeError, ValueError) as error:
            raise ConnectorError(f"{self._client.url}/status is not a graph's: {error!r}") from None

    def apply(
        self,
        plan: Plan,
        holder: str,
        loads: Mapping[str, WorkerLoad] | None = None,  # noqa: ARG002 - the supervisor knows its workers' loads itself
    ) -> Mapping[str, str]:
        """All pools in one call, all or none."""
        try:
            return self._client.scale(plan, holder, self._max_gpus)
        except RefusedError as error:
            raise (NotHolderError if error.code == "not_holder" else ConnectorError)(str(error)) from None
        except PlimsollError as error:
            raise ConnectorError(str(error)) from None

    def lease(self, holder: str, duration_s: float) -> LeaseState:
        """The supervisor keeps the lease in memory: it lives as long as the graph."""
        try:
            answer = self._client.lease(holder, duration_s)
            return LeaseState(str(answer["holder"]), bool(answer["held"]), float(answer["expires_in_s"]))
        except PlimsollError as error:
            raise ConnectorError(str(error)) from None
        except (KeyError, TypeError, ValueError) as error:
            raise ConnectorError(f"{self._client.url}/lease: {error!r}") from None

    def release(self, holder: str) -> None:
        """Give it back."""
        try:
            self._client.release(holder)
        except PlimsollError as error:
            raise ConnectorError(str(error)) from None
