"""Workers are not as they should be: some run slowly, or some never start."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.core.types import Role
from planner.whatif.fleet import Fleet
from planner.whatif.policies.base import Setting
from planner.whatif.robustness.disturbance import Disturbance, between
from planner.whatif.robustness.profile import scaled_timing
from planner.whatif.simulator import state as st
from planner.whatif.simulator.simulation import Simulation, Supply, WorkerLoad
from profiler.errors import InputError
from profiler.timing import EngineTiming


@dataclass(frozen=True)
class SlowWorkers(Disturbance):
    """Of the workers of each role, the share nearest to `share` takes `factor` of the time for everything."""

    share: float = 1 / 3
    factor: float = 1.5

    def __post_init__(self) -> None:
        between("share", self.share, 0.0, 1.0)
        between("factor", self.factor, 0.1, 10.0)

    def others(self, setting: Setting) -> Sequence[tuple[Role, EngineTiming]]:
        """The slow ones of every role."""
        engines = setting.engines
        return [(role, scaled_timing(engines.of(role), self.factor)) for role in engines.roles]

    def fleet(self, simulation: Simulation, setting: Setting) -> Fleet:
        """New workers are slow as long as too few are."""
        return _PartlySlow(simulation, {role: place for place, role in enumerate(setting.engines.roles)}, self.share)


class _PartlySlow(Fleet):
    """Two kinds of workers that nobody tells apart: they are counted together, and either may be drained."""

    def __init__(self, simulation: Simulation, places: Mapping[Role, int], share: float) -> None:
        super().__init__(simulation)
        self._places, self._share = places, share

    def add(self, role: Role, ready_ms: float, place: int | None = None) -> None:
        usual, slow = self._both(role)
        alive = usual.ready + usual.starting + slow.ready + slow.starting
        wanted = int(np.floor((alive + 1) * self._share + 0.5))
        super().add(role, ready_ms, self._places[role] if slow.ready + slow.starting < wanted else place)

    def drain(self, role: Role, place: int | None = None) -> None:
        """A starting one first, then the least loaded, as where all are alike."""
        usual, slow = self._both(role)
        if usual.starting or slow.starting:
            slow_one = slow.starting > usual.starting
        elif usual.ready and slow.ready:
            slow_one = self._least(role, self._places[role]) < self._least(role, None)
        else:
            slow_one = slow.ready > 0
        super().drain(role, self._places[role] if slow_one else place)

    def supply(self, role: Role, place: int | None = None) -> Supply:  # noqa: ARG002 - no layout changes beside it
        usual, slow = self._both(role)
        ready = usual.ready + slow.ready
        used = usual.kv_usage * max(1, usual.ready) + slow.kv_usage * max(1, slow.ready)
        return Supply(
            ready=ready,
            starting=usual.starting + slow.starting,
            draining=usual.draining + slow.draining,
            # What the gateway holds for the role is in both counts.
            waiting=usual.waiting + self._queued(self._places[role]),
            running=usual.running + slow.running,
            kv_usage=used / max(1, ready),
        )

    def loads(self, role: Role, place: int | None = None) -> list[WorkerLoad]:
        both = [*super().loads(role, place), *super().loads(role, self._places[role])]
        return sorted(both, key=lambda load: load.number)

    def _both(self, role: Role) -> tuple[Supply, Supply]:
        return super().supply(role), super().supply(role, self._places[role])

    def _least(self, role: Role, place: int | None) -> int:
        loads = super().loads(role, place)
        return min(load.waiting + load.running for load in loads)

    def _queued(self, place: int) -> int:
        """Requests that wait in the engines of the slow workers."""
        workers = self._simulation.raw.workers
        serving = (workers["state"] == st.READY) | (workers["state"] == st.DRAINING)
        return int(workers["wait_count"][serving & (workers["engine"] == 2 + place)].sum())


@dataclass(frozen=True)
class FailingStarts(Disturbance):
    """Every second start of a role fails: in turn, one takes twice as long, and one never comes.

    The latter holds its GPUs until it is given up, `give_up_s` after it was asked for; then it is asked for anew. Until
    then it looks like one that starts. 600 s is what Kubernetes waits by default before it says that a Deployment does
    not progress.
    """

    give_up_s: float = 600.0

    def __post_init__(self) -> None:
        between("give_up_s", self.give_up_s, 0.0, 1e9)

    def check(self, setting: Setting, span_s: float) -> None:  # noqa: ARG002
        """There must be a start-up that can fail."""
        if setting.startup_s <= 0:
            raise InputError("failing-starts needs a start-up time", expected="--startup-s above 0", field="--disturb")

    def fleet(self, simulation: Simulation, setting: Setting) -> Fleet:  # noqa: ARG002
        """Counts its starts."""
        return _Failing(simulation, self.give_up_s)


#: Beyond the end of every trace, in ms, and still with room for a whole number of milliseconds below it.
_NEVER_MS = 1e14


@dataclass
class _Starts:
    """Of one role: how many there were, and when those that never come are given up, oldest first."""

    made: int = 0
    hopeless_until_s: deque[float] = field(default_factory=deque)


class _Failing(Fleet):
    """Its hopeless workers have a start-up's end that no replay reaches, the oldest the latest.

    Since the simulator drains the starting worker whose end is the latest, a scale-down takes the oldest hopeless one,
    and so does giving up.
    """

    def __init__(self, simulation: Simulation, give_up_s: float) -> None:
        super().__init__(simulation)
        self._give_up_s = give_up_s
        self._now_s = 0.0
        self._of: dict[Role, _Starts] = {}
        self._hopeless = 0

    def pass_time(self, now_s: float) -> None:
        self._now_s = now_s
        for role, starts in self._of.items():
            while starts.hopeless_until_s and starts.hopeless_until_s[0] <= now_s:
                self.drain(role)

    def add(self, role: Role, ready_ms: float, place: int | None = None) -> None:
        starts, wait_ms = self._of.setdefault(role, _Starts()), ready_ms - 1000.0 * self._now_s
        if wait_ms > 0:
            starts.made += 1
        if wait_ms <= 0 or starts.made % 2:
            pass  # What is there from the beginning, and every first of two.
        elif starts.made % 4:
            ready_ms += wait_ms
        else:
            self._hopeless += 1
            ready_ms = _NEVER_MS - self._hopeless
            starts.hopeless_until_s.append(self._now_s + self._give_up_s)
        super().add(role, ready_ms, place)

    def drain(self, role: Role, place: int | None = None) -> None:
        hopeless = self._of.setdefault(role, _Starts()).hopeless_until_s
        if hopeless:
            hopeless.popleft()
        super().drain(role, place)
