"""The profile is wrong: policies see the engines' times scaled, the engines keep their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.core.engines import Engines
from planner.whatif.policies.base import Setting
from planner.whatif.robustness.disturbance import Disturbance, between
from profiler.tables import Profile
from profiler.timing import EngineTiming, TransferTiming


@dataclass(frozen=True)
class WrongProfile(Disturbance):
    """Every time in the profile is `factor` of the engines' own."""

    factor: float

    def __post_init__(self) -> None:
        between("factor", self.factor, 0.1, 10.0)

    def believed(self, setting: Setting) -> Setting:
        """Engines and tables with scaled times; capacities are as they are."""
        engines = setting.engines
        timing = tuple(scaled_timing(one, self.factor) for one in engines.timing)
        return replace(
            setting,
            engines=Engines(engines.roles, timing, _scaled_transfer(engines.transfer, self.factor)),
            profiles={role: _scaled_profile(profile, self.factor) for role, profile in setting.profiles.items()},
        )


def scaled_timing(timing: EngineTiming, factor: float) -> EngineTiming:
    """A worker that takes `factor` of the time for everything, and holds as much."""
    return replace(
        timing.slowed(factor),
        front_ms=timing.front_ms * factor,
        front_ms_per_token=timing.front_ms_per_token * factor,
        stream_ms=timing.stream_ms * factor,
    )


def _scaled_transfer(transfer: TransferTiming, factor: float) -> TransferTiming:
    return replace(transfer, transfer_ms=transfer.transfer_ms * factor, post_ms=transfer.post_ms * factor)


def _scaled_profile(profile: Profile, factor: float) -> Profile:
    """Tables with every time scaled, and throughput the other way: for policies that read these."""
    samples = {
        table: {
            name: column * factor if name.endswith("_ms") else column / factor if "throughput" in name else column
            for name, column in rows.items()
        }
        for table, rows in profile.samples.items()
    }
    return replace(profile, samples=samples)
