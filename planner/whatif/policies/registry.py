"""Policies by name, and how the command line spells them: `NAME[:OPTIONS]`, layouts as `3p4d` or `2a`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import product

from planner.core.types import Pool, Role
from planner.whatif.policies import apa, clairvoyant, dynamo, dynamo_classic, hpa, keda, kpa, ours, static, wva, wva_v2
from planner.whatif.policies.base import Policy, Setting
from profiler.errors import InputError

POLICIES: Mapping[str, Callable[[str, Setting], Policy]] = {
    "planner": ours.parse,
    "static": static.parse,
    "hpa": hpa.parse,
    "dynamo-classic": dynamo_classic.parse,
    "clairvoyant": clairvoyant.parse,
    "kpa": kpa.parse,
    "keda": keda.parse,
    "wva": wva.parse,
    "wva-v2": wva_v2.parse,
    "apa": apa.parse,
    "dynamo": dynamo.parse,
}

_RANGE = re.compile(r"static:(\w+)\.\.(\w+)")

#: Layouts in one range: beyond it, a range is a slip of the pen, and its replays would take a day.
MOST_LAYOUTS = 1000


def expand(spec: str, pools: Mapping[Role, Pool]) -> list[str]:
    """A policy argument as single policies: `static:2p2d..3p3d` is four of them, everything else is itself.

    Raises:
        InputError: no such policy, or a range that runs backwards or is too long.
    """
    name = spec.partition(":")[0]
    if name not in POLICIES:
        raise InputError(f"unknown policy {spec!r}", expected=" | ".join(POLICIES), field="--policy")
    match = _RANGE.fullmatch(spec)
    if match is None:
        return [spec]
    low, high = (static.counts_of(static.parse_layout(text, pools, "--policy"), pools) for text in match.groups())
    if any(a > b for a, b in zip(low, high, strict=True)):
        raise InputError(f"range {spec!r} runs backwards", expected="the smaller layout first", field="--policy")
    many = math.prod(b - a + 1 for a, b in zip(low, high, strict=True))
    if many > MOST_LAYOUTS:
        raise InputError(f"range {spec!r} is {many:,} layouts", expected=f"at most {MOST_LAYOUTS:,}", field="--policy")
    letters = "a" if len(low) == 1 else "pd"
    every = product(*(range(a, b + 1) for a, b in zip(low, high, strict=True)))
    return ["static:" + "".join(f"{n}{letter}" for n, letter in zip(counts, letters, strict=True)) for counts in every]


def make_policy(spec: str, setting: Setting) -> Policy:
    """The policy of a single argument, made for one replay."""
    name, _, options = spec.partition(":")
    return POLICIES[name](options, setting)
