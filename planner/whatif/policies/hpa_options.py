"""Options that every policy with an HPA inside understands: the controller's flags and the fields of `behavior`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

from planner.core.stabilise import RatePolicy
from planner.whatif.policies.hpa_controller import DEFAULT, Controller, Rules, Select, Tolerance
from profiler.errors import InputError

#: `stabilizationWindowSeconds` and `periodSeconds` end here in the API.
LONGEST_WINDOW_S, LONGEST_PERIOD_S = 3600.0, 1800.0

_DIRECTED = ("tolerance", "window_s", "pods", "percent", "period_s", "select")

#: Their names; a policy without a kind of its own keeps the default ones of its direction.
CONTROLLER_OPTIONS = ("interval_s", "tolerance", *(f"{side}_{name}" for side in ("up", "down") for name in _DIRECTED))


def number(policy: str, key: str, value: str | None, least: float, most: float = math.inf) -> float:
    """A number from `least` to `most`, both included.

    Raises:
        InputError: it is none; names the option.
    """
    try:
        found = float(value or "")
    except ValueError:
        found = math.nan
    if not (least <= found <= most and math.isfinite(found)):
        shown = "no value" if value is None else repr(value)
        right = f"a number of {least:g} or more" if most == math.inf else f"a number from {least:g} to {most:g}"
        raise InputError(f"{policy}: {key} has {shown}", expected=f"{right}, {key}=NUMBER", field="--policy")
    return found


def controller_of(policy: str, given: Mapping[str, str | None]) -> Controller:
    """The controller's settings.

    Args:
        policy: for messages.
        given: values by name, all of `CONTROLLER_OPTIONS`. `up_pods` and `up_percent` are the list of policies: with
            one of them, the default ones of the direction no longer hold, as in a manifest.

    Raises:
        InputError: a value is wrong.
    """
    made = DEFAULT
    if "interval_s" in given:
        made = replace(made, sync_period_s=number(policy, "interval_s", given["interval_s"], 1.0, LONGEST_WINDOW_S))
    both = made.tolerance
    if "tolerance" in given:
        share = number(policy, "tolerance", given["tolerance"], 0.0, 0.99)
        both = Tolerance(share, share)
    if "up_tolerance" in given:
        both = replace(both, up=number(policy, "up_tolerance", given["up_tolerance"], 0.0, 0.99))
    if "down_tolerance" in given:
        both = replace(both, down=number(policy, "down_tolerance", given["down_tolerance"], 0.0, 0.99))
    up = _rules(policy, "up", made.up, given)
    down = _rules(policy, "down", made.down, given)
    return replace(made, tolerance=both, up=up, down=down)


def _rules(policy: str, side: str, rules: Rules, given: Mapping[str, str | None]) -> Rules:
    """One direction with what was given for it."""
    window, select, period = f"{side}_window_s", f"{side}_select", f"{side}_period_s"
    if window in given:
        rules = replace(rules, window_s=number(policy, window, given[window], 0.0, LONGEST_WINDOW_S))
    if select in given:
        value = given[select]
        if value not in get_args(Select):
            right = f"{select}={'|'.join(get_args(Select))}"
            raise InputError(f"{policy}: {select} has {value!r}", expected=right, field="--policy")
        rules = replace(rules, select=cast("Select", value))
    policies = rules.policies
    amounts = [(kind, f"{side}_{name}") for kind, name in (("workers", "pods"), ("percent", "percent"))]
    if any(key in given for _, key in amounts):
        policies = tuple(
            RatePolicy(kind=kind, value=number(policy, key, given[key], 1.0), period_s=policies[0].period_s)
            for kind, key in amounts
            if key in given
        )
    if period in given:
        seconds = number(policy, period, given[period], 1.0, LONGEST_PERIOD_S)
        policies = tuple(one.model_copy(update={"period_s": seconds}) for one in policies)
    return replace(rules, policies=policies)
