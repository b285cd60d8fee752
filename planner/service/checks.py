"""Contradictions within a configuration, found when it is loaded, each with the line of the value to change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.core.types import Role
from planner.service.config import ServiceConfig
from profiler.yamlfile import read_yaml

#: Ticks closer than this spend a core on deciding.
SHORTEST_WALL_INTERVAL_S = 0.1

#: Bins that a forecast may reach ahead; a record that reaches further reads as damaged.
MOST_INTERVALS_AHEAD = 10_000


def check_consistent(config: ServiceConfig, path: Path) -> None:
    """Check what no single field shows.

    Raises:
        InputError: two fields contradict each other.
    """

    def wrong(problem: str, expected: str, *place: str) -> NoReturn:
        raise read_yaml(path, field="CONFIG")[0].error(problem, place, expected)

    roles = [pool.role for pool in config.pools.values()]
    for name, pool in config.pools.items():
        if roles.count(pool.role) > 1:
            wrong(f"is {pool.role}, as another pool's", "one pool per role", "pools", name, "role")
        if pool.max_workers is not None and pool.min_workers > pool.max_workers:
            right = f"at most max_workers ({pool.max_workers})"
            wrong(f"is {pool.min_workers}", right, "pools", name, "min_workers")
    if set(roles) not in ({Role.PREFILL, Role.DECODE}, {Role.AGGREGATED}):
        have = " and ".join(sorted(set(roles)))
        wrong(f"are for {have}", "a prefill and a decode pool, or an aggregated one", "pools")

    connector = config.connector
    if connector.kind == "local" and connector.local is None:
        wrong("is 'local' without its section", "connector.local with a control_url", "connector", "kind")
    if connector.kind == "local" and connector.dry_run is not None:
        wrong("is given beside kind 'local'", "kind 'dry_run', or no such section", "connector", "dry_run")
    if connector.kind == "local" and connector.kubernetes is not None:
        wrong("is given beside kind 'local'", "kind 'kubernetes', or no such section", "connector", "kubernetes")
    if config.layouts.enabled and connector.kind == "local":
        wrong("is true with connector kind 'local'", "kind 'kubernetes', or 'dry_run' to look on", "layouts", "enabled")
    if connector.kind == "kubernetes":
        for other in ("local", "dry_run"):
            if getattr(connector, other) is not None:
                wrong("is given beside kind 'kubernetes'", "no such section", "connector", other)
    if connector.kubernetes is not None:
        _check_kubernetes(config, connector.kubernetes, wrong)
    if connector.kind == "dry_run":
        supplies = [one for one in ("local", "kubernetes", "dry_run") if getattr(connector, one) is not None]
        if not supplies:
            right = "connector.local, connector.kubernetes or connector.dry_run"
            wrong("is 'dry_run' without a supply", right, "connector", "kind")
        if len(supplies) > 1:
            wrong(f"is given beside connector.{supplies[0]}", "one supply", "connector", supplies[-1])
        if connector.dry_run is not None and set(connector.dry_run.workers) != set(config.pools):
            right = f"a count for {', '.join(config.pools)}"
            wrong(
                f"names {', '.join(connector.dry_run.workers) or 'nothing'}", right, "connector", "dry_run", "workers"
            )

    metrics = config.metrics
    if metrics.source == "scrape" and metrics.prometheus is not None:
        wrong("is given beside source 'scrape'", "source 'prometheus', or no such section", "metrics", "prometheus")
    if metrics.source == "prometheus" and metrics.prometheus is None:
        wrong("is 'prometheus' without its section", "metrics.prometheus with a url", "metrics", "source")
    if metrics.source == "prometheus" and metrics.scrape is not None:
        wrong("is given beside source 'prometheus'", "source 'scrape', or no such section", "metrics", "scrape")
    if config.scrape_period_s > config.wall_interval_s:
        right = f"at most the interval's {config.wall_interval_s:g} s of wall time"
        wrong(f"is {config.scrape_period_s:g}", right, "metrics", "scrape", "period_s")
    server = metrics.prometheus
    if server is not None and server.insecure_skip_verify and server.ca_file is not None:
        right = "either certificates to trust, or none checked"
        wrong("is given beside insecure_skip_verify", right, "metrics", "prometheus", "ca_file")

    service = config.service
    if service.journal.resolve() == service.checkpoint.resolve():
        wrong("is the journal's file", "a file of its own", "service", "checkpoint")
    if service.checkpoint_config_map is not None and connector.kind != "kubernetes":
        wrong("is given without a cluster", "connector.kind 'kubernetes', or none", "service", "checkpoint_config_map")
    if service.lease_s < 2 * config.wall_interval_s:
        right = f"at least two intervals, {2 * config.wall_interval_s:g} s of wall time"
        wrong(f"is {service.lease_s:g}", right, "service", "lease_s")
    if config.wall_interval_s < SHORTEST_WALL_INTERVAL_S:
        right = f"at least {SHORTEST_WALL_INTERVAL_S * config.speed_up:g} at speed_up {config.speed_up:g}"
        wrong(f"is {config.tuning.interval_s:g}", right, "tuning", "interval_s")
    ahead = config.lead_time_s / config.tuning.interval_s + config.tuning.horizon_intervals
    if ahead > MOST_INTERVALS_AHEAD:
        wrong(f"is {ahead:,.0f} intervals with the horizon", f"at most {MOST_INTERVALS_AHEAD:,}", "lead_time_s")


def _check_kubernetes(config: ServiceConfig, section: KubernetesSettings, wrong: Callable[..., NoReturn]) -> None:
    place = ("connector", "kubernetes")
    if section.graph is not None and section.objects is not None:
        wrong("is given beside connector.kubernetes.graph", "one object, or one per pool", *place, "objects")
    if section.objects is not None and set(section.objects) != set(config.pools):
        right = f"an object for {', '.join(config.pools)}"
        wrong(f"names {', '.join(section.objects)}", right, *place, "objects")
