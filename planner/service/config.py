"""The planner's configuration: one YAML. Each field says its unit, its default and why that is what it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.connectors.kubernetes.settings import KubernetesSettings, ObjectName
from planner.core.layout_change import LayoutSettings
from planner.core.settings import Tuning
from planner.core.types import Role

#: Pools, graphs and identities go into labels, URLs and file names: what Kubernetes allows in a name, and no more.
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalSettings(_Section):
    """A graph that runs on this machine."""

    control_url: str = Field(pattern=r"^https?://")
    """Address of the local graph's supervisor, such as http://127.0.0.1:7070."""

    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds of wall time that one request to it may take. It answers in milliseconds; 5 s is a hung one."""


class DryRunSettings(_Section):
    """A graph that is looked at and never changed."""

    workers: dict[Name, Annotated[int, Field(ge=0)]]
    """Workers by pool that are taken as ready. Without this section the counts are read from the other connector."""


class ConnectorSettings(_Section):
    """How the graph's supply is read and changed."""

    kind: Literal["local", "kubernetes", "dry_run"]
    """`local`: the supervisor of a graph on this machine. `kubernetes`: objects on a cluster. `dry_run`: decide,
    record, change nothing.
    """

    local: LocalSettings | None = None
    """For kind `local`; for kind `dry_run`, the graph whose supply is read."""

    kubernetes: KubernetesSettings | None = None
    """For kind `kubernetes`, where its defaults hold without it; for kind `dry_run`, the graph whose supply is read."""

    dry_run: DryRunSettings | None = None
    """For kind `dry_run`: fixed counts, where there is no graph to read."""


class ScrapeSettings(_Section):
    """Reading the metrics of workers and gateways directly."""

    period_s: float | None = Field(default=None, gt=0, le=300)
    """Seconds of wall time between scrapes. Without it: 1 s, which shows the bursts that queues feel, or a third of an
    interval, whichever is less.
    """

    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Seconds of wall time that one scrape may take. A page of metrics takes milliseconds."""


class PrometheusSettings(_Section):
    """Reading metrics from a Prometheus server."""

    url: str = Field(pattern=r"^https?://")
    """Address of the server, with its path prefix if it has one."""

    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds of wall time that a query may take: a third of an interval, so that a slow one delays no second tick."""

    match: dict[str, str] = Field(default_factory=dict)
    """Labels that every series must carry, such as the namespace; where one server watches several graphs."""

    token_file: Path | None = None
    """File with a bearer token, read again at each query so that a rotated one counts. Never shown anywhere."""

    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""

    insecure_skip_verify: bool = False
    """Whether to accept any certificate. Only for tests: whoever answers steers the GPUs."""


class MetricsSettings(_Section):
    """Where the load and its latencies are measured."""

    source: Literal["scrape", "prometheus"] = "scrape"
    """`scrape` needs no other server; `prometheus` survives a restart of the planner with its history."""

    engine: Name = "vllm"
    """Whose names the workers' metrics have."""

    gateway: Name = "smg"
    """Whose names the gateway's metrics have: smg, vllm-router or dynamo. What it was offered is the load."""

    scrape: ScrapeSettings | None = None
    """For source `scrape`; defaults hold without it."""

    prometheus: PrometheusSettings | None = None
    """For source `prometheus`."""


class SlaSettings(_Section):
    """What is promised."""

    ttft_ms: float = Field(gt=0)
    """A request's time to its first token must not exceed this, ms."""

    itl_ms: float = Field(gt=0)
    """A request's mean time between tokens must not exceed this, ms."""

    attainment: float = Field(default=0.95, gt=0, le=1)
    """Share of the offered requests that must keep both; 0.95 leaves one in twenty for bursts that no one foresees."""


class BudgetSettings(_Section):
    """What may be spent."""

    max_gpus: int = Field(ge=1, le=1_000_000)
    """GPUs that the graph may hold at any moment, starting and terminating workers included."""


