"""Every graph that the profiles at hand describe: pairs of prefill and decode layouts, and aggregated ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from planner.core.demand import Lengths
from planner.core.engines import Engines, engines_of
from planner.core.types import Role
from profiler import folders
from profiler.errors import InputError
from profiler.tables import Profile
from profiler.timing import DEFAULT_MAX_MODEL_LEN

Mode = Literal["auto", "disaggregated", "aggregated"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True, eq=False)
class Option:
    """One graph.

    Attributes:
        profiles: that describe it: (prefill, decode), or what describes the aggregated worker.
        engines: the planner's timing of them.
        of_role: the profile whose limits and arguments hold for a role's workers.
    """

    profiles: tuple[Profile, ...]
    engines: Engines
    of_role: Mapping[Role, Profile]

    @property
    def name(self) -> str:
        """Its layouts in words, such as `prefill TP1 + decode TP2`."""
        return " + ".join(f"{role} {layout_words(profile)}" for role, profile in self.of_role.items())

    @property
    def aggregated(self) -> bool:
        """Whether its workers do both."""
        return Role.AGGREGATED in self.of_role

    def too_long(self, lengths: Lengths) -> float:
        """Share of requests that a worker cannot hold: longer than its model length or its KV cache."""
        room = np.inf
        for role, profile in self.of_role.items():
            most = profile.meta.limits.max_model_len or DEFAULT_MAX_MODEL_LEN
            room = min(room, most, self.engines.of(role).kv_capacity_tokens)
        return float(np.mean(lengths.isl + lengths.osl > room))


def layout_words(profile: Profile) -> str:
    """TP and, where there are any, DP and expert parallelism."""
    return folders.layout_words(profile.meta)


def of_one_kind(
    profiles: Sequence[Profile], *, model: str | None, gpu: str | None, engine: str | None
) -> list[Profile]:
    """The profiles of one model on one GPU with one version of the engine.

    Tables of another engine version, number format or GPU say nothing about each other, and KV cannot be handed over
    between them.

    Args:
        profiles: loaded.
        model: keep this one only.
        gpu: keep this one only.
        engine: keep this version only.

    Raises:
        InputError: none is left, or several kinds are.
    """
    facts: tuple[tuple[str, str | None, Callable[[Profile], str]], ...] = (
        ("--model", model, lambda p: p.meta.model.name),
        ("--gpu", gpu, lambda p: p.meta.gpu.name),
        ("--engine-version", engine, lambda p: p.meta.engine.version or "unknown"),
    )
    left = list(profiles)
    for flag, wanted, fact in facts:
        have = sorted({fact(profile) for profile in left})
        if wanted is not None:
            left = [profile for profile in left if fact(profile) == wanted]
            if not left:
                raise InputError(f"is {wanted!r}", expected=" | ".join(have), field=flag)
        elif len(have) > 1:
            raise InputError(f"the profiles are of {len(have)}", expected=f"one of {' | '.join(have)}", field=flag)
    types = sorted({profile.meta.model.dtype for profile in left})
    if len(types) > 1:
        problem = f"{left[0].meta.model.name} was measured as {', '.join(types)}"
        raise InputError(problem, expected="profiles of one number format", field="--profiles")
    estimates = [profile for profile in left if profile.meta.source.form == "estimated"]
    if 0 < len(estimates) < len(left):
        problem = f"{estimates[0].path} is an estimate, and others were measured"
        raise InputError(problem, expected="either; keep estimates in a folder of their own", field="--profiles")
    return left


def options_of(profiles: Sequence[Profile], mode: Mode) -> list[Option]:
    """The graphs that profiles of one kind describe.

    An aggregated layout without a profile of its own is described by a prefill and a decode profile of equal layout.

    Raises:
        InputError: two profiles of one role and layout, or no graph of the mode is described.
    """
    by_role: dict[str, dict[tuple[int, int, bool], Profile]] = {"prefill": {}, "decode": {}, "aggregated": {}}
    for profile in profiles:
        meta = profile.meta
        other = by_role[meta.role].setdefault((meta.tp, meta.dp, meta.spreads_experts), profile)
        if other is not profile:
            problem = f"is a second {meta.role} profile of {layout_words(profile)}, after {other.path}"
            raise InputError(problem, expected="one for each layout", source=profile.path, field="--profiles")
    options: list[Option] = []
    if mode != "aggregated":
        options += [
            _option((fill, step), aggregated=False)
            for _, fill in sorted(by_role["prefill"].items())
            for _, step in sorted(by_role["decode"].items())
        ]
    if mode != "disaggregated":
        for layout in sorted({*by_role["aggregated"], *(by_role["prefill"].keys() & by_role["decode"].keys())}):
            own = by_role["aggregated"].get(layout)
            parts = (own,) if own is not None else (by_role["prefill"][layout], by_role["decode"][layout])
            options.append(_option(parts, aggregated=True))
    if not options:
        have = ", ".join(f"{p.meta.role} {layout_words(p)}" for p in profiles)
        pair = "a prefill and a decode profile"
        alone = f"an aggregated profile, or {pair} of equal layout"
        wanted = {"auto": f"{pair}, or an aggregated one", "disaggregated": pair, "aggregated": alone}[mode]
        kind = "graph" if mode == "auto" else f"{mode} graph"
        raise InputError(f"describe no {kind}: {have}", expected=wanted, field="--profiles")
    return options


def _option(profiles: tuple[Profile, ...], *, aggregated: bool) -> Option:
    engines, of_role = engines_of(profiles, aggregated=aggregated, field="--profiles")
    return Option(profiles, engines, of_role)
