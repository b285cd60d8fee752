"""Connectors and metrics sources by their names in the configuration; a new one is one function and one line here.

They are imported when they are asked for: what a graph does not use, it need not have installed, nor wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from planner.connectors.base import Connector
from planner.connectors.dry_run import DryRunConnector
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.core.settings import PlannerSettings
from planner.core.types import Pool
from planner.observe.base import Source
from planner.observe.observer import Observer
from planner.service.checkpoint import FileKeeper, Keeper
from planner.service.config import ServiceConfig

# ruff: noqa: PLC0415

if TYPE_CHECKING:
    from planner.connectors.kubernetes.cluster import Cluster


def _local(config: ServiceConfig, pools: Sequence[Pool]) -> Connector:  # noqa: ARG001 - its supervisor knows them
    from planner.connectors.local import LocalConnector

    settings = config.connector.local
    if settings is None:
        raise AssertionError("checked when the configuration was loaded")
    return LocalConnector(settings.control_url, settings.timeout_s, config.budget.max_gpus)


def _kubernetes(config: ServiceConfig, pools: Sequence[Pool]) -> Connector:
    from planner.connectors.kubernetes.connector import KubernetesConnector

    settings = config.connector.kubernetes or KubernetesSettings()
    return KubernetesConnector(_cluster(settings), config.graph, pools, settings, config.budget.max_gpus)


def _cluster(settings: KubernetesSettings) -> Cluster:
    from planner.connectors.kubernetes.cluster import Cluster

    return Cluster(
        settings.namespace,
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        timeout_s=settings.timeout_s,
    )


def _dry_run(config: ServiceConfig, pools: Sequence[Pool]) -> Connector:
    connector = config.connector
    if connector.dry_run is not None:
        return DryRunConnector(connector.dry_run.workers)
    return DryRunConnector((_local if connector.local is not None else _kubernetes)(config, pools))


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


CONNECTORS: Mapping[str, Callable[[ServiceConfig, Sequence[Pool]], Connector]] = {
    "local": _local,
    "kubernetes": _kubernetes,
    "dry_run": _dry_run,
}
SOURCES: Mapping[str, Callable[[ServiceConfig], Source]] = {"scrape": _scrape, "prometheus": _prometheus}


def make_connector(config: ServiceConfig, pools: Sequence[Pool]) -> Connector:
    """The connector that a configuration asks for; nothing is reached yet.

    Args:
        config: of the service.
        pools: that are planned, with the GPUs of their workers.

    Raises:
        InputError: there is nothing that says how to reach a cluster.
    """
    return CONNECTORS[config.connector.kind](config, pools)


def make_keeper(config: ServiceConfig) -> Keeper:
    """Where a configuration keeps the checkpoint; nothing is reached yet."""
    name = config.service.checkpoint_config_map
    if name is None:
        return FileKeeper(config.service.checkpoint)
    from planner.connectors.kubernetes.state_map import StateMap

    return StateMap(_cluster(config.connector.kubernetes or KubernetesSettings()), name)


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
