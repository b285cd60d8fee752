"""A DynamoGraphDeployment in the other version of its API.

`spec.services`, a mapping, and `spec.components`, a list, hold the same components; v1beta1 has the pod in one
`podTemplate` where v1alpha1 spreads it over ten fields. Pods and containers are carried over whole, with fields that
are not known here; a field of a component that the other version has no place for is an error.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from profiler.errors import InputError
from worker_graph.kubernetes.fields import NVIDIA_GPU
from worker_graph.kubernetes.volumes import CACHE_FOLDER
from worker_graph.spec import GraphSpec
from worker_graph.spec.containers import GPU_RESOURCES
from worker_graph.spec.node import Node
from worker_graph.spec.read import V1ALPHA1, V1BETA1

VERSIONS: Final = {"v1alpha1": V1ALPHA1, "v1beta1": V1BETA1}

#: Of the spec, the same in both.
_SAME_SPEC: Final = ("annotations", "labels", "backendFramework", "restart", "topologyConstraint", "priorityClassName")
#: Of a component, the same in both.
_SAME: Final = ("replicas", "multinode", "globalDynamoNamespace", "modelRef", "eppConfig", "topologyConstraint")


def convert(graph: GraphSpec, version: str | None) -> dict[str, Any]:
    """The graph's document in a version, its own where there is none.

    Raises:
        InputError: an unknown version, or a field that the version cannot express; names it and its line.
    """
    if version is None:
        return copy.deepcopy(dict(graph.raw))
    if version not in VERSIONS:
        raise InputError(f"is {version!r}", expected=" or ".join(VERSIONS), field="--api-version")
    wanted = VERSIONS[version]
    if wanted == graph.api_version:
        return copy.deepcopy(dict(graph.raw))
    root = Node(graph.document, (), graph.raw)
    spec = root.get("spec")
    if spec is None:
        raise AssertionError("a graph that was read has a spec")
    made = {key: copy.deepcopy(value) for key, value in graph.raw.items() if key not in {"spec", "status"}}
    return {**made, "apiVersion": wanted, "spec": _to_beta(spec) if wanted == V1BETA1 else _to_alpha(spec)}


class _Taken:
    """A mapping whose fields are taken one by one, so that what is left over is known."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._left = {key: below for key, below in node.items() if below.value is not None}

    def take(self, key: str) -> Any:
        below = self._left.pop(key, None)
        return None if below is None else copy.deepcopy(below.value)

    def node_of(self, key: str) -> Node | None:
        return self._left.get(key)

    def finish(self, version: str, but: frozenset[str] = frozenset()) -> None:
        for key, below in self._left.items():
            if key not in but:
                raise below.error(f"has no place in {version}", "a graph without it, or its own version")


def _drop_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _to_beta(spec: Node) -> dict[str, Any]:
    taken = _Taken(spec)
    made = _drop_empty({key: taken.take(key) for key in _SAME_SPEC})
    made |= _drop_empty({"env": taken.take("envs")})
    for claim in spec.below("pvcs"):
        if claim.mapping().get("create") is True:
            raise claim.error("is to be made, which v1beta1 does not do", "a PersistentVolumeClaim of its own")
    taken.take("pvcs")
    services = taken.node_of("services")
    taken.take("services")
    taken.finish("v1beta1")
    if services is None:
        raise AssertionError("a graph that was read has services")
    return {**made, "components": [_component_to_beta(name, node) for name, node in services.items()]}


def _component_to_beta(name: str, node: Node) -> dict[str, Any]:
    taken = _Taken(node)
    kind, sub = taken.take("componentType"), taken.node_of("subComponentType")
    if sub is not None and sub.value in {"prefill", "decode"}:
        kind = taken.take("subComponentType")
    if (own := taken.node_of("serviceName")) is not None and own.value == name:
        taken.take("serviceName")
    made = _drop_empty({"name": name, "type": kind, **{key: taken.take(key) for key in _SAME}})
    adapter = taken.take("scalingAdapter")
    if adapter is not None and adapter.get("enabled") is True:
        made["scalingAdapter"] = {}
    if (scaling := taken.node_of("autoscaling")) is not None and scaling.mapping().get("enabled") is not True:
        taken.take("autoscaling")  # It is ignored, and says itself that it is off.
    memory = taken.take("sharedMemory")
    if memory is not None:
        size = "0" if memory.get("disabled") else memory.get("size")
        made |= _drop_empty({"sharedMemorySize": size})
    pod = taken.take("extraPodSpec") or {}
    main = {"name": "main", **(pod.pop("mainContainer", None) or {})}
    _put_in_container(taken, main)
    _put_mounts(taken, pod, main, made)
    metadata: dict[str, dict[str, str]] = {}
    for holder in (
        {kind: taken.take(kind) for kind in ("labels", "annotations")},
        taken.take("extraPodMetadata") or {},
    ):
        for kind, values in holder.items():
            if values:
                metadata[kind] = {**metadata.get(kind, {}), **values}
    taken.finish("v1beta1")
    main["name"] = "main"
    template = {
        **({"metadata": metadata} if metadata else {}),
        "spec": {**pod, "containers": [main, *pod.pop("containers", [])]},
    }
    if len(main) > 1 or template["spec"].keys() != {"containers"} or metadata:
        made["podTemplate"] = template
    return made


