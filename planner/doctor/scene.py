"""What the checks look at: a cluster, a configuration, this host. Read when first asked for, and once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from planner.connectors.base import Supply
from planner.doctor.base import SkipError
from planner.service.config import ServiceConfig
from planner.service.model import load_model
from planner.service.registry import make_connector
from profiler.folders import load_profiles
from profiler.tables import Profile

if TYPE_CHECKING:
    from planner.connectors.kubernetes.cluster import Cluster, Object
    from planner.connectors.kubernetes.settings import KubernetesSettings
    from planner.core.settings import PlannerSettings
    from planner.doctor.metrics import Seen, Target
    from planner.doctor.objects import PoolObjects

# The API server's client takes a second to import, and a check of this host does not need it.
# ruff: noqa: PLC0415


@dataclass
class Scene:
    """Everything that probes may ask for.

    Attributes:
        cluster: where there is one to ask; None with `no_cluster`, why there is none.
        config: of `planner run`, its paths absolute, with the options of the command line in it; None without one.
        path: its file.
        metrics: what was read of the targets, once it was.
        on_kubernetes: whether the graph of the configuration is on a cluster; True without one.
    """

    cluster: Cluster | None = None
    no_cluster: str = "there is no kubeconfig"
    config: ServiceConfig | None = None
    path: Path = Path()
    on_kubernetes: bool = True
    metrics: tuple[list[Target], dict[str, Seen]] | None = field(default=None, repr=False)
    _supply: Supply | None = field(default=None, repr=False)

    def api(self) -> Cluster:
        """The cluster; SkipError where there is none."""
        if self.cluster is None:
            raise SkipError(f"not looked at: {self.no_cluster}")
        return self.cluster

    def configuration(self) -> ServiceConfig:
        """The configuration; SkipError without one."""
        if self.config is None:
            raise SkipError("not looked at: there is no configuration", "name it: --config planner.yaml")
        return self.config

    @property
    def kubernetes(self) -> KubernetesSettings:
        """Where the graph is on the cluster; SkipError where it is not on one."""
        from planner.connectors.kubernetes.settings import KubernetesSettings

        if not self.on_kubernetes:
            raise SkipError("the graph of the configuration is not on Kubernetes")
        return self.configuration().connector.kubernetes or KubernetesSettings()

    @cached_property
    def profiles(self) -> Sequence[Profile]:
        """The configured profiles; InputError where one is wrong."""
        return load_profiles(self.configuration().profiles, field="profiles")

    @cached_property
    def settings(self) -> PlannerSettings:
        """What the planner would plan with."""
        return load_model(self.configuration(), self.path).settings

    @cached_property
    def pods(self) -> Sequence[Object]:
        """All pods of the graph's namespace."""
        from planner.connectors.kubernetes.resources import PODS

        return self.api().list(PODS).items

    @cached_property
    def pools(self) -> Sequence[PoolObjects]:
        """What the configured pools stand on; SkipError where the graph is not on a cluster.

        Raises:
            ClusterError: an object is not there, or cannot be read.
        """
        from planner.doctor.objects import pools_of

        return pools_of(self)

    def supply(self) -> Supply:
        """The graph as the planner sees it, through the connector that it would use; read once.

        Raises:
            ConnectorError: it cannot be read.
        """
        if self._supply is None:
            self._supply = make_connector(self.configuration(), self.settings.pools).read()
        return self._supply
