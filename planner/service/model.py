"""From a configuration to what decides: capacity model, pools with their GPUs, settings, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from planner.core.capacity import CapacityModel
from planner.core.engines import Engines, engines_of
from planner.core.record import ProfileRef
from planner.core.settings import PlannerSettings
from planner.core.types import Pool, Role, Sla
from planner.service.config import ServiceConfig
from profiler.errors import InputError
from profiler.folders import load_profiles
from profiler.tables import fingerprint
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
    """

    settings: PlannerSettings
    capacity: CapacityModel
    profiles: tuple[ProfileRef, ...]
    errors: Mapping[str, float]
    warnings: tuple[str, ...]


def load_model(config: ServiceConfig, path: Path) -> Model:
    """Load the profiles of a configuration that `load_config` gave.

    Args:
        config: with absolute paths.
        path: its file, for errors.

    Raises:
        InputError: a profile is missing or wrong, or the minimums are more than the budget.
    """
    aggregated = any(pool.role is Role.AGGREGATED for pool in config.pools.values())
    profiles = load_profiles(config.profiles, field="profiles")
    try:
        engines, _ = engines_of(profiles, aggregated=aggregated, field="profiles")
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
    return Model(
        settings=settings,
        capacity=engines.closed_form,
        profiles=tuple(ProfileRef(str(p.path.resolve()), fingerprint(p.path)) for p in profiles),
        errors={f"{p.meta.role}/{table}": error.mean for p in profiles for table, error in p.meta.errors.items()},
        warnings=tuple(sorted({warning for p in profiles for warning in p.meta.warnings})),
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
