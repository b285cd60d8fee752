"""What a component's file says about its pods, carried over; what no target can do is an error, never dropped."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

from worker_graph.kubernetes.names import CONTAINER_FIELDS, POD_FIELDS
from worker_graph.kubernetes.podfields import PodFields, only
from worker_graph.kubernetes.volumes import add_volumes
from worker_graph.spec import Component, GraphSpec
from worker_graph.spec.containers import GPU_RESOURCES
from worker_graph.spec.node import Node, suggestion

NVIDIA_GPU: Final = "nvidia.com/gpu"

#: Read elsewhere, from `GraphSpec` and `Component`.
_READ: Final = frozenset(
    {
        "name", "componentType", "type", "subComponentType", "replicas", "multinode", "envs", "envFromSecret",
        "resources", "extraPodSpec", "podTemplate", "extraPodMetadata", "volumeMounts", "sharedMemory",
        "sharedMemorySize", "compilationCache", "labels", "annotations", "livenessProbe", "readinessProbe",
    }
)  # fmt: skip
_SPEC_READ: Final = frozenset(
    {"services", "components", "envs", "env", "backendFramework", "pvcs", "labels", "annotations"}
)
#: Said to the user, for it means nothing without Dynamo's operator.
_NOTED: Final = {
    "dynamoNamespace": "names Dynamo's own discovery; labels and the Kubernetes namespace take its place",
    "globalDynamoNamespace": "names Dynamo's own discovery; labels and the Kubernetes namespace take its place",
    "serviceName": "names Dynamo's own discovery; labels and the Kubernetes namespace take its place",
    "scalingAdapter": "is Dynamo's; the object that is rendered has a scale of its own",
    "autoscaling": "is ignored, as by Dynamo's operator; the planner sets the counts",
}


def pod_fields(spec: GraphSpec, component: Component) -> PodFields:
    """Read them.

    Raises:
        InputError: a field that is unknown, or that the rendered objects cannot honour; names it and its line.
    """
    root = Node(spec.document, (), spec.raw)
    graph = root.get("spec")
    if graph is None:
        raise AssertionError("a graph that was read has a spec")
    node = Node(spec.document, component.place, _at(spec.raw, component.place))
    found = PodFields()
    only(graph, _SPEC_READ, lambda below, _: below.error("cannot be honoured without Dynamo's operator"))
    _check_component(component, node, found)
    _metadata(graph, node, found)
    main = _pod_and_containers(node, found)
    _merge_resources(node.get("resources"), main, found)
    _merge_probes(node, found)
    _variables(component, graph, node, main, found)
    add_volumes(graph, node, found)
    return found


def _at(value: Any, place: Iterable[int | str]) -> Any:
    for key in place:
        value = value[key]
    return value


def _check_component(component: Component, node: Node, found: PodFields) -> None:
    for key, why in _NOTED.items():
        if node.get(key) is not None:
            found.notes.append(f"{component.name}.{key} {why}")
    known = {*_READ, *_NOTED}
    only(
        node,
        known,
        lambda below, key: below.error(f"cannot be honoured without Dynamo's operator{suggestion(key, known)}"),
    )


def _metadata(graph: Node, node: Node, found: PodFields) -> None:
    """Labels and annotations of the graph, the component, its pods; later ones win."""
    template = node.get("podTemplate")
    if template is not None:
        only(template, {"metadata", "spec"}, lambda below, _: below.error("is no field of a pod's template"))
    for holder in (graph, node, node.get("extraPodMetadata"), template.get("metadata") if template else None):
        if holder is None:
            continue
        for kind, into in (("labels", found.labels), ("annotations", found.annotations)):
            values = holder.get(kind)
            into.update({key: below.text() for key, below in values.items()} if values is not None else {})
    metadata = template.get("metadata") if template is not None else None
    for holder in (metadata, node.get("extraPodMetadata")):
        if holder is not None:
            only(
                holder, {"labels", "annotations"}, lambda below, _: below.error("is no field of a pod's metadata here")
            )


def _pod_and_containers(node: Node, found: PodFields) -> Node | None:
    """The main container, with the pod's other fields and containers put away."""
    template = node.get("podTemplate")
    pod = node.get("extraPodSpec") or (template.get("spec") if template is not None else None)
    if pod is None:
        return None
    main = pod.get("mainContainer")
    known = POD_FIELDS | ({"mainContainer"} if node.get("extraPodSpec") is not None else set())
    only(pod, known, lambda below, key: below.error(f"is no field of a pod{suggestion(key, known)}"))
    for container in pod.below("containers"):
        if main is None and container.mapping().get("name") == "main":
            main = container
        else:
            found.sidecars.append(copy.deepcopy(dict(container.mapping())))
    skipped = {"containers", "mainContainer"}
    found.pod = {
        key: copy.deepcopy(below.value) for key, below in pod.items() if key not in skipped and below.value is not None
    }
    if found.pod.get("restartPolicy", "Always") != "Always":
        raise pod.error(
            f"has restartPolicy {found.pod['restartPolicy']!r}", "Always: the pods serve until they are asked to leave"
        )
    if main is not None:
        only(
            main,
            CONTAINER_FIELDS,
            lambda below, key: below.error(f"is no field of a container{suggestion(key, CONTAINER_FIELDS)}"),
        )
        own = {"name", "image", "command", "args", "env", "envFrom"}
        found.main = {
            key: copy.deepcopy(below.value) for key, below in main.items() if key not in own and below.value is not None
        }
    return main