class PoolSettings(_Section):
    """One pool of equal workers. The GPUs of a worker come from its profile."""

    role: Role
    """What its workers do: prefill and decode, one pool of each, or aggregated."""

    min_workers: int = Field(default=1, ge=0, le=1_000_000)
    """Never fewer. 1 keeps the first request of a quiet hour from waiting for a cold start."""

    max_workers: int | None = Field(default=None, ge=1, le=1_000_000)
    """Never more. Without it: as many as the budget holds."""


class ServiceSettings(_Section):
    """The process itself."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to serve the API and the metrics on. Loopback, since the API asks no one who they are."""

    port: int = Field(default=8010, ge=0, le=65535)
    """Port of these; 0 takes any free one."""

    journal: Path = Path("planner-journal.jsonl")
    """File of the decision records, one line each."""

    journal_max_mib: float = Field(default=256.0, gt=0)
    """Size at which the journal is rotated, MiB. A day of ticks of 15 s takes about 150 MiB."""

    journal_keep: int = Field(default=3, ge=0, le=1000)
    """Rotated journals kept beside it, as .1 (the newest) and on; 3 of them hold most of a week."""

    checkpoint: Path = Path("planner-checkpoint.json")
    """File of what the planner has learned, replaced at each tick, so that a restart goes on where it was."""

    checkpoint_config_map: ObjectName | None = None
    """ConfigMap of the graph's namespace that keeps the checkpoint instead of the file, for connector `kubernetes`: a
    standby in another pod then takes over with what was learned.
    """

    history_hours: float = Field(default=24.0, gt=0, le=168)
    """Hours of wall time whose decisions the API lists. A day shows the daily shape, in about 10 MiB."""

    lease_s: float = Field(default=45.0, gt=0, le=3600)
    """Seconds of wall time that the lease on the graph holds without renewal: three intervals of 15 s, so that one
    failed renewal passes no one the graph, and a crashed planner blocks a standby for less than a minute.
    """

    identity: Name = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """Name under which the lease is held; different for every planner. Host name and process id without it."""


class ServiceConfig(_Section):
    """The whole file. Relative paths count from the file's own folder."""

    graph: Name
    """Name of the graph, for labels and records."""

    model: str = Field(min_length=1)
    """Name under which the model is served, for labels."""

    connector: ConnectorSettings
    """How the graph is read and changed."""

    metrics: MetricsSettings = MetricsSettings()
    """Where load and latencies are measured."""

    profiles: tuple[Path, ...] = Field(min_length=1)
    """Folders of measured profiles, one per role, or folders above them. With `layouts.enabled` several layouts for
    each role; the graph is taken to have those given first until it says otherwise."""

    sla: SlaSettings
    """What is promised."""

    budget: BudgetSettings
    """What may be spent."""

    pools: dict[Name, PoolSettings] = Field(min_length=1)
    """The pools that are scaled, by their names in the graph."""

    lead_time_s: float = Field(default=60.0, ge=0, le=86_400)
    """Seconds from asking for a worker to its readiness, until three starts were measured; their p90 from then on.
    60 s is an 8B model from a warm disk; a larger one from the network takes minutes.
    """

    layouts: LayoutSettings = LayoutSettings()
    """When tensor- and data-parallel sizes are changed."""

    tuning: Tuning = Tuning()
    """What holds for any graph: how fast, how cautious, how smooth."""

    service: ServiceSettings = ServiceSettings()
    """The process itself."""

    speed_up: float = Field(default=1.0, ge=1, le=1000)
    """Planner seconds per second of wall time; above 1 only in front of simulated engines that run faster than real
    ones. Where not said otherwise, every time in this file is in planner seconds (or ms).
    """

    @property
    def scrape_period_s(self) -> float:
        """Seconds of wall time between scrapes."""
        scrape = self.metrics.scrape
        if scrape is not None and scrape.period_s is not None:
            return scrape.period_s
        return min(1.0, self.wall_interval_s / 3.0)

    @property
    def wall_interval_s(self) -> float:
        """Seconds of wall time between ticks."""
        return self.tuning.interval_s / self.speed_up
