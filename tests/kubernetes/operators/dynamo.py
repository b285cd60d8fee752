"""What the Dynamo operator does, as far as a planner sees it.

Every service (v1alpha1) or component (v1beta1) of a graph becomes a Deployment, or a LeaderWorkerSet where it spans
nodes, with the operator's names and labels, and its counts come back into the graph's status. Where the scaling adapter
is on, an object of that kind stands for the component's replicas: what is written into its scale is written into the
graph, and what others write into the graph is put back. A changed template is rolled out by its Deployment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tests.kubernetes.api import Api, Object, unless
from tests.kubernetes.operators.base import Operator, Watched, condition, digest, gpus, owner
from tests.kubernetes.statuses import now

DEPLOYMENTS = "/apis/apps/v1/deployments"
LEADER_WORKER_SETS = "/apis/leaderworkerset.x-k8s.io/v1/leaderworkersets"
ADAPTERS = "/apis/nvidia.com/v1alpha1/dynamographdeploymentscalingadapters"
GRAPHS = "/apis/nvidia.com/{}/dynamographdeployments"

GRAPH, COMPONENT = "nvidia.com/dynamo-graph-deployment-name", "nvidia.com/dynamo-component"
TYPE, SUB_TYPE = "nvidia.com/dynamo-component-type", "nvidia.com/dynamo-sub-component-type"
HASH = "nvidia.com/dynamo-spec-hash"
WORKERS = {"worker", "prefill", "decode"}


@dataclass(frozen=True)
class Component:
    """A service or a component of a graph, in one form."""

    name: str
    kind: str
    sub_kind: str
    replicas: int
    nodes: int
    adapter: bool
    template: Object


def services(graph: Object) -> Iterator[Component]:
    """Of a v1alpha1 graph."""
    for name, one in graph["spec"].get("services", {}).items():
        extra = dict(one.get("extraPodSpec", {}))
        main = {"name": "main", "image": "runtime", **extra.pop("mainContainer", {})}
        limits = one.get("resources", {}).get("limits", {})
        if limits:
            known = {"gpu": "nvidia.com/gpu"}
            asked = {known.get(key, key): str(value) for key, value in limits.items() if key != "custom"}
            main["resources"] = {"limits": {**main.get("resources", {}).get("limits", {}), **asked}}
        main["env"] = [*graph["spec"].get("envs", []), *one.get("envs", []), *main.get("env", [])]
        more = one.get("extraPodMetadata", {})
        yield Component(
            name=name,
            kind=one.get("componentType", "worker"),
            sub_kind=one.get("subComponentType", ""),
            replicas=int(one.get("replicas", 1)),
            nodes=int(one.get("multinode", {}).get("nodeCount", 1)),
            adapter=bool(one.get("scalingAdapter", {}).get("enabled", False)),
            template={
                "metadata": {
                    "labels": {**one.get("labels", {}), **more.get("labels", {})},
                    "annotations": {**one.get("annotations", {}), **more.get("annotations", {})},
                },
                "spec": {**extra, "containers": [main, *extra.get("containers", [])]},
            },
        )


def components(graph: Object) -> Iterator[Component]:
    """Of a v1beta1 graph."""
    for one in graph["spec"].get("components", []):
        template = json.loads(json.dumps(one.get("podTemplate", {})))
        template.setdefault("metadata", {})
        spec = template.setdefault("spec", {})
        containers = spec.setdefault("containers", [])
        if not any(container["name"] == "main" for container in containers):
            containers.insert(0, {"name": "main"})
        for container in containers:
            container.setdefault("image", "runtime")
            if container["name"] == "main":
                container["env"] = [*graph["spec"].get("env", []), *container.get("env", [])]
        yield Component(
            name=one["name"],
            kind=one.get("type", "worker"),
            sub_kind="",
            replicas=int(one.get("replicas", 1)),
            nodes=int(one.get("multinode", {}).get("nodeCount", 1)),
            adapter="scalingAdapter" in one,
            template=template,
        )


def _strategy(annotations: Object) -> Object:
    """Of a Deployment: the operator's annotations, and its defaults."""
    if annotations.get("nvidia.com/deployment-strategy") == "Recreate":
        return {"type": "Recreate", "rollingUpdate": None}
    names = {"maxSurge": "max-surge", "maxUnavailable": "max-unavailable"}
    asked = {key: annotations.get(f"nvidia.com/deployment-rolling-update-{name}", "25%") for key, name in names.items()}
    numbers = {key: int(value) if value.isdigit() else value for key, value in asked.items()}
    return {"type": "RollingUpdate", "rollingUpdate": numbers}


