"""Carrying a plan out: look, check the lease, order the writes, mark who goes, write, say what was done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from planner.connectors.base import WorkerLoad
from planner.connectors.kubernetes.errors import ClusterError, ConflictError, UnreachableError
from planner.connectors.kubernetes.events import Events
from planner.connectors.kubernetes.lease import Lease
from planner.connectors.kubernetes.order import Order, PoolWorkers, Write, order
from planner.connectors.kubernetes.ownership import OwnedByOtherError
from planner.connectors.kubernetes.pods import Phase, PodWorker
from planner.connectors.kubernetes.rivals import Fights
from planner.connectors.kubernetes.target import PoolTarget, Target
from planner.connectors.kubernetes.victims import Marker
from planner.connectors.kubernetes.view import View, Viewer
from planner.connectors.kubernetes.words import counted
from planner.core.types import Plan, Pool

log = logging.getLogger("planner.connectors")

#: Times that the whole is tried when objects change under it.
MOST_TRIES = 3

#: Reasons of Events for workers in trouble, by what they are in.
_TROUBLES = {Phase.UNSCHEDULABLE: "Unschedulable", Phase.FAILING: "WorkersFailing"}


@dataclass
class _Job:
    """One call: what is asked for, and what has come of it."""

    plan: Plan
    holder: str
    loads: Mapping[str, WorkerLoad]
    before: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, ClusterError] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=dict)

    def outcome(self) -> dict[str, str]:
        """What was done, by pool.

        Raises:
            ClusterError: something failed and nothing was written.
        """
        if self.failed and not self.written:
            raise next(iter(self.failed.values()))
        return {pool: self._words(pool) for pool in self.plan}

    def _words(self, pool: str) -> str:
        if pool not in self.before:
            return "not applied: the graph has no such pool"
        done = f"{self.before[pool]} -> {self.written[pool]}" if pool in self.written else ""
        left = self.refused.get(pool) or str(self.failed.get(pool, ""))
        if left:
            return f"{done}, then not applied: {left}" if done else f"not applied: {left}"
        return ", ".join(filter(None, [done or "unchanged", self.waits.get(pool, "")]))


class Applier:
    """Carries plans out on one graph.

    Args:
        viewer: looks at the graph.
        target: writes to it.
        lease: says who may.
        marker: marks the pods that are to go.
        events: tells the cluster's users.
        fights: is told what was written.
        pools: that are planned.
        max_gpus: budget.
    """

    def __init__(
        self,
        viewer: Viewer,
        target: Target,
        lease: Lease,
        marker: Marker,
        events: Events,
        fights: Fights,
        pools: Sequence[Pool],
        max_gpus: int,
    ) -> None:
        self._viewer, self._target, self._lease = viewer, target, lease
        self._marker, self._events, self._fights = marker, events, fights
        self._gpus = {pool.name: pool.gpus_per_worker for pool in pools}
        self._max_gpus = max_gpus
        #: Writes that were sent and not answered: replicas before and after, by pool.
        self._unanswered: dict[str, Write] = {}

    def apply(
        self, plan: Plan, holder: str, loads: Mapping[str, WorkerLoad], rivals: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Take the steps towards a plan that are possible now.

        Each try is the whole procedure on a fresh look. What a try has written stays, and the next look shows it.

        Args:
            plan: workers by pool.
            holder: of the lease.
            loads: of workers by name.
            rivals: why pools are to be left alone, by pool.

        Raises:
            NotHolderError: the lease is another's, or about to lapse.
            ClusterError: something failed, and nothing was written.
        """
        job = _Job(plan, holder, loads)
        for _ in range(MOST_TRIES):
            view = self._viewer.look(gateways=False)
            self._lease.check(holder)
            if not self._try(job, view, rivals):
                break
        self._tell(job, view)
        for pool, error in job.failed.items():
            log.warning("pool %s: %s", pool, error, extra={"stage": "apply"})
        return job.outcome()

    def settle(self, targets: Sequence[PoolTarget]) -> None:
        """Learn from a read what became of writes that were not answered, so that nobody else is blamed for them."""
        for target in targets:
            write = self._unanswered.pop(target.pool, None)
            if write is not None and target.desired in {write.before, write.after}:
                self._fights.wrote(target.pool, target.desired)

    def gpus_of(self, target: PoolTarget) -> int | None:
        """GPUs that one worker counts for: by its object, else, also for workers on CPUs, as planned."""
        return target.gpus_per_worker or self._gpus.get(target.pool, target.gpus_per_worker)

    # -- one try ---------------------------------------------------------------------------------------------------

    def _try(self, job: _Job, view: View, rivals: Mapping[str, str]) -> bool:
        """Whether to try again: objects have changed since they were looked at."""
        job.failed.clear()
        for target in view.targets:
            job.before.setdefault(target.pool, target.desired)
        # Read from this look on: a rival may have done by itself what the plan wants.
        job.refused = {one.pool: rivals[one.pool] for one in view.targets if _matters(one, job.plan, rivals)}
        ours = {pool: count for pool, count in job.plan.items() if pool not in job.refused}
        pools = [self._workers(one, view.workers[one.pool]) for one in view.targets]
        steps = order(ours, pools, self._max_gpus, view.elsewhere)
        job.waits = self._waits(pools, steps, view.elsewhere)
        batches = [steps.writes] if self._target.atomic and steps.writes else [(write,) for write in steps.writes]
        again = False
        for done, batch in enumerate(batches):
            try:
                self._lease.check_time(job.holder)
                self._write(job, view, batch)
            except OwnedByOtherError as error:
                job.refused |= {write.pool: str(error) for write in batch}
            except ConflictError as error:
                again = True
                job.failed |= {write.pool: error for write in batch}
            except UnreachableError as error:
                # Whether it was carried out is not known, and the next one would only wait as long.
                self._unanswered |= {write.pool: write for write in batch}
                job.failed |= {write.pool: error for rest in batches[done:] for write in rest}
                return False
            except ClusterError as error:
                # Raised pools need nothing of the lowered ones in this call: one that fails holds up no other.
                job.failed |= {write.pool: error for write in batch}
        return again

    def _write(self, job: _Job, view: View, batch: Sequence[Write]) -> None:
        for write in batch:
            workers = view.workers[write.pool]
            if write.after < write.before:
                self._marker.mark(workers, sum(one.live for one in workers) - write.after, job.loads)
        self._target.write({write.pool: write.after for write in batch}, view.targets)
        by_pool = {target.pool: target for target in view.targets}
        for write in batch:
            job.written[write.pool] = write.after
            self._fights.wrote(write.pool, write.after)
            log.info("pool %s: %d -> %s", write.pool, write.before, counted(write.after), extra={"stage": "apply"})
            self._events.scaled(by_pool[write.pool], write.before, write.after, job.holder)

    def _workers(self, target: PoolTarget, workers: Sequence[PodWorker]) -> PoolWorkers:
        live = sum(one.live for one in workers)
        return PoolWorkers(
            name=target.pool,
            desired=target.desired,
            live=live,
            terminating=len(workers) - live,
            gpus=self.gpus_of(target) or 0,
            unschedulable=sum(one.phase is Phase.UNSCHEDULABLE for one in workers),
        )

    def _waits(self, pools: Sequence[PoolWorkers], steps: Order, elsewhere: int) -> dict[str, str]:
        lowered = any(write.after < write.before for write in steps.writes)
        drain = lowered or elsewhere > 0 or any(pool.terminating or pool.live > pool.desired for pool in pools)
        found = {}
        for pool in pools:
            if pool.name in steps.waits:
                gpus = steps.waits[pool.name] * pool.gpus
                of = "of workers that drain" if drain else f"above the budget of {self._max_gpus}"
                found[pool.name] = f"waits for {gpus} GPU{'' if gpus == 1 else 's'} {of}"
        return found

    # -- what the cluster's users are told -------------------------------------------------------------------------

    def _tell(self, job: _Job, view: View) -> None:
        for target in view.targets:
            why = job.refused.get(target.pool)
            if why:
                self._events.refused(target, "RivalController", f"{target.pool} is left alone: {why}", job.holder)
            else:
                self._events.over(target, "RivalController")
            for phase, reason in _TROUBLES.items():
                troubles = [one.trouble for one in view.workers[target.pool] if one.phase is phase]
                if troubles:
                    note = f"{target.pool}: {counted(len(troubles))} {phase}: {troubles[0]}"
                    self._events.refused(target, reason, note, job.holder)
                else:
                    self._events.over(target, reason)


def _matters(target: PoolTarget, plan: Plan, rivals: Mapping[str, str]) -> bool:
    return target.pool in rivals and plan.get(target.pool, target.desired) != target.desired
