"""Workers of a replay as its plans ask for, drain and count them."""

from __future__ import annotations

from planner.core.types import Role
from planner.whatif.simulator.simulation import Simulation, Supply, WorkerLoad


class Fleet:
    """Every worker starts in its time and runs as its profile says. A disturbance of workers overrides what it changes.

    Args:
        simulation: that the workers are in.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def pass_time(self, now_s: float) -> None:
        """Called at every tick before anything is counted or planned."""

    def add(self, role: Role, ready_ms: float, place: int | None = None) -> None:
        """Ask for a worker; arguments as of `Simulation.add_worker`."""
        self._simulation.add_worker(role, ready_ms, place)

    def drain(self, role: Role, place: int | None = None) -> None:
        """Take a worker out of service, as `Simulation.drain_worker`."""
        self._simulation.drain_worker(role, place)

    def supply(self, role: Role, place: int | None = None) -> Supply:
        """Workers of a role and their load, as `Simulation.supply`."""
        return self._simulation.supply(role, place)

    def loads(self, role: Role, place: int | None = None) -> list[WorkerLoad]:
        """Every ready worker's load, as `Simulation.loads`."""
        return self._simulation.loads(role, place)
