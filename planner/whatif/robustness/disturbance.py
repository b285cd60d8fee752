"""The interface of a disturbance: what of a replay it changes. This one changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.core.types import Observation, Role
from planner.whatif.fleet import Fleet
from planner.whatif.policies.base import Setting
from planner.whatif.simulator.simulation import Simulation, WorkerLoad
from profiler.errors import InputError
from profiler.timing import EngineTiming


@dataclass(frozen=True)
class Disturbance:
    """Nothing is disturbed. Each kind overrides what it changes; its fields are its options on the command line."""

    def world(self, setting: Setting) -> Setting:
        """What really comes: the setting that is replayed."""
        return setting

    def believed(self, setting: Setting) -> Setting:
        """What a policy is told of it."""
        return setting

    def others(self, setting: Setting) -> Sequence[tuple[Role, EngineTiming]]:  # noqa: ARG002 - most need none
        """Timings beside the engines' own that some workers have, as `Simulation` takes them."""
        return ()

    def fleet(self, simulation: Simulation, setting: Setting) -> Fleet:  # noqa: ARG002
        """The workers of one replay."""
        return Fleet(simulation)

    def seen(self, observation: Observation, now_s: float) -> Observation:  # noqa: ARG002
        """What of an observation reaches the policy."""
        return observation

    def watched(
        self,
        workers: Mapping[str, Sequence[WorkerLoad]],
        now_s: float,  # noqa: ARG002
    ) -> Mapping[str, Sequence[WorkerLoad]]:
        """What of every worker's own load reaches a policy that watches."""
        return workers

    def check(self, setting: Setting, span_s: float) -> None:
        """Whether it comes about in this setting, whose trace is so long.

        Raises:
            InputError: nothing would be disturbed.
        """


def between(name: str, value: float, least: float, most: float) -> None:
    """Refuse an option out of range.

    Raises:
        InputError: it is, or is no number.
    """
    if not (math.isfinite(value) and least <= value <= most):
        raise InputError(f"{name} is {value:g}", expected=f"from {least:g} to {most:g}", field="--disturb")
