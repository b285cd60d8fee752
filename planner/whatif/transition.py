"""A change of layout in a replay: the very steps that a cluster goes through, with the simulator's workers.

Workers of both layouts serve side by side and the gateway picks among them, so that what users feel of the change is
part of the outcome. The new layout's workers take as long to start as all others of the replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.core.transition import (
    Clear,
    Create,
    Heading,
    Intent,
    Retire,
    Save,
    Scale,
    Seen,
    Side,
    turn,
)
from planner.core.types import PoolState, Role, Sla
from planner.whatif.simulator.simulation import Finished, Simulation, Supply

if TYPE_CHECKING:
    from planner.core.engines import Engines
    from planner.core.types import Pool

#: Writes that follow each other without time passing: fewer than a change has in all.
MOST_WRITES = 16

#: The new layout's place among the simulation's other layouts.
OTHER = 0


@dataclass(frozen=True, eq=False)
class LayoutChange:
    """A change to replay.

    Attributes:
        role: that changes.
        at_s: when.
        old, new: (tensor-, data-parallel size).
        engines: of the graph after it.
        pool: of the role after it.
        least_capacity: share of the needed capacity that serves at every moment.
        patience_s: without progress, after which it is rolled back.
    """

    role: Role
    at_s: float
    old: tuple[int, int]
    new: tuple[int, int]
    engines: Engines
    pool: Pool
    least_capacity: float = 1.0
    patience_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Moment:
    """Both sides of a change at a time.

    Attributes:
        at_s: simulated seconds.
        old, new: workers that are ready, start and drain.
    """

    at_s: float
    old: tuple[int, int, int]
    new: tuple[int, int, int]


@dataclass
class Course:
    """What came of a change.

    Attributes:
        pool: that changes.
        layouts: the old one and the new one, for people.
        gpus: of a worker of either.
        began_s, ended_s: when; None where it did not begin, or did not end within the replay.
        reached: whether it ended in the new layout.
        old_workers, new_workers: that the load needed of either when it began.
        gpu_s: GPU-seconds that the role held over it.
        surge_gpu_s: of these, beyond the workers that the load needed: the old layout's until the new one served.
        peak_gpus: most GPUs that the role held.
        least: smallest serving share of the needed capacity.
        requests, attained: that arrived during it, and of them those within both limits.
        steps: (seconds, what was done) in order.
        moments: of both sides after what was done at each tick, from its begin to its end.
    """

    pool: str = ""
    layouts: tuple[str, str] = ("", "")
    gpus: tuple[int, int] = (0, 0)
    began_s: float | None = None
    ended_s: float | None = None
    reached: bool = False
    old_workers: int = 0
    new_workers: int = 0
    gpu_s: float = 0.0
    surge_gpu_s: float = 0.0
    peak_gpus: int = 0
    least: float = 1.0
    requests: int = 0
    attained: int = 0
    steps: list[tuple[float, str]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For machines; GPU-hours as everywhere."""
        return {
            "began_s": self.began_s,
            "ended_s": self.ended_s,
            "reached": self.reached,
            "old_workers": self.old_workers,
            "new_workers": self.new_workers,
            "gpu_hours": self.gpu_s / 3600.0,
            "surge_gpu_hours": self.surge_gpu_s / 3600.0,
            "peak_gpus": self.peak_gpus,
            "least_capacity": self.least,
            "requests": self.requests,
            "attainment": self.attained / self.requests if self.requests else None,
            "steps": [{"at_s": at, "what": what} for at, what in self.steps],
        }