def _graph_of(adapter: Object) -> tuple[str, str]:
    return adapter["metadata"]["namespace"], adapter["spec"]["dgdRef"]["name"]


class DynamoGraphs(Operator):
    """DynamoGraphDeployments of one version.

    Args:
        api: of the cluster.
        version: "v1alpha1" or "v1beta1".
    """

    kind = "DynamoGraphDeployment"
    watched: ClassVar[Watched] = {ADAPTERS: _graph_of}
    children = (DEPLOYMENTS, LEADER_WORKER_SETS, ADAPTERS)

    def __init__(self, api: Api, version: str) -> None:
        super().__init__(api)
        self.collection = GRAPHS.format(version)
        self._beta = version == "v1beta1"

    async def reconcile(self, it: Object) -> None:
        """Its components, their adapters, and its status."""
        parts = list(components(it) if self._beta else services(it))
        if await self._adapt(it, parts):
            return  # the graph was written; the watch brings it again
        counts: dict[str, Object] = {}
        wanted: set[tuple[str, str]] = set()
        for part in parts:
            collection = DEPLOYMENTS if part.nodes == 1 else LEADER_WORKER_SETS
            child = await self._apply(it, part, collection)
            wanted.add((collection, child["metadata"]["name"]))
            counts[part.name] = self._count(part, child)
        for collection in (DEPLOYMENTS, LEADER_WORKER_SETS):
            children = await unless(404, self.owned(it, collection)) or []
            for child in children:
                if (collection, child["metadata"]["name"]) not in wanted:
                    await self.delete(child, collection)
        await self._report(it, parts, counts)

    async def _apply(self, it: Object, part: Component, collection: str) -> Object:
        about = it["metadata"]
        body = self._deployment(it, part) if part.nodes == 1 else self._group_set(it, part)
        body["metadata"]["annotations"] = {HASH: digest(body)}
        path = self.path(about["namespace"], body["metadata"]["name"], collection)
        there = await self.api.find(path)
        if there is None:
            return await self.api.create(path.rpartition("/")[0], body)
        same = there["metadata"].get("annotations", {}).get(HASH) == body["metadata"]["annotations"][HASH]
        if same and int(there["spec"]["replicas"]) == part.replicas:
            return there
        return await self.api.patch(path, {"metadata": body["metadata"], "spec": body["spec"]})

    def _labels(self, it: Object, part: Component) -> dict[str, str]:
        about = it["metadata"]
        made = {
            GRAPH: about["name"],
            COMPONENT: part.name,
            TYPE: part.kind,
            "nvidia.com/dynamo-namespace": f"{about['namespace']}-{about['name']}",
        }
        if part.sub_kind:
            made[SUB_TYPE] = part.sub_kind
        if part.kind in WORKERS:
            made["nvidia.com/dynamo-component-class"] = "worker"
        return made

    def _template(self, it: Object, part: Component) -> Object:
        spec, meta = it["spec"], part.template["metadata"]
        labels = {**spec.get("labels", {}), **meta.get("labels", {}), **self._labels(it, part)}
        labels["nvidia.com/selector"] = self._child(it, part)
        annotations = {**spec.get("annotations", {}), **meta.get("annotations", {})}
        return {"metadata": {"labels": labels, "annotations": annotations}, "spec": part.template["spec"]}

    def _child(self, it: Object, part: Component) -> str:
        return f"{it['metadata']['name']}-{part.name.lower()}"

    def _meta(self, it: Object, part: Component) -> Object:
        labels = self._labels(it, part)
        return {"name": self._child(it, part), "labels": labels, "ownerReferences": owner(it)}

    def _deployment(self, it: Object, part: Component) -> Object:
        template = self._template(it, part)
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self._meta(it, part),
            "spec": {
                "replicas": part.replicas,
                "selector": {"matchLabels": {"nvidia.com/selector": self._child(it, part)}},
                "strategy": _strategy(template["metadata"]["annotations"]),
                "template": template,
            },
        }

    def _group_set(self, it: Object, part: Component) -> Object:
        return {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": self._meta(it, part),
            "spec": {
                "replicas": part.replicas,
                "leaderWorkerTemplate": {"size": part.nodes, "workerTemplate": self._template(it, part)},
            },
        }

    def _count(self, part: Component, child: Object) -> Object:
        status = child.get("status", {})
        name = child["metadata"]["name"]
        each = gpus(part.template["spec"]) * part.nodes
        counts = {
            "componentKind": child["kind"],
            "componentNames": [name],
            "replicas": int(status.get("replicas", 0)),
            "updatedReplicas": int(status.get("updatedReplicas", 0)),
            "readyReplicas": int(status.get("readyReplicas", 0)),
            "gpusPerEngine": each,
            "gpusPerReplica": each,
        }
        if child["kind"] == "Deployment":
            counts["availableReplicas"] = int(status.get("availableReplicas", 0))
        if not self._beta:
            counts["componentName"] = name
        return counts

    async def _report(self, it: Object, parts: list[Component], counts: dict[str, Object]) -> None:
        names = ("replicas", "updatedReplicas", "readyReplicas")
        behind = [part.name for part in parts if {counts[part.name][name] for name in names} != {part.replicas}]
        reason = "some_resources_are_not_ready" if behind else "all_resources_are_ready"
        message = f"not ready: {', '.join(behind)}" if behind else "all resources are ready"
        status = {
            "state": "pending" if behind else "successful",
            "observedGeneration": it["metadata"]["generation"],
            "conditions": [condition(it, "Ready", reason, message, value=not behind)],
            "components" if self._beta else "services": counts,
        }
        await self.set_status(it, status)

    # Scaling adapters.

    async def _adapt(self, it: Object, parts: list[Component]) -> bool:
        """Adapters for the components that want one; whether the graph had to follow one of them."""
        about = it["metadata"]
        there = {one["metadata"]["name"]: one for one in await self.owned(it, ADAPTERS)}
        wrote = False
        for part in parts:
            adapter = there.pop(self._child(it, part), None)
            if not part.adapter:
                if adapter is not None:
                    await self.delete(adapter, ADAPTERS)
                continue
            if adapter is None:
                reference = {"name": about["name"], "serviceName": part.name}
                if self._beta:
                    reference["componentName"] = part.name
                body = {
                    "apiVersion": "nvidia.com/v1alpha1",
                    "kind": "DynamoGraphDeploymentScalingAdapter",
                    "metadata": {**self._meta(it, part), "annotations": {}},
                    "spec": {"replicas": part.replicas, "dgdRef": reference},
                }
                adapter = await self.api.create(self.path(about["namespace"], collection=ADAPTERS), body)
            asked = int(adapter["spec"]["replicas"])
            status = {"replicas": part.replicas, "selector": f"nvidia.com/selector={self._child(it, part)}"}
            if asked != part.replicas:
                await self._write_replicas(it, part.name, asked)
                status |= {"replicas": asked, "lastScaleTime": now()}
                wrote = True
            if any(adapter.get("status", {}).get(key) != value for key, value in status.items()):
                path = self.path(about["namespace"], adapter["metadata"]["name"], ADAPTERS)
                await self.api.patch(f"{path}/status", {"status": status})
        for adapter in there.values():
            await self.delete(adapter, ADAPTERS)
        return wrote

    async def _write_replicas(self, it: Object, name: str, replicas: int) -> None:
        path = self.path(it["metadata"]["namespace"], it["metadata"]["name"])
        version = {"resourceVersion": it["metadata"]["resourceVersion"]}
        if self._beta:
            # A merge patch replaces the whole list, so it is the one that was read, or a conflict.
            new = [{**one, "replicas": replicas} if one["name"] == name else one for one in it["spec"]["components"]]
            spec: Object = {"components": new}
        else:
            spec = {"services": {name: {"replicas": replicas}}}
        written = await self.api.patch(path, {"metadata": version, "spec": spec})
        it["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"]
        it["spec"] = written["spec"]
