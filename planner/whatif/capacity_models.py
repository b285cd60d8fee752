"""Capacity models by name: the closed form and the simulator, behind one interface."""

from __future__ import annotations

from typing import cast, get_args

from planner.core.capacity import CapacityModel
from planner.core.engines import Engines
from planner.whatif.simulated_capacity import SimulatedCapacity
from planner.whatif.simulator.simulation import Routing
from profiler.errors import InputError

NAMES = ("closed-form", "simulator")


def capacity_model(name: str, engines: Engines, routing: Routing) -> CapacityModel:
    """The capacity model of a graph.

    Args:
        name: one of `NAMES`, or what a capacity model calls itself: `simulator:round_robin` has its own routing.
        engines: of the graph.
        routing: of the gateway, for a name without one.

    Raises:
        InputError: there is none of that name.
    """
    closed = engines.closed_form
    if name == "closed-form":
        return closed
    kind, _, own = name.partition(":")
    if kind == "simulator" and own in {"", *get_args(Routing)}:
        return SimulatedCapacity(engines, closed, cast("Routing", own) if own else routing)
    raise InputError(f"capacity model {name!r} is unknown", expected=" | ".join(NAMES), field="capacity")