def _put_in_container(taken: _Taken, main: dict[str, Any]) -> None:
    """What v1alpha1 says beside the container; what the container says itself wins."""
    env = [*(taken.take("envs") or []), *(main.get("env") or [])]
    if env:
        # A later entry of a name replaces an earlier one, in its place.
        main["env"] = list({entry["name"]: entry for entry in env}.values())
    secret = taken.take("envFromSecret")
    if secret is not None:
        main["envFrom"] = [{"secretRef": {"name": secret}}, *main.get("envFrom", [])]
    for key in ("livenessProbe", "readinessProbe"):
        probe = taken.take(key)
        if probe is not None:
            main.setdefault(key, probe)
    resources = taken.take("resources")
    if resources is None:
        return
    made: dict[str, Any] = {}
    for part in ("limits", "requests"):
        amounts = resources.pop(part, None)
        if amounts is not None:
            gpu_kind = amounts.pop("gpuType", NVIDIA_GPU)
            custom = amounts.pop("custom", None) or {}
            renamed = {gpu_kind if key == "gpu" else key: str(value) for key, value in amounts.items()}
            made[part] = {**renamed, **custom}
    own = main.get("resources") or {}
    parts = {part: {**made.get(part, {}), **(own.get(part) or {})} for part in ("limits", "requests")}
    main["resources"] = {**resources, **own, **{part: amounts for part, amounts in parts.items() if amounts}}


def _put_mounts(taken: _Taken, pod: dict[str, Any], main: dict[str, Any], made: dict[str, Any]) -> None:
    for mount in taken.take("volumeMounts") or []:
        name = mount["name"]
        if mount.get("useAsCompilationCache"):
            made["compilationCache"] = _drop_empty({"pvcName": name, "mountPath": mount.get("mountPoint")})
            continue
        volumes = pod.setdefault("volumes", [])
        if all(volume.get("name") != name for volume in volumes):
            volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
        main.setdefault("volumeMounts", []).append({"name": name, "mountPath": mount.get("mountPoint")})


def _to_alpha(spec: Node) -> dict[str, Any]:
    taken = _Taken(spec)
    made = _drop_empty({key: taken.take(key) for key in _SAME_SPEC})
    made |= _drop_empty({"envs": taken.take("env")})
    taken.take("components")
    taken.finish("v1alpha1")
    claims: dict[str, None] = {}
    services = {}
    for node in spec.below("components"):
        name = str(node.mapping()["name"])
        services[name] = _component_to_alpha(node, claims)
    if claims:
        made["pvcs"] = [{"name": name, "create": False} for name in claims]
    return {**made, "services": services}


def _component_to_alpha(node: Node, claims: dict[str, None]) -> dict[str, Any]:
    taken = _Taken(node)
    taken.take("name")
    kind = taken.take("type")
    made: dict[str, Any] = {}
    if kind in {"prefill", "decode"}:
        made = {"componentType": "worker", "subComponentType": kind}
    elif kind is not None:
        made = {"componentType": kind}
    made |= _drop_empty({key: taken.take(key) for key in _SAME})
    if taken.take("scalingAdapter") is not None:
        made["scalingAdapter"] = {"enabled": True}
    size = taken.take("sharedMemorySize")
    if size is not None:
        made["sharedMemory"] = {"disabled": True} if str(size) == "0" else {"size": size}
    cache = taken.take("compilationCache")
    if cache is not None:
        claims[cache["pvcName"]] = None
        mount = {
            "name": cache["pvcName"],
            "mountPoint": cache.get("mountPath", CACHE_FOLDER),
            "useAsCompilationCache": True,
        }
        made["volumeMounts"] = [mount]
    template = node.get("podTemplate")
    taken.take("podTemplate")
    taken.finish("v1alpha1")
    if template is None:
        return made
    parts = _Taken(template)
    metadata = template.get("metadata")
    if metadata is not None:
        fields = _Taken(metadata)
        kept = _drop_empty({key: fields.take(key) for key in ("labels", "annotations")})
        fields.finish("v1alpha1", frozenset({"creationTimestamp"}))
        if kept:
            made["extraPodMetadata"] = kept
    pod = parts.take("spec") or {}
    parts.take("metadata")
    parts.finish("v1alpha1")
    containers = pod.pop("containers", [])
    for index, container in enumerate(containers):
        if container.get("name") == "main":
            main = containers.pop(index)
            _take_resources(main, made)
            main.pop("name")
            pod["mainContainer"] = main
            break
    if containers:
        pod["containers"] = containers
    if pod:
        made["extraPodSpec"] = pod
    return made


def _take_resources(main: dict[str, Any], made: dict[str, Any]) -> None:
    """GPUs where v1alpha1 counts them, beside the container; the rest of the resources goes with them."""
    resources = main.pop("resources", None)
    if not resources:
        return
    named: dict[str, Any] = {}
    for part in ("limits", "requests"):
        amounts = resources.pop(part, None)
        if amounts is None:
            continue
        item: dict[str, Any] = {}
        for key, value in amounts.items():
            if key in {"cpu", "memory"}:
                item[key] = str(value)
            elif key in GPU_RESOURCES and "gpu" not in item:
                item["gpu"] = str(value)
                item |= {} if key == NVIDIA_GPU else {"gpuType": key}
            else:
                item.setdefault("custom", {})[key] = str(value)
        named[part] = item
    made["resources"] = {**named, **resources}
