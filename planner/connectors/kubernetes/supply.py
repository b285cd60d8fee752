"""What a look at the cluster means for the planner: counts, workers, notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from planner.connectors.base import Supply, Worker, WorkerStatus
from planner.connectors.kubernetes.pods import Phase, PodWorker
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.view import WORKER_PORTS, View
from planner.connectors.kubernetes.words import counted
from planner.core.types import PoolState

#: Seconds for which a worker that was asked for may have no pod before that is trouble: controllers take a moment.
MISSING_FOR_S = 30.0

_STATUS = {Phase.READY: WorkerStatus.READY, Phase.TERMINATING: WorkerStatus.TERMINATING}


class Missing:
    """Since when pools lack pods that their objects ask for: a quota, or an admission webhook that refuses them."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def see(self, view: View, now_s: float) -> dict[str, str]:
        """What to say of it, by pool; without those that lack none, or only for a moment."""
        found = {}
        for target in view.targets:
            lacking = target.desired - sum(one.live for one in view.workers[target.pool])
            if lacking <= 0:
                self._since_s.pop(target.pool, None)
                continue
            if now_s - self._since_s.setdefault(target.pool, now_s) >= MISSING_FOR_S:
                what = f"{target.resource.kind} {target.object_name}"
                found[target.pool] = (
                    f"{counted(lacking)} asked for and without a pod for more than {MISSING_FOR_S:.0f} s: see the "
                    f"Events of {what}, for a quota or an admission webhook"
                )
        return found


def pool_state(target: PoolTarget, workers: Sequence[PodWorker], missing: str = "") -> PoolState:
    """Counts of one pool. Starting are all that were asked for, or exist, and neither serve nor drain."""
    phases = Counter(worker.phase for worker in workers)
    live = sum(worker.live for worker in workers)
    lacking = max(target.desired - live, 0)
    return PoolState(
        desired=target.desired,
        ready=phases[Phase.READY],
        starting=live - phases[Phase.READY] + lacking,
        terminating=phases[Phase.TERMINATING],
        unschedulable=phases[Phase.UNSCHEDULABLE],
        failing=phases[Phase.FAILING],
        trouble="; ".join(filter(None, [*_troubles(workers), missing])),
    )


def _troubles(workers: Sequence[PodWorker]) -> list[str]:
    found = []
    for phase, words in ((Phase.UNSCHEDULABLE, "without a node"), (Phase.FAILING, "failing")):
        said = Counter(worker.trouble for worker in workers if worker.phase is phase)
        if said:
            text = max(said, key=lambda one: (said[one], one))
            found.append(f"{counted(said.total())} {words}: {text}")
    return found


def supply_of(
    view: View,
    port: int | str,
    startup_s: Mapping[str, tuple[float, ...]],
    missing: Mapping[str, str],
    rivals: Mapping[str, str],
    notices: Sequence[str] = (),
) -> Supply:
    """The graph's supply.

    Args:
        view: the look.
        port: of a worker's metrics.
        startup_s: measured starts by pool.
        missing: what to say of pods that are not made, by pool.
        rivals: what to say of other controllers, by pool.
        notices: more of them.
    """
    pools = {one.pool: pool_state(one, view.workers[one.pool], missing.get(one.pool, "")) for one in view.targets}
    said = [f"pool {pool}: {text}" for pool, text in rivals.items()]
    said += [f"pool {pool}: {state.trouble}" for pool, state in pools.items() if state.trouble]
    workers = []
    for target in view.targets:
        portless = ""
        for one in view.workers[target.pool]:
            address = one.leader.address(port, WORKER_PORTS)
            workers.append(Worker(one.name, one.pool, _STATUS.get(one.phase, WorkerStatus.STARTING), address))
            portless = portless or (one.leader.name if one.leader.ip and not address else "")
        if portless:
            said.append(f"pool {target.pool}: pod {portless} has no port {port}: set worker_metrics_port to one it has")
    return Supply(
        pools=pools,
        workers=tuple(workers),
        gateways=view.gateways,
        startup_s=startup_s,
        gpus_per_worker={one.pool: one.gpus_per_worker for one in view.targets if one.gpus_per_worker is not None},
        layouts={one.pool: one.layout for one in view.targets if one.layout is not None},
        rolling={one.pool: one.rolling for one in view.targets if one.rolling is not None},
        notices=(*said, *view.blind, *notices),
    )
