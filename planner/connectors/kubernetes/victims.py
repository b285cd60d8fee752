"""Which pods a scale-down should end, told to their ReplicaSet's controller by `pod-deletion-cost`.

The controller takes pods that are not scheduled or not ready first, then those of the lowest cost, then the youngest.
It has honoured the cost since Kubernetes 1.22. LeaderWorkerSets, Grove and StatefulSets end the highest index: there is
nothing to choose.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from planner.connectors.base import WorkerLoad
from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ForbiddenError, InvalidError, NotFoundError
from planner.connectors.kubernetes.pods import DELETION_COST, Phase, PodWorker
from planner.connectors.kubernetes.resources import PODS

log = logging.getLogger("planner.connectors")

#: First version that honours the cost without a feature gate.
SINCE = (1, 22)

_RANK = {Phase.UNSCHEDULABLE: 0, Phase.PENDING: 1, Phase.FAILING: 2, Phase.STARTING: 3, Phase.READY: 4}

#: Load of a worker that nobody measured: it may be the busiest.
_UNKNOWN = WorkerLoad(requests=math.inf, kv_usage=math.inf)


def choose(workers: Sequence[PodWorker], count: int, loads: Mapping[str, WorkerLoad]) -> list[PodWorker]:
    """So many of the live workers that should go, the first to go first.

    Those that are not ready come first, then the one with the fewest requests, then the one with the least in its KV
    cache, then the youngest. A worker without a load counts as busy.
    """

    def place(worker: PodWorker) -> tuple[int, float, float, float, str]:
        ready = worker.phase is Phase.READY
        load = loads.get(worker.name, _UNKNOWN) if ready else WorkerLoad(0.0)
        return (_RANK[worker.phase], load.requests, load.kv_usage, -worker.leader.created_s, worker.name)

    return sorted((worker for worker in workers if worker.live), key=place)[:count]


def costs(workers: Sequence[PodWorker], count: int, loads: Mapping[str, WorkerLoad]) -> dict[str, str | None]:
    """Costs to annotate, by pod, so that these go; None takes an annotation away.

    Those that go get negative costs, lowest first, below the 0 of those without one. One that stays and has a cost as
    low (of a scale-down that did not come about, or somebody's own) would go in their place; it loses it. Pods that
    have the wanted value already are left out.
    """
    chosen = choose(workers, count, loads)
    wanted = {worker.name: str(place - len(chosen)) for place, worker in enumerate(chosen)}
    changes: dict[str, str | None] = {}
    for worker in workers:
        pod = worker.leader
        if not worker.live or pod.owner_kind != "ReplicaSet":
            continue
        if worker.name in wanted:
            if pod.deletion_cost != wanted[worker.name]:
                changes[pod.name] = wanted[worker.name]
        elif _below_zero(pod.deletion_cost):
            changes[pod.name] = None
    return changes


def _below_zero(cost: str | None) -> bool:
    try:
        return cost is not None and int(cost) < 0
    except ValueError:
        return False  # the controller takes what is no number as 0


class Marker:
    """Writes deletion costs.

    Args:
        cluster: with the pods' namespace.
        enabled: whether to write any.
    """

    def __init__(self, cluster: Cluster, *, enabled: bool = True) -> None:
        self._cluster, self._enabled = cluster, enabled
        self._honoured: bool | None = None
        self._told = False

    def mark(self, workers: Sequence[PodWorker], count: int, loads: Mapping[str, WorkerLoad]) -> None:
        """See to it that, of a pool's workers, the right ones go when it is lowered by so many.

        Without the right to do so, Kubernetes takes the youngest: that is logged once, and the scale-down goes on.

        Raises:
            ClusterError: the server does not answer.
        """
        if not self._enabled or count <= 0 or not any(one.leader.owner_kind == "ReplicaSet" for one in workers):
            return
        if not self._is_honoured():
            return
        for name, cost in costs(workers, count, loads).items():
            try:
                self._cluster.patch(PODS, name, {"metadata": {"annotations": {DELETION_COST: cost}}})
            except NotFoundError:
                continue  # it has ended by itself
            except (ForbiddenError, InvalidError) as error:
                self._tell(f"a scale-down ends the youngest workers, not the least loaded: {error}")
                return

    def _is_honoured(self) -> bool:
        if self._honoured is None:
            version = self._cluster.version()
            self._honoured = version >= SINCE
            if not self._honoured:
                number = ".".join(map(str, version))
                self._tell(
                    f"Kubernetes {number} does not honour pod deletion costs (1.22 does): "
                    "a scale-down ends the youngest workers, not the least loaded"
                )
        return self._honoured

    def _tell(self, text: str) -> None:
        if not self._told:
            log.warning("%s", text, extra={"stage": "apply"})
            self._told = True
