"""The setting of a run: its case's graph, trace and start, alike for every policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from planner.core.settings import PlannerSettings
from planner.core.types import Plan
from planner.whatif.arena.cases import Case
from planner.whatif.arena.source import Source, trace_of
from planner.whatif.graph import Graph, build_graph, load_profiles
from planner.whatif.policies.base import Setting
from planner.whatif.policies.hindsight import counts_for_start
from planner.whatif.policies.static import parse_layout
from profiler.errors import InputError
from profiler.tables import Profile

#: The start is sized for this much of the trace, s: long enough for a rate to show, short enough to be the start.
START_S = 120.0


@dataclass(frozen=True)
class Place:
    """A case where it is run: with its trace and its profiles' folders.

    Attributes:
        case: entry and start-up time.
        source: of its trace.
        profiles: folders.
        file: the YAML, for errors.
    """

    case: Case
    source: Source
    profiles: tuple[Path, ...]
    file: Path


def profile_folders(case: Case, profiles: Path, file: Path) -> tuple[Path, ...]:
    """Folders of a case's profiles, absolute or below `profiles`.

    Raises:
        InputError: one is not there.
    """
    folders = tuple(profiles / name for name in case.spec.profile)
    for folder in folders:
        if not folder.is_dir():
            right = "a folder with profiles, below --profiles or absolute"
            found = f"{str(folder)!r} is no folder"
            raise InputError(found, expected=right, source=file, field=f"cases.{case.spec.name}.profile")
    return folders


@lru_cache(maxsize=8)
def _graph(folders: tuple[Path, ...], aggregated: bool, max_gpus: int) -> tuple[Graph, tuple[Profile, ...]]:
    loaded = tuple(load_profiles(folders))
    return build_graph(loaded, aggregated=aggregated, max_gpus=max_gpus), loaded


def graph_of(place: Place) -> tuple[Graph, tuple[Profile, ...]]:
    """The graph of a case, and the profiles behind it.

    Raises:
        InputError: the profiles do not describe it, or one worker is more than the budget; names file and case.
    """
    case = place.case
    try:
        return _graph(place.profiles, case.aggregated, case.spec.max_gpus)
    except InputError as error:
        if error.source is not None:
            raise
        field = f"cases.{case.spec.name}"
        raise InputError(error.problem, expected=error.expected, source=place.file, field=field) from None


def setting_of(place: Place, seed: int, start: Plan | None = None) -> Setting:
    """The setting of one seed.

    Args:
        place: the case.
        seed: of its trace.
        start: workers at time 0 where they are known already.

    Raises:
        InputError: the profiles, the trace or the start are wrong; names file and case.
    """
    case, spec = place.case, place.case.spec
    graph, loaded = graph_of(place)
    pools = graph.pools
    settings = PlannerSettings(
        sla=case.sla, pools=tuple(pools.values()), max_gpus=spec.max_gpus, lead_time_s=case.startup_s
    )
    trace = trace_of(place.source, seed)
    least = {pool.name: pool.min_workers for pool in pools.values()}
    setting = Setting(
        graph.engines, graph.profiles, pools, settings, least, case.startup_s, spec.routing, trace, loaded
    )  # fmt: skip
    if start is None:
        start = counts_for_start(setting, START_S) if spec.start == "auto" else _stated(place, setting)
    return replace(setting, start=start)


def _stated(place: Place, setting: Setting) -> Plan:
    spec = place.case.spec
    field = f"cases.{spec.name}.start"
    try:
        plan = parse_layout(spec.start, setting.pools, field)
    except InputError as error:
        raise InputError(error.problem, expected=error.expected, source=place.file, field=field) from None
    gpus = sum(plan[pool.name] * pool.gpus_per_worker for pool in setting.pools.values())
    if gpus > spec.max_gpus:
        limit = f"at most its max_gpus, {spec.max_gpus}"
        raise InputError(f"{spec.start} takes {gpus} GPUs", expected=limit, source=place.file, field=field)
    return plan