class Transition:
    """Carries one change out.

    Args:
        change: to replay.
        pool: of the role before it.
        simulation: with the new layout as its first other one.
        max_gpus: budget.
        startup_s: of every worker.
        sla: for the attainment during it.
    """

    def __init__(
        self, change: LayoutChange, pool: Pool, simulation: Simulation, max_gpus: int, startup_s: float, sla: Sla
    ) -> None:
        self.change, self.course = change, Course()
        self._pool, self._simulation = pool, simulation
        self._max_gpus, self._startup_s, self._sla = max_gpus, startup_s, sla
        self._intent: Intent | None = None
        self._desired: dict[str, int] = {}
        self._retired: set[str] = set()
        self._since_s = 0.0

    @property
    def under_way(self) -> bool:
        """Whether it has begun and not ended."""
        return self._intent is not None

    def begin(self, now_s: float, workers: int, needed: int, needed_new: int) -> None:
        """Begin it.

        Args:
            now_s: when.
            workers: of the old layout that are asked for.
            needed: of them that the load needs.
            needed_new: workers that it needs of the new layout.
        """
        old = Side("old", *self.change.old, self._pool.gpus_per_worker, max(1, needed))
        new = Side("new", *self.change.new, self.change.pool.gpus_per_worker, max(1, needed_new))
        self._intent = Intent(
            self._pool.name, old, new, self.change.least_capacity, self.change.patience_s, now_s,
            lacking=new.workers, since_s=now_s,
        )  # fmt: skip
        self._desired = {"old": workers}
        self.course.began_s, self._since_s = now_s, now_s
        self.course.old_workers, self.course.new_workers = old.workers, new.workers
        self.course.pool, self.course.layouts = self._pool.name, (old.layout, new.layout)
        self.course.gpus = (old.gpus, new.gpus)

    def advance(self, now_s: float, wanted: int) -> bool:
        """Go on as far as it goes now; whether it has ended with this.

        Args:
            now_s: simulated seconds.
            wanted: workers of the old layout that the plan wants.
        """
        if self._intent is None:
            return False
        self._measure(now_s)
        ended = self._go_on(now_s, wanted)
        old, new = (self._supply(name) for name in ("old", "new"))
        sides = [(one.ready, one.starting, one.draining) for one in (old, new)]
        self.course.moments.append(Moment(now_s, sides[0], sides[1]))
        return ended

    def _go_on(self, now_s: float, wanted: int) -> bool:
        for _ in range(MOST_WRITES):
            intent = self._intent
            if intent is None:
                return False
            now = turn(
                intent,
                self._seen(),
                others_gpus=self._simulation.gpus() - self._gpus(),
                max_gpus=self._max_gpus,
                now_s=now_s,
                wanted=wanted,
            )
            write = now.write
            if write is None:
                return False
            if not isinstance(write, Save):
                self.course.steps.append((now_s, now.text))
            if isinstance(write, Save):
                self._intent = write.intent
            elif isinstance(write, Create):
                self._desired.setdefault(write.side.object_name, 0)
                self._retired.discard(write.side.object_name)
            elif isinstance(write, Scale):
                self._scale(write, now_s)
            elif isinstance(write, Retire):
                self._retired.add(write.side.object_name)
            elif isinstance(write, Clear):
                self.course.ended_s, self.course.reached = now_s, intent.heading is Heading.FORWARD
                self._intent = None
                return True
        return False

    def state(self, own: PoolState) -> PoolState:
        """The role's supply as the planner sees it meanwhile: both layouts, in workers of the old one."""
        intent = self._intent
        if intent is None:
            return own
        other = self._supply("new")
        each = intent.old.workers / intent.new.workers
        stead = int(self._desired.get("new", 0) * each)
        desired = max(intent.old.workers, min(own.desired + stead, max(own.desired, stead)))
        ready = own.ready + int(other.ready * each)
        return replace(
            own,
            desired=desired,
            ready=ready,
            starting=max(0, desired - ready),
            terminating=own.terminating + int(other.draining * each),
        )

    @property
    def desired(self) -> Mapping[str, int]:
        """Workers asked for by side."""
        return self._desired

    def add(self, batch: Finished) -> None:
        """Take finished requests into the attainment of those that arrived during the change."""
        began = self.course.began_s
        if began is None:
            return
        end = self.course.ended_s if self.course.ended_s is not None else np.inf
        during = (batch.arrival_ms >= began * 1000.0) & (batch.arrival_ms < end * 1000.0)
        within = (batch.ttft_ms <= self._sla.ttft_ms) & (np.isnan(batch.itl_ms) | (batch.itl_ms <= self._sla.itl_ms))
        self.course.requests += int(during.sum())
        self.course.attained += int((during & within).sum())

    def _place(self, name: str) -> int | None:
        return None if name == "old" else OTHER

    def _supply(self, name: str) -> Supply:
        return self._simulation.supply(self.change.role, self._place(name))

    def _seen(self) -> dict[str, Seen | None]:
        found: dict[str, Seen | None] = {"old": None, "new": None}
        for name, desired in self._desired.items():
            s = self._supply(name)
            found[name] = Seen(desired, s.ready + s.starting, s.ready, s.draining, retired=name in self._retired)
        return found

    def _scale(self, write: Scale, now_s: float) -> None:
        name, role = write.side.object_name, self.change.role
        place = self._place(name)
        for _ in range(write.replicas - self._desired[name]):
            self._simulation.add_worker(role, (now_s + self._startup_s) * 1000.0, place)
        for _ in range(self._desired[name] - write.replicas):
            self._simulation.drain_worker(role, place)
        self._desired[name] = write.replicas

    def _gpus(self) -> int:
        held = {name: self._supply(name) for name in ("old", "new")}
        each = {"old": self._pool.gpus_per_worker, "new": self.change.pool.gpus_per_worker}
        return sum((s.ready + s.starting + s.draining) * each[name] for name, s in held.items())

    def _measure(self, now_s: float) -> None:
        intent, course = self._intent, self.course
        if intent is None:
            return
        gpus, span_s = self._gpus(), now_s - self._since_s
        share = self._supply("old").ready / intent.old.workers + self._supply("new").ready / intent.new.workers
        steady = min(intent.old.workers * intent.old.gpus, intent.new.workers * intent.new.gpus)
        course.gpu_s += gpus * span_s
        course.surge_gpu_s += max(0, gpus - steady) * span_s
        course.peak_gpus = max(course.peak_gpus, gpus)
        course.least = min(course.least, share)
        self._since_s = now_s
