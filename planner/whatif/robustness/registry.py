"""Disturbances by name, and how the command line spells them: `NAME[:key=number,…]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature

from planner.whatif.policies.options import split_options
from planner.whatif.robustness.disturbance import Disturbance
from planner.whatif.robustness.lengths import DriftingLengths
from planner.whatif.robustness.metrics import MissingMetrics
from planner.whatif.robustness.profile import WrongProfile
from planner.whatif.robustness.workers import FailingStarts, SlowWorkers
from profiler.errors import InputError

DISTURBANCES: Mapping[str, Callable[..., Disturbance]] = {
    "optimistic-profile": partial(WrongProfile, factor=0.8),
    "pessimistic-profile": partial(WrongProfile, factor=1.2),
    "drifting-lengths": DriftingLengths,
    "missing-metrics": MissingMetrics,
    "slow-workers": SlowWorkers,
    "failing-starts": FailingStarts,
}

#: All of them, one after the other.
ALL = "all"


def expand_disturbances(specs: Sequence[str]) -> list[str]:
    """Each once, in order; `all` is every one by its defaults.

    Raises:
        InputError: there is no such one, or an option is wrong.
    """
    named = [name for spec in specs for name in (DISTURBANCES if spec == ALL else (spec,))]
    for spec in named:
        make_disturbance(spec)
    return list(dict.fromkeys(named))


def make_disturbance(spec: str | None) -> Disturbance:
    """The disturbance of a single argument; the one that disturbs nothing for None.

    Raises:
        InputError: there is no such one, or an option is wrong.
    """
    if spec is None:
        return Disturbance()
    name, _, options = spec.partition(":")
    if name not in DISTURBANCES:
        known = " | ".join((*DISTURBANCES, ALL))
        raise InputError(f"unknown disturbance {spec!r}", expected=known, field="--disturb")
    make = DISTURBANCES[name]
    keys, values = tuple(signature(make).parameters), {}
    for key, value in split_options(options):
        if key not in keys:
            raise InputError(f"{name}: unknown option {key!r}", expected=", ".join(f"{k}=…" for k in keys),
                             field="--disturb")  # fmt: skip
        try:
            values[key] = float(value or "")
        except ValueError:
            raise InputError(f"{name}: {key} is {value!r}", expected=f"{key}=NUMBER", field="--disturb") from None
    return make(**values)
