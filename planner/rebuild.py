"""The capacity model of a decision record, built again. Apart from `explain`, since it needs the simulator."""

from __future__ import annotations

from pathlib import Path

from planner.core.capacity import CapacityModel
from planner.core.record import DecisionRecord
from planner.core.types import Role
from planner.whatif.capacity_models import capacity_model
from planner.whatif.graph import build_graph
from profiler.errors import InputError
from profiler.tables import fingerprint, load_profile


def capacity_of(record: DecisionRecord) -> CapacityModel:
    """The capacity model that a record was made with, from the profiles that it names.

    Raises:
        InputError: a profile is gone or has changed since.
    """
    profiles = []
    for reference in record.profiles:
        profile = load_profile(Path(reference.path))
        if fingerprint(Path(reference.path)) != reference.fingerprint:
            right = "the profile that the record was made with"
            raise InputError("has changed since the decision", expected=right, source=reference.path)
        profiles.append(profile)
    aggregated = any(pool.role is Role.AGGREGATED for pool in record.settings.pools)
    graph = build_graph(profiles, aggregated=aggregated, max_gpus=record.settings.max_gpus)
    return capacity_model(record.capacity, graph.engines, "least_loaded")
