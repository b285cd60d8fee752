"""The layout of one component of a DynamoGraphDeployment. Pure: the graph in, the patch out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from planner.connectors.kubernetes.resources import DYNAMO_GRAPHS_V1ALPHA1, DYNAMO_GRAPHS_V1BETA1, Resource
from planner.connectors.kubernetes.targets.pods import gpus_in
from profiler.errors import InputError
from worker_graph.kubernetes import labels as names
from worker_graph.kubernetes.relayout import relayout

GRAPHS: Final = (DYNAMO_GRAPHS_V1BETA1, DYNAMO_GRAPHS_V1ALPHA1)

_Object = dict[str, Any]


def relayout_patch(
    thing: Mapping[str, Any], resource: Resource, component: str, tp: int, dp: int
) -> tuple[_Object | list[_Object], int]:
    """A patch that changes arguments and resources of a component in one write, and the GPUs of a worker after it.

    A merge patch of `spec.services` for v1alpha1, a JSON patch of `spec.components` for v1beta1. Both are refused when
    the graph has changed since it was read.

    Args:
        thing: the graph as it was read.
        resource: its kind, in the version in which it was read.
        component: name.
        tp: tensor-parallel size.
        dp: data-parallel size.

    Raises:
        InputError: its arguments cannot be changed, or its workers span several nodes.
    """
    version = thing["metadata"]["resourceVersion"]
    if resource == DYNAMO_GRAPHS_V1ALPHA1:
        service = thing["spec"]["services"][component]
        _one_node(service, component)
        main = {**((service.get("extraPodSpec") or {}).get("mainContainer") or {}), "name": component}
        own = service.get("resources")
        # The operator gives the service's resources to the main container.
        made = relayout({**main, "resources": own} if own else main, tp, dp)
        resources = made.get("resources") or {}
        container: _Object = {key: made[key] for key in ("command", "args") if key in made}
        if not own and resources:
            container["resources"] = resources
        change: _Object = {"extraPodSpec": {"mainContainer": container}}
        if own:
            change["resources"] = resources
        if names.LAYOUT in (service.get("labels") or {}):
            change["labels"] = {names.LAYOUT: names.layout(tp, dp)}
        body = {"metadata": {"resourceVersion": version}, "spec": {"services": {component: change}}}
        return body, gpus_in(resources)
    place, found = next(
        (place, one) for place, one in enumerate(thing["spec"]["components"]) if one["name"] == component
    )
    _one_node(found, component)
    template = found.get("podTemplate") or {}
    containers = (template.get("spec") or {}).get("containers") or []
    at = _engine(containers, component)
    made = relayout(containers[at], tp, dp)
    path = f"/spec/components/{place}/podTemplate"
    patch: list[_Object] = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        {"op": "test", "path": f"/spec/components/{place}/name", "value": component},
        {"op": "replace", "path": f"{path}/spec/containers/{at}", "value": made},
    ]
    if names.LAYOUT in ((template.get("metadata") or {}).get("labels") or {}):
        key = names.LAYOUT.replace("~", "~0").replace("/", "~1")
        patch.append({"op": "replace", "path": f"{path}/metadata/labels/{key}", "value": names.layout(tp, dp)})
    return patch, gpus_in(made.get("resources") or {})


def _one_node(one: Mapping[str, Any], component: str) -> None:
    nodes = int((one.get("multinode") or {}).get("nodeCount", 1))
    if nodes > 1:
        raise InputError(
            f"has workers of {nodes} nodes", expected="workers of one node, to change their layout", field=component
        )


def _engine(containers: Sequence[Mapping[str, Any]], component: str) -> int:
    found = [i for i, one in enumerate(containers) if one.get("name") == names.MAIN_CONTAINER]
    found = found or list(range(len(containers)))
    if len(found) != 1:
        raise InputError(
            f"has no container {names.MAIN_CONTAINER}", expected="one that runs the engine", field=component
        )
    return found[0]