def _merge_resources(component: Node | None, main: Node | None, found: PodFields) -> None:
    """Of v1alpha1's component, in Kubernetes' words; what the container itself says wins."""
    merged: dict[str, Any] = {}
    if component is not None:
        only(component, {"limits", "requests", "claims"}, lambda below, _: below.error("is no field of resources"))
        for part in ("limits", "requests"):
            amounts = component.get(part)
            if amounts is not None:
                merged[part] = _amounts(amounts)
        if (claims := component.get("claims")) is not None:
            merged["claims"] = copy.deepcopy(claims.value)
    own = found.main.get("resources") or {}
    for part, values in own.items():
        if isinstance(values, dict):
            merged[part] = {**merged.get(part, {}), **{key: str(value) for key, value in values.items()}}
        else:
            merged[part] = values
    # Device plugins take limits; a request alone is none.
    for part, other in (("limits", "requests"), ("requests", "limits")):
        for key, value in merged.get(part, {}).items() if isinstance(merged.get(part), dict) else ():
            if key in GPU_RESOURCES and part == "requests":
                merged.setdefault(other, {}).setdefault(key, value)
    if "gpu" in merged.get("limits", {}) and main is not None:
        raise main.error("has a resource 'gpu'", f"{NVIDIA_GPU} in a container's resources")
    if merged:
        found.main["resources"] = merged


def _amounts(amounts: Node) -> dict[str, str]:
    known = {"cpu", "memory", "gpu", "gpuType", "custom"}
    made: dict[str, str] = {}
    kind = amounts.get("gpuType")
    for key, below in amounts.items():
        if below.value is None or key == "gpuType":
            continue
        if key == "custom":
            made |= {name: str(each.value) for name, each in below.items()}
        elif key == "gpu":
            made[kind.text() if kind is not None else NVIDIA_GPU] = str(below.quantity())
        elif key in known or "/" in key or key == "ephemeral-storage":
            made[key] = str(below.value)
        else:
            raise below.error(f"is no resource{suggestion(key, known)}", "cpu, memory, gpu, gpuType or custom")
    return made


def _merge_probes(node: Node, found: PodFields) -> None:
    for key in ("livenessProbe", "readinessProbe"):
        probe = node.get(key)
        if probe is not None:
            found.main.setdefault(key, copy.deepcopy(probe.value))


def _variables(component: Component, graph: Node, node: Node, main: Node | None, found: PodFields) -> None:
    """Those whose value `Component` cannot hold, the last of each name."""
    holders = [graph.get("envs"), graph.get("env"), node.get("envs"), main.get("env") if main is not None else None]
    last: dict[str, dict[str, Any]] = {}
    for holder in holders:
        for entry in holder.entries() if holder is not None else ():
            last[str(entry.mapping().get("name"))] = copy.deepcopy(dict(entry.mapping()))
    found.variables = [last[name] for name in component.env_elsewhere]
    secret = node.get("envFromSecret")
    if secret is not None:
        found.env_from.append({"secretRef": {"name": secret.text()}})
    for entry in main.below("envFrom") if main is not None else ():
        if entry.value not in found.env_from:
            found.env_from.append(copy.deepcopy(entry.value))
