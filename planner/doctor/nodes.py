"""Nodes with GPUs: which, how many, how many are free, and what keeps pods away from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.connectors.kubernetes.errors import ForbiddenError
from planner.connectors.kubernetes.resources import NODES, Resource
from planner.connectors.kubernetes.targets.pods import gpus_in, gpus_of
from planner.doctor.base import Check, failed, passed, plural, skipped, some, warned
from planner.doctor.quantities import product_of
from planner.doctor.scene import Scene

ALL_PODS = Resource("", "v1", "pods", "Pod", namespaced=False)
CLUSTER_POLICIES = Resource("nvidia.com", "v1", "clusterpolicies", "ClusterPolicy", namespaced=False)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", namespaced=False)

_ASK = "ask as somebody who may list nodes, or let an administrator run it: --kubeconfig or --context"


@dataclass(frozen=True)
class GpuNode:
    """A node with GPUs. `free` is allocatable less the limits of the pods on it; None where these cannot be listed."""

    name: str
    product: str
    capacity: int
    allocatable: int
    free: int | None
    ready: bool
    cordoned: bool
    taints: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether a pod that tolerates its taints may go there."""
        return self.ready and not self.cordoned


def nodes(scene: Scene) -> Iterator[Check]:
    """The nodes and their GPUs."""
    cluster = scene.api()
    try:
        listed = cluster.list(NODES).items
    except ForbiddenError as error:
        yield skipped("GPU nodes", f"not looked at: {error}", _ASK)
        return
    try:
        pods: Sequence[Mapping[str, Any]] | None = cluster.list(ALL_PODS).items
    except ForbiddenError:
        pods = None
    needed = 0
    if scene.config is not None:
        needed = scene.configuration().budget.max_gpus
    yield from judge_nodes(gpu_nodes(listed, pods), len(listed), needed)


def gpu_nodes(listed: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]] | None) -> list[GpuNode]:
    """Those of the nodes that have GPUs, with what the pods on them leave."""
    taken: Counter[str] = Counter()
    for pod in pods or ():
        # A pod that has ended holds nothing; one that ends still does.
        if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}:
            taken[(pod.get("spec") or {}).get("nodeName") or ""] += gpus_of(pod.get("spec") or {}) or 0
    found = []
    for node in listed:
        about, spec, status = node.get("metadata") or {}, node.get("spec") or {}, node.get("status") or {}
        capacity = gpus_in({"limits": status.get("capacity")})
        if not capacity:
            continue
        allocatable = gpus_in({"limits": status.get("allocatable")})
        conditions = {one.get("type"): one.get("status") for one in status.get("conditions") or ()}
        taints = tuple(
            f"{one.get('key')}{'=' + one['value'] if one.get('value') else ''}:{one.get('effect')}"
            for one in spec.get("taints") or ()
            if one.get("effect") != "PreferNoSchedule"
        )
        name = str(about.get("name"))
        found.append(
            GpuNode(
                name=name,
                product=product_of(about.get("labels")),
                capacity=capacity,
                allocatable=allocatable,
                free=None if pods is None else max(0, allocatable - taken[name]),
                ready=conditions.get("Ready") == "True",
                cordoned=bool(spec.get("unschedulable")),
                taints=taints,
            )
        )
    return found


