"""A graph as the objects of a target."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from profiler.errors import InputError
from worker_graph.kubernetes import drain, workers
from worker_graph.kubernetes.convert import convert
from worker_graph.kubernetes.fields import pod_fields
from worker_graph.kubernetes.gateway import gateway_around, gateway_labels, gateway_objects, gateway_template
from worker_graph.kubernetes.labels import GRAPH, PART_OF, object_name
from worker_graph.kubernetes.options import RenderOptions, Target
from worker_graph.kubernetes.pod import Worker, read_worker
from worker_graph.kubernetes.podfields import PodFields
from worker_graph.kubernetes.security import container_security, pod_security
from worker_graph.local.gateway import routing_of
from worker_graph.spec import Component, GraphSpec, Kind, Role

#: Grove's pods are named after set, scaling group and clique, which must fit in a pod's name.
GROVE_NAMES: Final = 45

#: Core kinds beside the graph in its file that live in a namespace.
_NAMESPACED: Final = frozenset({"ConfigMap", "Secret", "Service", "ServiceAccount", "PersistentVolumeClaim"})


@dataclass(frozen=True)
class Rendering:
    """Objects, and what is done otherwise than the file says, for people."""

    objects: list[dict[str, Any]]
    notes: list[str]


def render(graph: GraphSpec, target: Target, options: RenderOptions | None = None) -> list[dict[str, Any]]:
    """The objects of a graph on a target; see `render_with_notes`."""
    return render_with_notes(graph, target, options).objects


def render_with_notes(graph: GraphSpec, target: Target, options: RenderOptions | None = None) -> Rendering:
    """The objects of a graph on a target, in the order in which they are to be made.

    The same graph and options give the same objects, to the letter. Other documents of the graph's file come first.

    Raises:
        InputError: a field of the graph that the target cannot honour; names it and its line.
    """
    options = options or RenderOptions()
    if target is Target.DYNAMO:
        return Rendering(_dynamo(graph, options), [])
    if options.api_version is not None:
        raise InputError("is for the target dynamo", expected=f"none with {target.value}", field="--api-version")
    options = replace(options, namespace=options.namespace or graph.namespace or "default")
    routing = routing_of(graph)
    found = _Parts([], [], {}, [])
    for component in graph:
        if component.kind is Kind.OTHER:
            raise component.error("is neither frontend, worker nor planner", expected="--target dynamo")
        fields = pod_fields(graph, component)
        found.fields[component.name] = fields
        found.notes += fields.notes
        found.claims += fields.claims
        if component.kind is Kind.WORKER:
            worker = read_worker(graph, component, fields, options, kv_routing=routing == "kv")
            found.workers.append(worker)
            found.notes += _notes(worker)
    longest = max(_longest(worker) for worker in found.workers)
    if target is Target.GROVE:
        objects = _grove(graph, found, options, routing=routing, longest_s=longest)
    else:
        objects = _deployments(graph, found, options, target, routing=routing, longest_s=longest)
    others = [_other(graph, each, options) for each in graph.others]
    for one in objects:
        one["metadata"] = {"name": one["metadata"]["name"], "namespace": options.namespace, **one["metadata"]}
    return Rendering([*others, *objects], found.notes)


@dataclass
class _Parts:
    """What was read of a graph."""

    workers: list[Worker]
    notes: list[str]
    fields: dict[str, PodFields]
    claims: list[dict[str, Any]]


def _longest(worker: Worker) -> float:
    """Seconds that a request stays with a worker at most."""
    decode = 0.0 if worker.role is Role.PREFILL else drain.longest_decode_s(worker.arguments, worker.options)
    return drain.PREFILL_S + decode


def _notes(worker: Worker) -> list[str]:
    """What people should know of a worker."""
    name, fields = worker.component.name, worker.fields
    found = [f"{name}: {note}" for note in worker.command.notes]
    grace = fields.pod.get("terminationGracePeriodSeconds")
    needed = worker.drain_limit_s + drain.STOP_S
    if isinstance(grace, int) and grace < needed:
        found.append(
            f"{name}: terminationGracePeriodSeconds is {grace}; the longest answer and its drain take {needed}"
        )
    if "preStop" in fields.main.get("lifecycle", {}):
        found.append(f"{name}: the file's own preStop is kept; it must wait for the requests that run")
    return found


def _claims(found: _Parts) -> list[dict[str, Any]]:
    """Each once, whoever mounts it."""
    return list({claim["metadata"]["name"]: copy.deepcopy(claim) for claim in found.claims}.values())


def _deployments(
    graph: GraphSpec, found: _Parts, options: RenderOptions, target: Target, *, routing: str, longest_s: float
) -> list[dict[str, Any]]:
    objects = _claims(found)
    by_name = {worker.component.name: worker for worker in found.workers}
    for component in graph:
        fields = found.fields[component.name]
        if component.kind is Kind.FRONTEND:
            _one_node(component)
            objects += gateway_objects(graph, component, fields, options, routing=routing, longest_s=longest_s)
        elif component.kind is Kind.PLANNER:
            objects.append(planner_deployment(graph, component, fields))
        else:
            worker = by_name[component.name]
            objects.append(workers.disruption_budget(worker))
            if target is Target.LWS and (component.nodes > 1 or options.groups_for_all):
                # Its controller makes the headless Service.
                objects.append(workers.leader_worker_set(worker))
            else:
                objects += [workers.headless_service(worker), workers.deployment(worker)]
    return objects


def _grove(
    graph: GraphSpec, found: _Parts, options: RenderOptions, *, routing: str, longest_s: float
) -> list[dict[str, Any]]:
    objects, members, groups = _claims(found), [], []
    by_name = {worker.component.name: worker for worker in found.workers}
    for component in graph:
        fields = found.fields[component.name]
        if component.kind is Kind.FRONTEND:
            _one_node(component)
            objects += gateway_around(graph, component, fields, options)
            pod = gateway_template(graph, component, fields, options, routing=routing, longest_s=longest_s)
            labels = gateway_labels(graph, component, fields)
            members.append(workers.clique(component.name.lower(), labels, component.replicas, 1, pod))
        elif component.kind is Kind.PLANNER:
            objects.append(planner_deployment(graph, component, fields))
        else:
            worker = by_name[component.name]
            objects.append(workers.disruption_budget(worker))
            made, group = workers.cliques(worker)
            members += made
            groups += [group] if group is not None else []
            _grove_name(graph, component, [one["name"] for one in made], group)
    template: dict[str, Any] = {
        "cliqueStartupType": "CliqueStartupTypeAnyOrder",
        "headlessServiceConfig": {"publishNotReadyAddresses": True},
        "cliques": members,
        **({"podCliqueScalingGroups": groups} if groups else {}),
    }
    objects.append(
        {
            "apiVersion": "grove.io/v1alpha1",
            "kind": "PodCliqueSet",
            "metadata": {"name": graph.name, "labels": {GRAPH: graph.name, "app.kubernetes.io/part-of": PART_OF}},
            "spec": {"replicas": 1, "template": template},
        }
    )
    return objects


def _grove_name(graph: GraphSpec, component: Component, names: Iterable[str], group: Mapping[str, Any] | None) -> None:
    length = len(graph.name) + (len(group["name"]) if group else 0) + max(map(len, names))
    if length > GROVE_NAMES:
        raise component.error(
            f"makes names of {length} characters with the graph's ({graph.name})",
            expected=f"shorter names of graph and component: Grove's pods leave room for {GROVE_NAMES}",
        )


def _one_node(component: Component) -> None:
    if component.nodes > 1:
        raise component.error(f"spans {component.nodes} nodes", "multinode", expected="a gateway of one node")


def planner_deployment(graph: GraphSpec, component: Component, fields: PodFields) -> dict[str, Any]:
    """The graph's planner, as the file has it; its account and rights are those of the planner's own manifests."""
    labels = {
        **fields.labels,
        "app.kubernetes.io/name": object_name(graph.name, component.name),
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/component": "planner",
        "app.kubernetes.io/managed-by": PART_OF,
        GRAPH: graph.name,
    }
    if component.image is None:
        raise component.error("has no image", expected="the image that runs the planner")
    own, pod = copy.deepcopy(fields.main), copy.deepcopy(fields.pod)
    env = [*copy.deepcopy(fields.variables), *({"name": name, "value": value} for name, value in component.env.items())]
    container = {
        "name": "main",
        "image": component.image,
        **({"command": list(component.command)} if component.command else {}),
        **({"args": list(component.args)} if component.args else {}),
        **({"env": env} if env else {}),
        **({"envFrom": copy.deepcopy(fields.env_from)} if fields.env_from else {}),
        "securityContext": container_security(own.pop("securityContext", None)),
        **own,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": object_name(graph.name, component.name), "labels": labels},
        "spec": {
            "replicas": component.replicas,
            "selector": {"matchLabels": {GRAPH: graph.name, "app.kubernetes.io/component": "planner"}},
            "template": {
                "metadata": {
                    "labels": labels,
                    **({"annotations": dict(fields.annotations)} if fields.annotations else {}),
                },
                "spec": {
                    "serviceAccountName": "plimsoll-planner",
                    **pod,
                    "securityContext": pod_security(pod.get("securityContext")),
                    "containers": [container, *copy.deepcopy(fields.sidecars)],
                },
            },
        },
    }


def _other(graph: GraphSpec, document: Any, options: RenderOptions) -> dict[str, Any]:
    """Another document of the file, in the same namespace."""
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict) or "kind" not in document:
        raise InputError("holds a document that is no Kubernetes object", source=graph.source)
    made = copy.deepcopy(document)
    if made["kind"] in _NAMESPACED:
        made["metadata"].setdefault("namespace", options.namespace)
    return made


def _dynamo(graph: GraphSpec, options: RenderOptions) -> list[dict[str, Any]]:
    made = convert(graph, options.api_version)
    if options.namespace is not None:
        made["metadata"]["namespace"] = options.namespace
    return [*(copy.deepcopy(each) for each in graph.others), made]
