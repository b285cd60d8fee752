"""Reading the configuration's file."""

from __future__ import annotations

from pathlib import Path

from planner.service.checks import check_consistent
from planner.service.config import ServiceConfig
from profiler.yamlfile import load_settings

#: Settings that are yes or no; the reader of YAML refuses a yes or no for any other.
FLAGS = frozenset({"deletion_cost", "enabled", "events", "insecure_skip_verify"})


def load_config(path: Path) -> ServiceConfig:
    """Read and check a configuration; its paths come back absolute.

    Raises:
        InputError: the file cannot be read, a field is unknown or wrong, or two contradict each other; names the line
            and the field.
    """
    raw = load_settings(path, ServiceConfig, field="CONFIG", flags=FLAGS)
    check_consistent(raw, path)
    return _absolute(raw, path.resolve().parent)


def _absolute(config: ServiceConfig, base: Path) -> ServiceConfig:
    def at(path: Path) -> Path:
        return (base / path.expanduser()).resolve()

    service = config.service.model_copy(
        update={"journal": at(config.service.journal), "checkpoint": at(config.service.checkpoint)}
    )
    metrics = config.metrics
    if metrics.prometheus is not None:
        server = metrics.prometheus
        files = {"token_file": server.token_file, "ca_file": server.ca_file}
        found = {name: at(file) for name, file in files.items() if file is not None}
        metrics = metrics.model_copy(update={"prometheus": server.model_copy(update=found)})
    connector, cluster = config.connector, config.connector.kubernetes
    if cluster is not None and cluster.kubeconfig is not None:
        cluster = cluster.model_copy(update={"kubeconfig": at(cluster.kubeconfig)})
        connector = connector.model_copy(update={"kubernetes": cluster})
    profiles = tuple(at(folder) for folder in config.profiles)
    update = {"service": service, "metrics": metrics, "profiles": profiles, "connector": connector}
    return config.model_copy(update=update)
