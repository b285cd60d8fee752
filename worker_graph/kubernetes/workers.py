"""Workers as Deployments, LeaderWorkerSets and Grove's cliques, and what belongs to each."""

from __future__ import annotations

from typing import Any, Final

from worker_graph.kubernetes.labels import HTTP_PORT, HTTP_PORT_NAME, object_name, selector_of
from worker_graph.kubernetes.multinode import (
    BACKEND_FLAG,
    LWS,
    Case,
    Launch,
    LayoutError,
    Position,
    Sizes,
    case_of,
    grove,
    launch,
)
from worker_graph.kubernetes.pod import Worker, template
from worker_graph.vllm.layout import parallel_of

#: The annotation of Dynamo's operator that chooses between vLLM's own launcher and Ray.
BACKEND_ANNOTATION: Final = "nvidia.com/vllm-distributed-executor-backend"

#: Set by the case; given as well, they would contradict it.
_OURS: Final = (
    "--nnodes", "--node-rank", "-r", "--master-addr", "--master-port", "--headless", "--data-parallel-hybrid-lb",
    "-dph", "--data-parallel-external-lb", "-dpe", "--data-parallel-rank", "-dpn", "--data-parallel-start-rank", "-dpr",
    "--data-parallel-address", "-dpa", "--data-parallel-rpc-port", "-dpp", "--data-parallel-backend", "-dpb",
    "--enable-elastic-ep",
)  # fmt: skip


def deployment(worker: Worker) -> dict[str, Any]:
    """A Deployment of workers of one node.

    A roll-out stops an old worker before it starts a new one, so that it needs no GPU beyond the count. The old one
    drains meanwhile; the new one is pending until the GPU is free, which is no failure of the roll-out.
    """
    component = worker.component
    if component.nodes > 1:
        raise component.error(
            f"spans {component.nodes} nodes; the pods of a Deployment stand alone",
            "multinode",
            expected="--target lws or --target grove",
        )
    progress = int(worker.options.startup_timeout_s) + worker.grace_s + 600
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": object_name(worker.spec.name, component.name), "labels": worker.labels},
        "spec": {
            "replicas": component.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": progress,
            "selector": {"matchLabels": _selector(worker)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": template(worker, Launch(Case.SINGLE), Position.ALONE, None),
        },
    }


def leader_worker_set(worker: Worker) -> dict[str, Any]:
    """A LeaderWorkerSet: a replica is a group of as many pods as the worker has nodes."""
    component = worker.component
    sizes, case = _case(worker)
    places = {position: launch(case, position, sizes, LWS) for position in (Position.LEADER, Position.WORKER)}
    alone = sizes.nodes == 1
    leader = template(
        worker, places[Position.LEADER], Position.ALONE if alone else Position.LEADER, None if alone else LWS
    )
    group: dict[str, Any] = {"size": sizes.nodes, "restartPolicy": "RecreateGroupOnPodRestart"}
    if alone:
        group["workerTemplate"] = leader
    else:
        group["leaderTemplate"] = leader
        group["workerTemplate"] = template(worker, places[Position.WORKER], Position.WORKER, LWS)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": object_name(worker.spec.name, component.name), "labels": worker.labels},
        "spec": {
            "replicas": component.replicas,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "networkConfig": {"subdomainPolicy": "Shared"},
            "leaderWorkerTemplate": group,
        },
    }


def cliques(worker: Worker) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Grove's cliques of a worker, and for several nodes the scaling group that holds them together.

    Named as Dynamo's operator names them. All pods of a group are needed, so all of its workers must be available.
    """
    component, name = worker.component, worker.component.name.lower()
    sizes, case = _case(worker)
    if sizes.nodes == 1:
        return [
            clique(name, worker.labels, component.replicas, 1, template(worker, Launch(case), Position.ALONE, None))
        ], None
    group = grove(name)
    found = []
    for position, suffix, count in ((Position.LEADER, "ldr", 1), (Position.WORKER, "wkr", sizes.nodes - 1)):
        made = template(worker, launch(case, position, sizes, group), position, group)
        found.append(clique(f"{name}-{suffix}", worker.labels, count, count, made))
    names = [one["name"] for one in found]
    return found, {"name": name, "cliqueNames": names, "replicas": component.replicas, "minAvailable": 1}


def clique(name: str, labels: dict[str, str], replicas: int, least: int, pod: dict[str, Any]) -> dict[str, Any]:
    """A PodClique's template; its labels and annotations are its pods' too."""
    return {
        "name": name,
        "labels": {**labels, **pod["metadata"]["labels"]},
        **({"annotations": pod["metadata"]["annotations"]} if "annotations" in pod["metadata"] else {}),
        "spec": {"roleName": name, "replicas": replicas, "minAvailable": least, "podSpec": pod["spec"]},
    }


def disruption_budget(worker: Worker) -> dict[str, Any]:
    """One pod of the pool may be evicted at a time, and only while the others serve."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": object_name(worker.spec.name, worker.component.name), "labels": worker.labels},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector_of(worker.spec.name, worker.component.name)},
        },
    }


def headless_service(worker: Worker) -> dict[str, Any]:
    """A name for each pod of a pool; requests come from the gateway, which knows their addresses."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": object_name(worker.spec.name, worker.component.name), "labels": worker.labels},
        "spec": {
            "clusterIP": "None",
            "selector": selector_of(worker.spec.name, worker.component.name),
            "ports": [{"name": HTTP_PORT_NAME, "port": HTTP_PORT, "targetPort": HTTP_PORT_NAME}],
        },
    }


def _selector(worker: Worker) -> dict[str, str]:
    """With the layout: while it changes, a pool has a Deployment of each."""
    return selector_of(worker.spec.name, worker.component.name, tp=worker.command.tp, dp=worker.command.dp)


def _case(worker: Worker) -> tuple[Sizes, Case]:
    """Sizes and case of a worker over several nodes.

    Raises:
        InputError: its sizes have no case, or its arguments say what the case is to say.
    """
    component, arguments = worker.component, worker.arguments
    parallel = parallel_of(arguments)
    per_node = component.gpus_per_worker // component.nodes or -(-parallel.gpus // component.nodes)
    sizes = Sizes(parallel.tp, parallel.pp, parallel.dp, component.nodes, per_node)
    if component.nodes == 1:
        return sizes, Case.SINGLE
    for name in _OURS:
        flag = arguments.find(name)
        if flag is not None:
            raise arguments.error(flag, "is set by the target for each node", "the parallel sizes alone")
    annotated = worker.fields.annotations.get(BACKEND_ANNOTATION)
    asked = arguments.text(BACKEND_FLAG) or annotated or "mp"
    if asked not in {"mp", "ray"}:
        raise component.error(f"has the executor backend {asked!r} over several nodes", expected="mp or ray")
    try:
        return sizes, case_of(sizes, ray=asked == "ray")
    except LayoutError as error:
        raise component.error(str(error), "multinode") from None
