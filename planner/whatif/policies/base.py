"""The interface of a policy: it sees observations at its own pace and says how many workers it wants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.core.engines import Engines
from planner.core.settings import PlannerSettings
from planner.core.types import Observation, Plan, Pool, Role, Sla
from planner.whatif.simulator.simulation import Routing, WorkerLoad
from planner.whatif.traces import Trace
from planner.whatif.transition import LayoutChange
from profiler.tables import Profile


@dataclass(frozen=True, eq=False)
class Setting:
    """What a policy may know before the replay starts.

    Attributes:
        engines: timing of each role.
        profiles: the profiles behind it, by role.
        pools: bounds and GPUs by role, in the engines' order.
        settings: of our planner; its SLA, budget and lead time hold for every policy.
        start: workers at time 0, by pool name.
        startup_s: from asking for a worker to its readiness.
        routing: of the gateway.
        trace: the trace itself. Only the clairvoyant policy may read it.
        sources: every profile that the engines were built from.
        change: of one role's layout during the replay; None for none.
    """

    engines: Engines
    profiles: Mapping[Role, Profile]
    pools: Mapping[Role, Pool]
    settings: PlannerSettings
    start: Plan
    startup_s: float
    routing: Routing
    trace: Trace
    sources: tuple[Profile, ...] = ()
    change: LayoutChange | None = None

    @property
    def sla(self) -> Sla:
        """The SLA."""
        return self.settings.sla


class Policy(ABC):
    """A policy in one replay; made anew for each, so it may keep state."""

    #: Seconds between its ticks.
    interval_s: float = 10.0

    #: Seconds from asking for a worker to its readiness in this policy's replay; None, as for all that could be run, is
    #: the setting's own.
    startup_s: float | None = None

    #: Whether it reads observations; one that knows what it will do is spared their making, and sees nothing.
    observes: bool = True

    #: Looks at the arrivals between two ticks, evenly spaced.
    glances: int = 0

    #: Whether `watch` wants to be called.
    watches: bool = False

    def start(self) -> Plan | None:
        """Workers that are ready at time 0, by pool name; None for the replay's own start."""
        return None

    def hurries(self, observation: Observation) -> bool:  # noqa: ARG002 - most policies keep to their interval
        """Whether the next tick should come at once, by the arrivals since the last one; asked at each of `glances`."""
        return False

    def needs_in(self, change: LayoutChange) -> tuple[int, int] | None:  # noqa: ARG002 - most policies know no layouts
        """Workers of the present and of the new layout that the load needs now; None before that is known."""
        return None

    def switch(self, change: LayoutChange) -> None:  # noqa: B027 - a policy that begins none sees none
        """Plan in the new layout from now on."""

    def watch(self, workers: Mapping[str, Sequence[WorkerLoad]]) -> None:  # noqa: B027 - most read sums of a pool
        """See every ready worker by itself, by pool name; called before `decide` of a policy that `watches`."""

    @abstractmethod
    def decide(self, observation: Observation, now_s: float) -> Plan:
        """Workers wanted from now on, by pool name; the observation is all Unknown for one that does not observe."""
