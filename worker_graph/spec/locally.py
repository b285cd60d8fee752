"""What of a graph this machine cannot do, or does in its own way: nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from profiler.yamlfile import Place
from worker_graph.spec.graph import Component, GraphSpec, Kind
from worker_graph.spec.node import Node


class Severity(StrEnum):
    """Whether the graph can be run here all the same."""

    ERROR = "error"
    NOTE = "note"


class Unsupported(NamedTuple):
    """One field of the file that means something else on this machine, or nothing.

    Attributes:
        place: keys that lead to it.
        line: in the file, counted from 1; None where it is not known.
        why: what happens here, for people.
        severity: an error keeps the graph from running here, a note is to be known.
    """

    place: Place
    line: int | None
    why: str
    severity: Severity


#: (severity, why) by field; None for fields that are read.
_Rules = Mapping[str, tuple[Severity, str] | None]

_ERROR, _NOTE = Severity.ERROR, Severity.NOTE
_CLUSTER = (_NOTE, "is for the cluster; not used on this machine")
_PROBE = (_NOTE, "is for the cluster; here a worker is ready when its server says so")
_SCALER = (_NOTE, "is for the cluster; here the planner sets the counts itself")
_SIDECAR = (_ERROR, "is not started on this machine; only main containers are")

_SPEC: _Rules = {
    "services": None, "components": None, "envs": None, "env": None, "backendFramework": None,
    "pvcs": (_NOTE, "claims no volume on this machine; what mounts it says so"),
}  # fmt: skip
_COMPONENT: _Rules = {
    "name": None, "componentType": None, "type": None, "subComponentType": None, "replicas": None, "envs": None,
    "dynamoNamespace": None, "globalDynamoNamespace": None, "serviceName": None, "resources": None,
    "extraPodSpec": None, "podTemplate": None, "volumeMounts": None, "multinode": None, "envFromSecret": None,
    "livenessProbe": _PROBE, "readinessProbe": _PROBE, "autoscaling": _SCALER, "scalingAdapter": _SCALER,
}  # fmt: skip
_POD: _Rules = {"mainContainer": None, "volumes": None, "containers": None, "initContainers": _SIDECAR}
_CONTAINER: _Rules = {
    "name": None, "command": None, "args": None, "env": None, "workingDir": None, "resources": None, "envFrom": None,
    "volumeMounts": None, "livenessProbe": _PROBE, "readinessProbe": _PROBE, "startupProbe": _PROBE,
    "image": (_NOTE, "is not pulled; the programs of this machine are used"),
}  # fmt: skip


def unsupported_locally(spec: GraphSpec) -> list[Unsupported]:
    """Every field that this machine cannot honour, in the file's order.

    Errors are what would make the graph another one: replicas over several nodes, containers beside the main one,
    folders that are mounted and not here, variables from ConfigMaps, components that are no part of serving. Everything
    else that is not used here is a note. Whether a mounted folder exists is looked up.
    """
    root = Node(spec.document, (), spec.raw)
    graph = root.get("spec")
    found = list(_by_rules(graph, _SPEC)) if graph is not None else []
    for component in spec.components:
        node = Node(spec.document, component.place, _at(spec.raw, component.place))
        found += _component(component, node)
    return sorted(found, key=lambda each: each.line or 0)


def _at(value: object, place: Place) -> object:
    for key in place:
        value = value[key]  # type: ignore[index]
    return value


def _report(node: Node, why: str, severity: Severity) -> Unsupported:
    return Unsupported(node.place, node.document.line_of(node.place), why, severity)


def _by_rules(node: Node, rules: _Rules) -> Iterator[Unsupported]:
    """The fields of a mapping that are not read, each with its reason."""
    for key, below in node.items():
        rule = rules.get(key, _CLUSTER)
        if rule is not None and below.value is not None:
            yield _report(below, rule[1], rule[0])


def _component(component: Component, node: Node) -> Iterator[Unsupported]:
    if component.kind is Kind.OTHER:
        yield _report(node, "is neither frontend, worker nor planner; it is not started on this machine", _ERROR)
        return
    if component.kind is Kind.PLANNER:
        yield _report(node, "is not started with the graph; run its command beside it", _NOTE)
        return
    yield from _by_rules(node, _COMPONENT)
    if component.nodes > 1 and (multinode := node.get("multinode")) is not None:
        yield _report(multinode, f"spans {component.nodes} nodes; this machine is one", _ERROR)
    if (secret := node.get("envFromSecret")) is not None:
        yield _report(secret, "is not read; its variables are taken from your environment", _NOTE)
    yield from _mounts(node)
    yield from _resources(node)
    template = node.get("podTemplate")
    if template is not None:
        yield from _by_rules(template, {"spec": None})
    pod = node.get("extraPodSpec") or (template.get("spec") if template is not None else None)
    if pod is None:
        return
    yield from _by_rules(pod, _POD)
    main = pod.get("mainContainer")
    for container in pod.below("containers"):
        if container.place == component.container:
            main = container
        else:
            yield _report(container, _SIDECAR[1], _SIDECAR[0])
    if main is not None:
        yield from _container(component, main)


def _container(component: Component, main: Node) -> Iterator[Unsupported]:
    yield from _by_rules(main, _CONTAINER)
    yield from _mounts(main)
    yield from _resources(main)
    folder = main.get("workingDir")
    if folder is not None and not Path(folder.text()).is_dir():
        yield _report(folder, "does not exist on this machine; the present folder is used", _NOTE)
    command = main.get("command") or main.get("args")
    if component.kind is Kind.FRONTEND and command is not None:
        yield _report(command, "is not run; this machine's own gateway is started instead", _NOTE)
    for variable in main.below("env"):
        if variable.get("valueFrom") is not None:
            yield _report(variable, "is not read; the variable is taken from your environment", _NOTE)
    for source in main.below("envFrom"):
        if source.get("secretRef") is not None:
            yield _report(source, "is not read; its variables are taken from your environment", _NOTE)
        else:
            yield _report(source, "is not read on this machine; write its variables as env", _ERROR)


def _resources(node: Node) -> Iterator[Unsupported]:
    resources = node.get("resources")
    for part in ("claims", "custom"):
        if resources is not None and (claims := resources.get(part)) is not None:
            yield _report(claims, "is for the cluster; give GPUs as a limit", _ERROR)
    for part in ("limits", "requests"):
        amounts = resources.get(part) if resources is not None else None
        for name, amount in amounts.items() if amounts is not None else ():
            if "gpu" not in name:
                yield _report(amount, "is not enforced on this machine", _NOTE)


def _mounts(node: Node) -> Iterator[Unsupported]:
    """Folders that the file mounts; the key of the path differs between a component's and a container's."""
    for mount in node.below("volumeMounts"):
        path = mount.get("mountPath") or mount.get("mountPoint")
        where = path.text() if path is not None else ""
        if where and Path(where).exists():
            yield _report(mount, f"is not mounted; {where} of this machine is used", _NOTE)
        elif where:
            yield _report(mount, f"cannot be mounted, and {where} does not exist on this machine", _ERROR)
        else:
            yield _report(mount, "names no folder; nothing is mounted on this machine", _NOTE)
