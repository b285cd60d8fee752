"""Carrying layout changes out: one look, then the writes that `planner.core.transition` asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from planner.connectors.base import ConnectorError, LayoutStatus, Supply, WorkerLoad
from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ClusterError, ConflictError, NotFoundError, UnreachableError
from planner.connectors.kubernetes.events import Change
from planner.connectors.kubernetes.ownership import OwnedByOtherError
from planner.connectors.kubernetes.rollout.components import in_place, seen_in_place, shown_in_place
from planner.connectors.kubernetes.rollout.hands import Hands
from planner.connectors.kubernetes.rollout.proposed import intent_of
from planner.connectors.kubernetes.rollout.sides import as_one_pool, seen_of
from planner.connectors.kubernetes.rollout.store import Store
from planner.connectors.kubernetes.rollout.target import ChangingTarget, side_pool
from planner.connectors.kubernetes.rollout.writes import Around, Writes
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.view import View
from planner.connectors.kubernetes.words import counted
from planner.core.in_place import Relayout, turn_in_place
from planner.core.layout_change import LayoutProposal, layout_word
from planner.core.transition import Clear, Heading, Intent, Save, Seen, Turn, Write, turn, turned_back
from planner.core.types import Plan
from profiler.errors import InputError

log = logging.getLogger("planner.connectors")

#: Writes of one call; a change has fewer that follow each other without waiting for pods.
MOST_WRITES = 8

_STAGE = {"stage": "layouts"}


class LayoutChanges:
    """The layout changes of one graph.

    Args:
        cluster: with the graph's namespace.
        target: of the graph.
        store: of the record; the target's own.
        hands: of the connector.
        max_gpus: budget.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        target: ChangingTarget,
        store: Store,
        hands: Hands,
        max_gpus: int,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster, self._target, self._store, self._hands = cluster, target, store, hands
        self._max_gpus, self._wall = max_gpus, wall
        self._writes = Writes(cluster, target, store, hands, wall=wall)
        self._last: Turn | None = None

    def intent(self) -> Intent | None:
        """Of the change under way, as of the last look."""
        return self._target.recorded.intent

    def refresh(self) -> None:
        """Read what is recorded of changes, once a tick.

        Raises:
            ClusterError: it cannot be read.
        """
        self._target.refresh()

    def shown(self, supply: Supply) -> Supply:
        """The supply as the planner sees it: while a pool changes, its two sides as one."""
        history, intent = self._target.recorded.history, self.intent()
        status = LayoutStatus("", history.ended_s, history.last)
        if intent is None:
            return replace(supply, layout_change=status)
        so_far = f"; {self._last.text}" if self._last is not None else ""
        text = f"layout change of {intent.what}{so_far}"
        return (shown_in_place if in_place(intent) else as_one_pool)(supply, intent, text, status)

    def apart(self, plan: Plan) -> Plan:
        """The plan without the pool that changes: its workers are the change's."""
        intent = self.intent()
        if intent is None:
            return plan
        mine = {intent.pool, side_pool(intent, intent.new)}
        return {pool: count for pool, count in plan.items() if pool not in mine}

    # -- beginning and turning back ----------------------------------------------------------------------------------

    def propose(self, proposal: LayoutProposal, holder: str) -> str:
        """Record a change; `advance` begins it.

        Raises:
            NotHolderError: another planner holds the lease.
            ConnectorError: another change is under way, or this pool's object cannot be copied.
            InputError: its engine's arguments cannot be changed.
        """
        self._target.refresh()
        view = self._hands.viewer.look(gateways=False)
        self._hands.lease.check(holder)
        target = next((one for one in view.targets if one.pool == proposal.pool), None)
        if target is None:
            raise NotFoundError(f"the graph has no pool {proposal.pool}")
        try:
            intent = self._intended(proposal, target)
        except UnreachableError:
            raise  # no refusal, and the Event would not arrive either
        except (ConnectorError, InputError) as error:
            note = f"{proposal.pool}: no change to {layout_word(*proposal.new)}: {error}"
            self._hands.events.refused(target, Change.REFUSED, note, holder)
            raise
        self._target.keep(self._store.write(self._target.recorded, intent))
        log.info("layout change of %s begins", intent.what, extra=_STAGE)
        self._hands.events.over(target, Change.REFUSED)
        self._hands.events.changed(target, Change.STARTED, _plan(intent), holder)
        return f"layout change of {intent.what} begins"

    def _intended(self, proposal: LayoutProposal, target: PoolTarget) -> Intent:
        under_way = self.intent()
        if under_way is not None:
            raise ConnectorError(f"a layout change is under way: {under_way.what}")
        return intent_of(proposal, target, self._hands.gpus_of(target), self._cluster, self._wall())

    def roll_back(self, why: str, holder: str) -> str:
        """Turn the change under way back.

        Raises:
            NotHolderError: another planner holds the lease.
            ConnectorError: there is none, or somebody else has just written.
        """
        self._target.refresh()
        view = self._hands.viewer.look(gateways=False)
        self._hands.lease.check(holder)
        intent = self.intent()
        if intent is None:
            raise ConnectorError("no layout change is under way")
        if intent.heading is Heading.FORWARD:
            intent = turned_back(intent, why)
            self._target.keep(self._store.write(self._target.recorded, intent))
            self._writes.turned_back(intent, view, holder)
        return intent.what

    # -- going on ----------------------------------------------------------------------------------------------------

    def advance(self, plan: Plan, holder: str, loads: Mapping[str, WorkerLoad] | None = None) -> Mapping[str, str]:
        """Carry the change on as far as it goes now; nothing is asked where there is none.

        Args:
            plan: workers by pool, of the old layout for the pool that changes; of it only growth counts.
            holder: of the lease.
            loads: of workers by name.

        Returns:
            How far the change is, by its pool; empty where there is none.

        Raises:
            NotHolderError: another planner holds the lease.
            ClusterError: a write failed; the next call tries again.
        """
        begun = self.intent()
        if begun is None:
            return {}
        pool = begun.pool
        view = self._hands.viewer.look(gateways=False)
        self._hands.lease.check(holder)
        conflict: ConflictError | None = None
        for _ in range(MOST_WRITES):
            intent = self.intent()
            if intent is None:
                break
            now, write = self._next(intent, view, plan.get(pool, 0))
            if self._last is None or self._last.text != now.text:
                log.info("layout change of %s: %s", intent.what, now.text, extra=_STAGE)
            self._last = now
            if write is None:
                break
            self._hands.lease.check_time(holder)
            try:
                self._writes.make(write, Around(intent, now, view, loads or {}, holder))
            except ConflictError as error:
                # A controller, or another planner, was quicker: what is next depends on what there is now.
                conflict = error
                self._target.refresh()
                view = self._hands.viewer.look(gateways=False)
                continue
            except UnreachableError:
                raise  # may go away by itself, and an Event would not arrive either
            except (ClusterError, InputError) as error:
                self._writes.blocked(intent, view, error, holder)
                raise
            conflict = None
            self._writes.goes_on(intent, view)
            if not isinstance(write, Save | Clear):
                # What follows depends on the object as it is now.
                view = self._hands.viewer.look(gateways=False)
        if conflict is not None:
            if isinstance(conflict, OwnedByOtherError):
                self._writes.blocked(begun, view, conflict, holder)
            raise conflict
        text = self._last.text if self._last is not None else ""
        if self.intent() is None:
            self._last = None
        return {pool: f"layout change: {text}"}

    def _next(self, intent: Intent, view: View, wanted: int) -> tuple[Turn, Write | Relayout | None]:
        others, now_s = self._others(view, intent), self._wall()
        if in_place(intent):
            target = next(one for one in view.targets if one.pool == intent.pool)
            seen = seen_in_place(target, view.workers[target.pool], intent)
            return turn_in_place(intent, seen, others_gpus=others, max_gpus=self._max_gpus, now_s=now_s)
        sides = self._seen(view, intent)
        now = turn(intent, sides, others_gpus=others, max_gpus=self._max_gpus, now_s=now_s, wanted=wanted)
        return now, now.write

    def _seen(self, view: View, intent: Intent) -> dict[str, Seen | None]:
        found: dict[str, Seen | None] = dict.fromkeys((intent.old.object_name, intent.new.object_name))
        for target in view.targets:
            if target.object_name in self._target.sides:
                retired = self._target.sides[target.object_name]
                found[target.object_name] = seen_of(target, view.workers[target.pool], retired=retired)
        return found

    def _others(self, view: View, intent: Intent) -> int:
        """GPUs that everything else of the graph holds or may come to hold."""
        total = view.elsewhere
        for target in view.targets:
            if not self._mine(target, intent):
                held = seen_of(target, view.workers[target.pool], retired=False).held
                total += held * (self._hands.gpus_of(target) or 0)
        return total

    def _mine(self, target: PoolTarget, intent: Intent) -> bool:
        if in_place(intent):
            return target.pool == intent.pool
        return target.object_name in {intent.old.object_name, intent.new.object_name}


def _plan(intent: Intent) -> str:
    old, new = intent.old, intent.new
    return (
        f"{intent.what}: {counted(old.workers)} of {old.gpus} GPUs to {new.workers} of {new.gpus}; "
        f"{intent.promised:.0%} of the capacity or more serves meanwhile"
    )
