"""DynamoGraphDeployment v1alpha1: `spec.services`, a map by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.connectors.kubernetes.resources import DYNAMO_GRAPHS_V1ALPHA1
from planner.connectors.kubernetes.targets.dynamo_component import (
    Component,
    gpus_of_status,
    rolling_of,
    runs_dynamos_planner,
)
from planner.connectors.kubernetes.targets.lookup import role_of
from planner.connectors.kubernetes.targets.pods import gpus_in, gpus_of, layout_in

RESOURCE = DYNAMO_GRAPHS_V1ALPHA1

_Object = Mapping[str, Any]


def components(thing: _Object) -> list[Component]:
    """The services of a graph."""
    return [_component(thing, name, one or {}) for name, one in (thing["spec"].get("services") or {}).items()]


def patch(thing: _Object, replicas: Mapping[str, int], version: str) -> dict[str, Any]:  # noqa: ARG001 - as v1beta1
    """A merge patch that sets replicas by component, all or none; refused when the object has changed since."""
    services = {name: {"replicas": wanted} for name, wanted in replicas.items()}
    return {"metadata": {"resourceVersion": version}, "spec": {"services": services}}


def _component(thing: _Object, name: str, one: _Object) -> Component:
    desired = int(one.get("replicas", 1))
    nodes = int((one.get("multinode") or {}).get("nodeCount", 1))
    kind, sub_kind = str(one.get("componentType") or ""), one.get("subComponentType")
    extra = one.get("extraPodSpec") or {}
    main = extra.get("mainContainer") or {}
    more = one.get("extraPodMetadata") or {}
    labels = {**(one.get("labels") or {}), **(more.get("labels") or {})}
    gpus = gpus_of_status(thing, "services", name)
    if gpus is None:
        gpus = _gpus(one, main, extra)
        gpus = None if gpus is None else gpus * nodes
    return Component(
        name=name,
        kind=kind,
        role=role_of(sub_kind),
        desired=desired,
        nodes=nodes,
        gpus=gpus,
        layout=layout_in({"metadata": {"labels": labels}, "spec": {"containers": [main]}}),
        adapter=bool((one.get("scalingAdapter") or {}).get("enabled")),
        least=1,
        path=("f:spec", "f:services", f"f:{name}", "f:replicas"),
        labels=labels,
        rolling=rolling_of(thing["spec"].get("annotations"), one.get("annotations"), more.get("annotations")),
        plans=desired > 0 and runs_dynamos_planner(main),
    )


def _gpus(one: _Object, main: _Object, extra: _Object) -> int | None:
    """GPUs of one node: those of the service, which the operator gives to the main container, else its own."""
    own = gpus_in(one.get("resources") or {})
    return own or gpus_of({**extra, "containers": [main, *(extra.get("containers") or ())]})