def judge_nodes(found: Sequence[GpuNode], nodes_in_all: int, needed: int) -> Iterator[Check]:
    """Checks of the nodes with GPUs.

    Args:
        found: nodes with GPUs.
        nodes_in_all: of the cluster.
        needed: GPUs of the configured budget; 0 without one.
    """
    if not found:
        text = f"none of {plural(nodes_in_all, 'node')} has GPUs"
        fix = "add GPU nodes, and the GPU operator or a device plugin: without it a node shows no nvidia.com/gpu"
        yield failed("GPU nodes", text, fix)
        return
    usable = [one for one in found if one.usable]
    allocatable = sum(one.allocatable for one in usable)
    counts: Counter[str] = Counter()
    for one in found:
        counts[one.product or "of an unknown kind"] += one.capacity
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    text = f"{kinds} on {plural(len(found), 'node')}; {allocatable} allocatable"
    if needed > allocatable:
        fix = "lower budget.max_gpus or add nodes; until then workers stay unschedulable at the top of the load"
        yield warned("GPU nodes", f"{text}, and the budget is {needed}", fix)
    else:
        yield passed("GPU nodes", text)
    unnamed = [one.name for one in found if not one.product]
    if unnamed:
        fix = "install GPU feature discovery (part of the GPU operator), so that profiles can be matched with GPUs"
        yield warned("GPU products", f"no label names the GPU of {some(unnamed)}", fix)
    if any(one.free is None for one in usable):
        yield skipped("free GPUs", "not looked at: pods of all namespaces cannot be listed", _ASK)
    else:
        free = {one.name: one.free or 0 for one in usable}
        each = some([f"{name} {count}" for name, count in sorted(free.items(), key=lambda pair: -pair[1])], 4)
        text = f"{sum(free.values())} of {allocatable} are not asked for by any pod ({each})"
        if sum(free.values()) == 0:
            yield warned("free GPUs", text, "nothing can start before something ends: free some, or add nodes")
        else:
            yield passed("free GPUs", text)
    lost = [one.name for one in found if one.allocatable < one.capacity]
    if lost:
        fix = "look at the device plugin's log there: it reports GPUs as unhealthy (XID errors, fallen off the bus)"
        yield warned("GPU health", f"fewer GPUs allocatable than there are on {some(lost)}", fix)
    away = [f"{one.name} ({'cordoned' if one.cordoned else 'not ready'})" for one in found if not one.usable]
    if away:
        yield warned("unready nodes", f"with GPUs: {some(away)}", "kubectl describe node NAME; kubectl uncordon NAME")
    tainted = sorted({taint for one in usable for taint in one.taints})
    if tainted:
        text = f"GPU nodes are tainted with {some(tainted)}"
        if all(one.taints for one in usable):
            yield warned("taints", text, "nothing, if the workers' pods tolerate them: see the graph checks")
        else:
            yield passed("taints", f"{text}, but not all")


def operator(scene: Scene) -> Iterable[Check]:
    """The GPU operator, or a device plugin on its own."""
    cluster = scene.api()
    name = "device plugin"
    if cluster.serves(CLUSTER_POLICIES):
        try:
            policies = cluster.list(CLUSTER_POLICIES).items
        except ForbiddenError:
            return [passed(name, "the GPU operator is installed; its state cannot be read with these rights")]
        states = [str((one.get("status") or {}).get("state") or "unknown") for one in policies]
        if any(state == "ready" for state in states):
            return [passed(name, "the GPU operator is ready")]
        text = f"the GPU operator's ClusterPolicy is {', '.join(states)}" if states else "it has no ClusterPolicy"
        return [failed(name, text, "kubectl describe clusterpolicies; kubectl get pods -n gpu-operator")]
    try:
        sets = cluster.list(DAEMON_SETS).items
    except ForbiddenError as error:
        return [skipped(name, f"no GPU operator; {error}", _ASK)]
    plugins = [one["metadata"]["name"] for one in sets if _is_plugin(one)]
    if plugins:
        return [passed(name, f"DaemonSet {some(plugins)}")]
    fix = "install the GPU operator, or the device plugin (github.com/NVIDIA/k8s-device-plugin)"
    return [warned(name, "neither the GPU operator nor a DaemonSet of a device plugin", fix)]


def _is_plugin(daemon_set: Mapping[str, Any]) -> bool:
    spec = ((daemon_set.get("spec") or {}).get("template") or {}).get("spec") or {}
    words = [daemon_set["metadata"]["name"], *(str(one.get("image", "")) for one in spec.get("containers") or ())]
    return any("device-plugin" in word and ("gpu" in word or "nvidia" in word or "amd" in word) for word in words)
