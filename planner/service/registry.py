"""Connectors and metrics sources by their names in the configuration; a new one is one function and one line here.

They are imported when they are asked for: what a graph does not use, it need not have installed, nor wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planner.connectors.base import Connector
from planner.connectors.dry_run import DryRunConnector
from planner.core.settings import PlannerSettings
from planner.observe.base import Source
from planner.observe.observer import Observer
from planner.service.config import ServiceConfig

# ruff: noqa: PLC0415


def _local(config: ServiceConfig) -> Connector:
    from planner.connectors.local import LocalConnector

    settings = config.connector.local
    if settings is None:
        raise AssertionError("checked when the configuration was loaded")
    return LocalConnector(settings.control_url, settings.timeout_s, config.budget.max_gpus)


def _dry_run(config: ServiceConfig) -> Connector:
    counts = config.connector.dry_run
    return DryRunConnector(_local(config) if counts is None else counts.workers)


def _scrape(config: ServiceConfig) -> Source:
    from planner.observe.scrape import ScrapeSource
    from planner.service.config import ScrapeSettings

    timeout_s = (config.metrics.scrape or ScrapeSettings()).timeout_s
    return ScrapeSource(period_s=config.scrape_period_s, timeout_s=timeout_s)


def _prometheus(config: ServiceConfig) -> Source:
    from planner.observe.prometheus import PrometheusSource

    server = config.metrics.prometheus
    if server is None:
        raise AssertionError("checked when the configuration was loaded")
    return PrometheusSource(
        server.url,
        matchers=server.match,
        timeout_s=server.timeout_s,
        token_file=server.token_file,
        verify=not server.insecure_skip_verify,
        ca_file=server.ca_file,
    )


CONNECTORS: Mapping[str, Callable[[ServiceConfig], Connector]] = {"local": _local, "dry_run": _dry_run}
SOURCES: Mapping[str, Callable[[ServiceConfig], Source]] = {"scrape": _scrape, "prometheus": _prometheus}


def make_connector(config: ServiceConfig) -> Connector:
    """The connector that a configuration asks for; nothing is reached yet."""
    return CONNECTORS[config.connector.kind](config)


def make_source(config: ServiceConfig) -> Source:
    """The metrics source that a configuration asks for; nothing is reached yet."""
    return SOURCES[config.metrics.source](config)


def make_observer(config: ServiceConfig, settings: PlannerSettings) -> Observer:
    """The observer of a configuration's graph.

    Raises:
        InputError: an engine or a gateway is not known.
    """
    from planner.observe.dialects import engine_dialect, gateway_dialect

    metrics = config.metrics
    return Observer(
        make_source(config),
        engine_dialect(metrics.engine, field="metrics.engine"),
        gateway_dialect(metrics.gateway, field="metrics.gateway"),
        settings.sla,
        settings.pools,
        speed_up=config.speed_up,
        stale_after_s=settings.stale_after_s,
    )
