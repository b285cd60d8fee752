"""What a graph is made of: the timing of each role's workers, from profiles that are loaded already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.core.closed_form import ClosedForm
from planner.core.types import Role
from profiler.errors import InputError
from profiler.folders import only_of
from profiler.tables import Profile
from profiler.timing import EngineTiming, TransferTiming, engine_timing, transfer_timing


@dataclass(frozen=True)
class Engines:
    """(prefill, decode) or (aggregated,), and the hand-off between the two."""

    roles: tuple[Role, ...]
    timing: tuple[EngineTiming, ...]
    transfer: TransferTiming

    def of(self, role: Role) -> EngineTiming:
        """Timing of a role's workers."""
        return self.timing[self.roles.index(role)]

    @property
    def closed_form(self) -> ClosedForm:
        """The closed-form capacity model of these engines."""
        return ClosedForm(dict(zip(self.roles, self.timing, strict=True)), self.transfer)


def engines_of(
    profiles: Sequence[Profile], *, aggregated: bool, field: str = "--profile"
) -> tuple[Engines, Mapping[Role, Profile]]:
    """Engines from profiles, and the profile whose limits hold for each role.

    An aggregated worker may be described by an aggregated profile, or by a prefill and a decode profile of one GPU
    count.

    Args:
        profiles: loaded; those of other roles are left aside.
        aggregated: whether the graph's workers do both.
        field: the option or setting that named the profiles, for errors.

    Raises:
        InputError: a role without a profile, or with several.
    """
    prefill, decode, mixed = (only_of(profiles, name, field=field) for name in ("prefill", "decode", "aggregated"))
    if aggregated:
        fill, step = (mixed, mixed) if mixed is not None else (prefill, decode)
        if fill is None or step is None:
            right = "an aggregated profile, or a prefill and a decode profile"
            raise InputError("the aggregated graph is not described", expected=right, field=field)
        if fill.meta.gpu.count_per_worker != step.meta.gpu.count_per_worker:
            raise InputError("prefill and decode profiles are of different GPU counts", field=field)
        if fill.meta.spreads_experts != step.meta.spreads_experts:
            raise InputError("prefill and decode profiles differ in expert parallelism", field=field)
        timing = engine_timing(fill, step, limits_of=step)
        return Engines((Role.AGGREGATED,), (timing,), transfer_timing([])), {Role.AGGREGATED: step}
    if prefill is None or decode is None:
        missing = "prefill" if prefill is None else "decode"
        right = "a prefill and a decode profile, or a graph of aggregated workers (--start 1a)"
        raise InputError(f"no {missing} profile among those given", expected=right, field=field)
    engines = Engines(
        (Role.PREFILL, Role.DECODE),
        (engine_timing(prefill, decode, limits_of=prefill), engine_timing(prefill, decode, limits_of=decode)),
        transfer_timing([prefill, decode]),
    )
    return engines, {Role.PREFILL: prefill, Role.DECODE: decode}
