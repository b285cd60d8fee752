"""Graphs on a Kubernetes cluster: their supply by a few lists, their replicas by guarded writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from planner.connectors.base import Connector, LeaseState, Supply, WorkerLoad
from planner.connectors.kubernetes.applying import Applier
from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ClusterError, UnreachableError
from planner.connectors.kubernetes.events import Events
from planner.connectors.kubernetes.lease import Lease
from planner.connectors.kubernetes.rivals import Autoscalers, Fights
from planner.connectors.kubernetes.rollout.hands import Hands
from planner.connectors.kubernetes.rollout.run import LayoutChanges
from planner.connectors.kubernetes.rollout.store import Store
from planner.connectors.kubernetes.rollout.target import ChangingTarget
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.connectors.kubernetes.starts import Starts
from planner.connectors.kubernetes.supply import Missing, supply_of
from planner.connectors.kubernetes.target import PoolTarget, Target
from planner.connectors.kubernetes.targets import gateway_selector, make_target
from planner.connectors.kubernetes.victims import Marker
from planner.connectors.kubernetes.view import Viewer
from planner.core.layout_change import LayoutProposal
from planner.core.types import Plan, Pool


class KubernetesConnector(Connector):
    """A graph whose pools are objects of a cluster.

    A read lists each kind of objects that hold pools once, all pods of the graph once, and the autoscalers of the
    namespace; the number of pools does not matter. `apply` does the same again, without the autoscalers, reads the
    lease, and sends one write for each pool that changes, or one for all where the object allows it.

    Args:
        cluster: the API server and namespace.
        graph: name of the graph.
        pools: that are planned, with the GPUs of their workers.
        settings: the configuration's section.
        max_gpus: the budget, which no step of carrying a plan out exceeds.
        target: of the graph; what the settings describe without it.
        steady: seconds of a clock that is never set.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        graph: str,
        pools: Sequence[Pool],
        settings: KubernetesSettings,
        max_gpus: int,
        *,
        target: Target | None = None,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        store = Store(cluster, graph)
        target = ChangingTarget(
            target if target is not None else make_target(cluster, graph, pools, settings), cluster, store
        )
        self._settings, self._steady = settings, steady
        self._viewer = Viewer(cluster, target, graph, settings, gateway_selector(graph, settings))
        self._lease = Lease(cluster, graph, steady=steady, wall=wall)
        self._starts = Starts()
        self._missing = Missing()
        self._autoscalers = Autoscalers(cluster)
        self._fights = Fights()
        self._rivals: Mapping[str, str] = {}
        marker = Marker(cluster, enabled=settings.deletion_cost)
        events = Events(cluster, enabled=settings.events, steady=steady, wall=wall)
        self._applier = Applier(self._viewer, target, self._lease, marker, events, self._fights, pools, max_gpus)
        hands = Hands(self._viewer, self._lease, marker, self._fights, events, self._applier.gpus_of)
        self._layouts = LayoutChanges(cluster, target, store, hands, max_gpus, wall=wall)

    def read(self) -> Supply:
        """The graph's supply; what is learnt of starts and of other controllers is kept for later calls."""
        self._layouts.refresh()
        view = self._viewer.look()
        self._starts.see([worker for workers in view.workers.values() for worker in workers])
        self._applier.settle(view.targets)
        self._rivals = {**self._fights.saw(view.targets), **self._autoscalers.rivals(view.targets)}
        supply = supply_of(
            view,
            self._settings.worker_metrics_port,
            self._starts.seconds,
            self._missing.see(view, self._steady()),
            self._rivals,
            (*self._unread(view.targets), *self._autoscalers.blind),
        )
        return self._layouts.shown(supply)

    def apply(self, plan: Plan, holder: str, loads: Mapping[str, WorkerLoad] | None = None) -> Mapping[str, str]:
        """As far as the budget is free now; a pool that another controller scales is left alone, unless taken over."""
        rivals = {} if self._settings.takeover == "always" else self._rivals
        apart = self._layouts.apart(plan)
        done: dict[str, str] = {}
        failed: ClusterError | None = None
        if apart or self._layouts.intent() is not None:
            # With no other pool, only to tell of this one's workers that do not start.
            try:
                done = dict(self._applier.apply(apart, holder, loads or {}, rivals))
            except UnreachableError:
                raise
            except ClusterError as error:
                # Another pool that may not be written leaves no change of layout half done.
                failed = error
        try:
            changed = self._layouts.advance(plan, holder, loads)
        except ClusterError as error:
            # What the others were given stands; a change of layout goes on at the next call.
            if not done:
                raise
            return {**done, **dict.fromkeys(plan.keys() - apart.keys(), f"layout change: {error}")}
        if failed is not None:
            raise failed
        return {**done, **changed}

    def change_layout(self, proposal: LayoutProposal, holder: str) -> str:
        """Record the change; every `apply` carries it on."""
        return self._layouts.propose(proposal, holder)

    def roll_back_layout(self, why: str, holder: str) -> str:
        """Turn the change under way back to the old layout.

        Raises:
            NotHolderError: another planner holds the lease.
            ConnectorError: there is none.
        """
        return self._layouts.roll_back(why, holder)

    def lease(self, holder: str, duration_s: float) -> LeaseState:
        """A Lease object of the graph's namespace."""
        return self._lease.take(holder, duration_s)

    def release(self, holder: str) -> None:
        """Empty the Lease's holder."""
        self._lease.release(holder)

    def _unread(self, targets: Sequence[PoolTarget]) -> list[str]:
        return [
            f"pool {target.pool}: the GPUs of {target.resource.kind} {target.object_name} cannot be read and are not "
            "in the budget: set gpus_per_worker"
            for target in targets
            if self._applier.gpus_of(target) is None
        ]
