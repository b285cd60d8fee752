"""The writes of a layout change, and the Event of each once it has been made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from planner.connectors.base import WorkerLoad
from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.events import Change
from planner.connectors.kubernetes.rollout.clone import REPLACED_BY, RETIRED, clone, template_patch
from planner.connectors.kubernetes.rollout.components import Components, component_of, in_place
from planner.connectors.kubernetes.rollout.hands import Hands
from planner.connectors.kubernetes.rollout.store import History, Store
from planner.connectors.kubernetes.rollout.target import ChangingTarget, resource_of, side_pool
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.targets.shapes import seen_pool
from planner.connectors.kubernetes.view import View
from planner.core.in_place import Relayout
from planner.core.transition import Clear, Create, Heading, Intent, Retire, Save, Scale, Side, Turn, Write
from worker_graph.kubernetes import labels as names

log = logging.getLogger("planner.connectors")


@dataclass(frozen=True, slots=True)
class Around:
    """What a write is made in.

    Attributes:
        intent: of the change.
        now: the turn that asks for the write.
        view: the graph as it was just seen.
        loads: of workers by name.
        holder: of the lease.
    """

    intent: Intent
    now: Turn
    view: View
    loads: Mapping[str, WorkerLoad]
    holder: str


class Writes:
    """Makes them.

    Args:
        cluster: with the graph's namespace.
        target: of the graph.
        store: of the record; the target's own.
        hands: of the connector.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        target: ChangingTarget,
        store: Store,
        hands: Hands,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster, self._target, self._store, self._hands, self._wall = cluster, target, store, hands, wall
        self._in_place = Components(cluster)

    def make(self, write: Write | Relayout, around: Around) -> None:
        """One write.

        Raises:
            ConflictError: an object has changed since it was seen.
            ClusterError: it cannot be written.
        """
        if isinstance(write, Save):
            self._save(write, around)
        elif isinstance(write, Relayout):
            self._relayout(write, around)
        elif isinstance(write, Create):
            self._create(write.side, around)
        elif isinstance(write, Scale):
            self._scale(write, around)
        elif isinstance(write, Retire):
            self._retire(write, around)
        elif isinstance(write, Clear):
            self._clear(around)

    def turned_back(self, intent: Intent, view: View, holder: str) -> None:
        """Tell that a change was turned back.

        Args:
            intent: as it is recorded now.
            view: of the graph.
            holder: of the lease.
        """
        self._tell(of_pool(view, intent), Change.ROLLING_BACK, intent.what, holder)

    def blocked(self, intent: Intent, view: View, why: Exception, holder: str) -> None:
        """Tell that the next write is refused: by the server, or by another controller of the same replicas."""
        about = of_pool(view, intent)
        if about is not None:
            note = f"layout change of {intent.what} cannot go on: {why}"
            self._hands.events.refused(about, Change.BLOCKED, note, holder)

    def goes_on(self, intent: Intent, view: View) -> None:
        """Nothing is refused any more."""
        about = of_pool(view, intent)
        if about is not None:
            self._hands.events.over(about, Change.BLOCKED)

    # -- each of them ------------------------------------------------------------------------------------------------

    def _save(self, write: Save, around: Around) -> None:
        self._target.keep(self._store.write(self._target.recorded, write.intent))
        if write.intent.heading is not around.intent.heading:
            self.turned_back(write.intent, around.view, around.holder)

    def _relayout(self, write: Relayout, around: Around) -> None:
        target = of_pool(around.view, around.intent)
        component = component_of(target) if target is not None else None
        resource, uid = self._in_place.write(around.intent, write.side, component or "")
        if target is not None:
            graph = replace(target, resource=resource, object_name=write.side.object_name, uid=uid)
            note = f"{around.intent.pool}: the template of {component} has {write.side.layout}; workers are replaced"
            self._tell(graph, Change.PATCHED, note, around.holder)

    def _create(self, side: Side, around: Around) -> None:
        intent = around.intent
        resource = resource_of(intent)
        other = intent.old if side == intent.new else intent.new
        thing = self._cluster.read(resource, other.object_name)
        made = clone(thing, resource, side.tp, side.dp, side.object_name)
        if side.object_name not in self._target.sides:
            found, how = self._cluster.create(resource, made), f"made from {other.object_name}"
        else:
            patch = template_patch(made, resource)
            found, how = self._cluster.patch(resource, side.object_name, patch), "taken into use again"
        note = f"{intent.pool}: {side.object_name} is {how}, for workers of {side.layout}"
        self._tell(seen_pool(side_pool(intent, side), resource, found), Change.CREATED, note, around.holder)

    def _scale(self, write: Scale, around: Around) -> None:
        pool = side_pool(around.intent, write.side)
        target = next(one for one in around.view.targets if one.pool == pool)
        workers = around.view.workers[pool]
        if write.replicas < target.desired:
            self._hands.marker.mark(workers, sum(one.live for one in workers) - write.replicas, around.loads)
        self._target.write({pool: write.replicas}, around.view.targets)
        self._hands.fights.wrote(pool, write.replicas)
        why = f"layout change of {around.intent.what}"
        if around.now.missing > 0:
            why += f"; {around.now.missing:.0%} of the capacity is missing meanwhile"
        self._hands.events.scaled(target, target.desired, write.replicas, around.holder, why)

    def _retire(self, write: Retire, around: Around) -> None:
        resource = resource_of(around.intent)
        target = next(one for one in around.view.targets if one.object_name == write.side.object_name)
        found = target.selector.get(names.POOL, around.intent.pool)
        body = {
            "metadata": {
                # Guarded by what was seen: an object that somebody has just given workers to is not out of use.
                "resourceVersion": target.resource_version,
                "labels": {names.POOL: None, RETIRED: found, names.LAYOUT: names.layout(write.side.tp, write.side.dp)},
                "annotations": {REPLACED_BY: write.by.object_name},
            }
        }
        self._cluster.patch(resource, write.side.object_name, body)
        note = (
            f"{around.intent.pool}: {write.side.object_name} is kept without workers; "
            f"{write.by.object_name} stands for it"
        )
        self._tell(target, Change.RETIRED, note, around.holder)

    def _clear(self, around: Around) -> None:
        intent, recorded = around.intent, self._target.recorded
        goal, forward = intent.goal, intent.heading is Heading.FORWARD
        went = intent.what if forward else f"rolled back, {intent.what}"
        moved = {} if in_place(intent) else {intent.pool: goal.object_name}
        now_s = self._wall()
        history = History({**recorded.history.objects, **moved}, now_s, went)
        self._target.keep(self._store.write(recorded, None, history))
        target = of_pool(around.view, intent, goal)
        if moved:
            self._hands.fights.wrote(intent.pool, target.desired if target is not None else 0)
        log.info("layout change ended: %s", went, extra={"stage": "layouts"})
        note = f"{intent.what}, after {max(0.0, now_s - intent.began_s):.0f} s"
        self._tell(target, Change.COMPLETED if forward else Change.ROLLED_BACK, note, around.holder)

    def _tell(self, about: PoolTarget | None, reason: Change, note: str, holder: str) -> None:
        # Somebody has deleted the object: there is nothing to write an Event on.
        if about is not None:
            self._hands.events.changed(about, reason, note, holder)


def of_pool(view: View, intent: Intent, side: Side | None = None) -> PoolTarget | None:
    """What holds the pool that changes, in a look at the graph.

    Args:
        view: the look.
        intent: of the change.
        side: whose object; without it that of the old layout, or of the new one where that is not there any more.

    Returns:
        None where there is no such object.
    """
    wanted = [intent.pool, side_pool(intent, intent.new)] if side is None else [side_pool(intent, side)]
    by_pool = {one.pool: one for one in view.targets}
    return next((by_pool[pool] for pool in wanted if pool in by_pool), None)
