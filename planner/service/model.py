"""From a configuration to what decides: capacity model, pools with their GPUs, settings, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.core.capacity import CapacityModel
from planner.core.engines import Engines, engines_of
from planner.core.layout_change import LayoutOption
from planner.core.record import ProfileRef
from planner.core.settings import PlannerSettings
from planner.core.types import Pool, Role, Sla
from planner.service.config import ServiceConfig
from profiler.errors import InputError
from profiler.folders import layout_words, load_profiles
from profiler.tables import Profile, fingerprint
from profiler.yamlfile import Place, read_yaml


@dataclass(frozen=True, eq=False)
class Model:
    """What a configuration and its profiles make.

    Attributes:
        settings: with the configured lead time.
        capacity: the capacity model.
        profiles: what it was built from; absolute folders, so that a journal can be explained from anywhere.
        errors: mean relative leave-one-out error by "role/table", as the profiles record it.
        warnings: of the profiles, each once.
        option: the layouts, for comparing them with others.
        layouts: tensor- and data-parallel size by pool.
        siblings: the models of all measured combinations of layouts, this one among them; empty where layouts are not
            compared.
    """

    settings: PlannerSettings
    capacity: CapacityModel
    profiles: tuple[ProfileRef, ...]
    errors: Mapping[str, float]
    warnings: tuple[str, ...]
    option: LayoutOption
    layouts: Mapping[str, tuple[int, int]]
    siblings: tuple[Model, ...] = ()


def load_model(config: ServiceConfig, path: Path) -> Model:
    """Load the profiles of a configuration that `load_config` gave.

    Args:
        config: with absolute paths.
        path: its file, for errors.

    Returns:
        The model of the profiles; where layouts are compared, that of the layouts given first.

    Raises:
        InputError: a profile is missing or wrong, or the minimums are more than the budget.
    """
    aggregated = any(pool.role is Role.AGGREGATED for pool in config.pools.values())
    profiles = load_profiles(config.profiles, field="profiles")
    if not config.layouts.enabled:
        return _model(config, path, profiles, aggregated=aggregated)
    options = combinations(profiles, aggregated=aggregated)
    if not options:
        # What is missing is said as it is where there is one layout only.
        return _model(config, path, profiles, aggregated=aggregated)
    first, *others = options
    fit = [one for one in others if sum(_least(config, profile) for profile in one) <= config.budget.max_gpus]
    models = tuple(_model(config, path, one, aggregated=aggregated) for one in (first, *fit))
    return replace(models[0], siblings=models)


def _least(config: ServiceConfig, profile: Profile) -> int:
    """GPUs of the fewest workers that a layout's pool may have: one that the budget does not hold is no choice."""
    found = [max(1, pool.min_workers) for pool in config.pools.values() if pool.role.value == profile.meta.role]
    return max(found, default=1) * profile.meta.gpu.count_per_worker


def combinations(profiles: Sequence[Profile], *, aggregated: bool) -> list[tuple[Profile, ...]]:
    """The graphs that profiles of several layouts describe; the first is that of the profiles given first.

    An aggregated layout without a profile of its own is described by a prefill and a decode profile of equal layout.

    Args:
        profiles: of one model, GPU and engine, in the order given.
        aggregated: whether the graph's workers do both.

    Raises:
        InputError: two profiles of one role and layout.
    """
    by_role: dict[str, dict[tuple[int, int], Profile]] = {"prefill": {}, "decode": {}, "aggregated": {}}
    for profile in profiles:
        meta = profile.meta
        other = by_role[meta.role].setdefault((meta.tp, meta.dp), profile)
        if other is not profile:
            problem = f"is a second {meta.role} profile of {layout_words(meta)}, after {other.path}"
            raise InputError(problem, expected="one for each layout", source=profile.path, field="profiles")
    fill, step, mixed = by_role["prefill"], by_role["decode"], by_role["aggregated"]
    if not aggregated:
        return [(one, other) for one in fill.values() for other in step.values()]
    pairs = [(fill[layout], step[layout]) for layout in fill if layout in step and layout not in mixed]
    return [*((one,) for one in mixed.values()), *pairs]


def _model(config: ServiceConfig, path: Path, profiles: Sequence[Profile], *, aggregated: bool) -> Model:
    try:
        engines, of_role = engines_of(profiles, aggregated=aggregated, field="profiles")
    except InputError as error:
        raise _wrong(path, error.problem, error.expected, "profiles") from None
    pools = _pools(config, engines, path)
    settings = PlannerSettings(
        sla=Sla(config.sla.ttft_ms, config.sla.itl_ms, config.sla.attainment),
        pools=pools,
        max_gpus=config.budget.max_gpus,
        lead_time_s=config.lead_time_s,
        **config.tuning.model_dump(),
    )
    layouts = {role: (profile.meta.tp, profile.meta.dp) for role, profile in of_role.items()}
    startup_s = {role: max(p.meta.startup_s) for role, p in of_role.items() if p.meta.startup_s}
    return Model(
        settings=settings,
        capacity=engines.closed_form,
        profiles=tuple(ProfileRef(str(p.path.resolve()), fingerprint(p.path)) for p in profiles),
        errors={f"{p.meta.role}/{table}": error.mean for p in profiles for table, error in p.meta.errors.items()},
        warnings=tuple(sorted({warning for p in profiles for warning in p.meta.warnings})),
        option=LayoutOption(layouts, engines.closed_form, pools, startup_s),
        layouts={pool.name: layouts[pool.role] for pool in pools},
    )


def _pools(config: ServiceConfig, engines: Engines, path: Path) -> tuple[Pool, ...]:
    """In the order of the engines' roles, as the sizing names them."""
    pools, least = [], 0
    by_role = {pool.role: (name, pool) for name, pool in config.pools.items()}
    budget = config.budget.max_gpus
    for role in engines.roles:
        name, pool = by_role[role]
        gpus = engines.of(role).gpus
        if gpus > budget:
            right = f"at least {gpus}, the GPUs of one {role} worker"
            raise _wrong(path, f"is {budget}", right, "budget", "max_gpus")
        most = pool.max_workers if pool.max_workers is not None else max(1, budget // gpus)
        if pool.min_workers > most:
            right = f"at most {most}, as many as {budget} GPUs hold"
            raise _wrong(path, f"is {pool.min_workers}", right, "pools", name, "min_workers")
        least += pool.min_workers * gpus
        pools.append(Pool(name, role, gpus, pool.min_workers, most))
    if least > budget:
        right = f"at least {least}, the GPUs of all pools' min_workers"
        raise _wrong(path, f"is {budget}", right, "budget", "max_gpus")
    return tuple(pools)


def _wrong(path: Path, problem: str, expected: str, *place: str) -> InputError:
    where: Place = place
    return read_yaml(path, field="CONFIG")[0].error(problem, where, expected)
