"""`planner doctor`: what keeps a planner from working here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.doctor.base import Group
from profiler import console
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from planner.connectors.kubernetes.settings import KubernetesSettings
    from planner.doctor.scene import Scene
    from planner.service.config import ServiceConfig

# As elsewhere: what a command needs is imported when it runs.
# ruff: noqa: PLC0415


def doctor(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML of `planner run`.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of the cluster; the configuration's, or kubectl's, without it.")
    ] = None,
    context: Annotated[str | None, typer.Option(metavar="NAME", help="Of the kubeconfig.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Of the graph.")] = None,
    host: Annotated[bool, typer.Option("--host", help="Look at this host, too, though it has no nvidia-smi.")] = False,
    only: Annotated[list[Group] | None, typer.Option(metavar="GROUP", help=f"{', '.join(Group)}; repeatable.")] = None,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Check cluster, graph, metrics, profiles and this host. Exit code 1 when something failed, 3 when nothing answers.

    Without --config it looks at the cluster and at this host alone.
    """
    from planner.doctor.run import NEEDS_CONFIG, examine
    from planner.doctor.table import as_json, as_table

    chosen = list(dict.fromkeys(only or ()))
    missing = [group.value for group in chosen if group in NEEDS_CONFIG and config is None]
    if missing:
        right = "--config planner.yaml beside it"
        raise InputError(f"{missing[0]} is about a configuration", expected=right, field="--only")
    scene, groups = _scene(config, kubeconfig, context, namespace, chosen, host=host)
    report = examine(scene, groups)
    if scene.cluster is not None:
        scene.cluster.close()
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(report), indent=2))
    else:
        console.stdout.print(as_table(report, console.stdout.width))
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _scene(
    path: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    chosen: list[Group],
    *,
    host: bool,
) -> tuple[Scene, list[Group]]:
    """What is looked at, and which groups of checks are about it."""
    from planner.doctor.run import NEEDS_CLUSTER, NEEDS_CONFIG
    from planner.doctor.scene import Scene

    config = _configuration(path, kubeconfig, context, namespace) if path is not None else None
    named = kubeconfig is not None or context is not None
    on_cluster = config is None or config.connector.kind == "kubernetes" or config.connector.kubernetes is not None
    groups = chosen
    if not groups:
        here = host or shutil.which("nvidia-smi") is not None
        groups = [
            group
            for group in Group
            if (group is not Group.HOST or here)
            and (group not in NEEDS_CONFIG or config is not None)
            and (group not in NEEDS_CLUSTER or on_cluster or (named and group not in NEEDS_CONFIG))
        ]
    elif host and Group.HOST not in groups:
        groups = [*groups, Group.HOST]
    scene = Scene(config=config, path=path or Path(), on_kubernetes=on_cluster)
    if any(group is not Group.HOST for group in groups) and (on_cluster or named):
        _connect(scene, kubeconfig, context, namespace, must=named)
    return scene, [group for group in Group if group in groups]


def _configuration(path: Path, kubeconfig: Path | None, context: str | None, namespace: str | None) -> ServiceConfig:
    """The configuration with the command line's cluster in it, so that all checks ask the same one."""
    from planner.connectors.kubernetes.settings import KubernetesSettings
    from planner.service.load import load_config

    config = load_config(path)
    connector = config.connector
    if connector.kind != "kubernetes" and connector.kubernetes is None:
        return config
    options = {"kubeconfig": kubeconfig and kubeconfig.resolve(), "context": context, "namespace": namespace}
    given = {name: value for name, value in options.items() if value is not None}
    section: KubernetesSettings = (connector.kubernetes or KubernetesSettings()).model_copy(update=given)
    return config.model_copy(update={"connector": connector.model_copy(update={"kubernetes": section})})


def _connect(scene: Scene, kubeconfig: Path | None, context: str | None, namespace: str | None, *, must: bool) -> None:
    """Give the scene its cluster, or why there is none.

    Raises:
        InputError: there is none, and the command line or the configuration names one.
    """
    from planner.connectors.kubernetes.cluster import Cluster

    settings = scene.config.connector.kubernetes if scene.config is not None else None
    if settings is not None:
        kubeconfig = kubeconfig or settings.kubeconfig
        context, namespace = context or settings.context, namespace or settings.namespace
        must = must or settings.kubeconfig is not None or settings.context is not None
    try:
        scene.cluster = Cluster(
            namespace, kubeconfig=kubeconfig, context=context, timeout_s=settings.timeout_s if settings else 5.0
        )
    except InputError as error:
        if must:
            raise
        scene.no_cluster = str(error)
