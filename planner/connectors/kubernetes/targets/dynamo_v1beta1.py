"""DynamoGraphDeployment v1beta1: `spec.components`, a list whose entries have names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.connectors.kubernetes.resources import DYNAMO_GRAPHS_V1BETA1
from planner.connectors.kubernetes.targets.dynamo_component import (
    Component,
    gpus_of_status,
    rolling_of,
    runs_dynamos_planner,
)
from planner.connectors.kubernetes.targets.lookup import role_of
from planner.connectors.kubernetes.targets.pods import gpus_of, layout_in

RESOURCE = DYNAMO_GRAPHS_V1BETA1

#: Pod label of what v1alpha1 calls subComponentType; objects that came from there carry it in their pod template.
SUB_TYPE = "nvidia.com/dynamo-sub-component-type"

_Object = Mapping[str, Any]


def components(thing: _Object) -> list[Component]:
    """The components of a graph."""
    return [_component(thing, one) for one in thing["spec"].get("components") or ()]


def patch(thing: _Object, replicas: Mapping[str, int], version: str) -> list[dict[str, Any]]:
    """A JSON patch that sets replicas by component, all or none; refused when the object has changed since.

    A merge patch would replace the whole list, with whatever somebody else has changed in it since. The places in the
    list are those of the object that was seen, and setting its resource version makes the patch fail (409) on any
    other.
    """
    places = {str(one["name"]): place for place, one in enumerate(thing["spec"]["components"])}
    guard = {"op": "replace", "path": "/metadata/resourceVersion", "value": version}
    # `add` on a member that is there replaces it.
    changes = [
        {"op": "add", "path": f"/spec/components/{places[name]}/replicas", "value": wanted}
        for name, wanted in replicas.items()
    ]
    return [guard, *changes]


def _component(thing: _Object, one: _Object) -> Component:
    name = str(one["name"])
    desired = int(one.get("replicas", 1))
    nodes = int((one.get("multinode") or {}).get("nodeCount", 1))
    template = one.get("podTemplate") or {}
    meta = template.get("metadata") or {}
    labels = dict(meta.get("labels") or {})
    kind = str(one.get("type") or "")
    gpus = gpus_of_status(thing, "components", name)
    if gpus is None:
        per_node = gpus_of(template.get("spec") or {})
        gpus = None if per_node is None else per_node * nodes
    return Component(
        name=name,
        kind=kind,
        role=role_of(kind) or role_of(labels.get(SUB_TYPE)),
        desired=desired,
        nodes=nodes,
        gpus=gpus,
        layout=layout_in(template),
        # An empty object turns it on: `scalingAdapter: {}`.
        adapter=one.get("scalingAdapter") is not None,
        least=int(one.get("minAvailable") or 1),
        path=("f:spec", "f:components", f'k:{{"name":"{name}"}}', "f:replicas"),
        labels=labels,
        rolling=rolling_of(thing["spec"].get("annotations"), meta.get("annotations")),
        plans=desired > 0 and any(map(runs_dynamos_planner, (template.get("spec") or {}).get("containers") or ())),
        together=_group_of(thing, name),
    )


def _group_of(thing: _Object, name: str) -> str:
    """Name of the component group that has replicas in place of the component's own; empty for none."""
    for group in (thing["spec"].get("experimental") or {}).get("componentGroups") or ():
        if any(one.get("name") == name for one in group.get("components") or ()):
            return str(group["name"])
    return ""
