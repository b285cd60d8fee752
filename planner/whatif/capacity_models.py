"""Capacity models by name: the closed form and the simulator, behind one interface."""

from __future__ import annotations

from planner.core.capacity import CapacityModel
from planner.core.closed_form import ClosedForm
from planner.whatif.simulated_capacity import SimulatedCapacity
from planner.whatif.simulator.simulation import Engines, Routing
from profiler.errors import InputError

NAMES = ("closed-form", "simulator")


def capacity_model(name: str, engines: Engines, routing: Routing) -> CapacityModel:
    """The capacity model of a graph.

    Raises:
        InputError: there is none of that name.
    """
    closed = ClosedForm(dict(zip(engines.roles, engines.timing, strict=True)), engines.transfer)
    if name == "closed-form":
        return closed
    if name == "simulator":
        return SimulatedCapacity(engines, closed, routing)
    raise InputError(f"capacity model {name!r} is unknown", expected=" | ".join(NAMES), field="capacity")
