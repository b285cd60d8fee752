"""The gateway: Shepherd Model Gateway (`smg`) that finds the workers' pods by their labels."""

from __future__ import annotations

import copy
from typing import Any, Final

from worker_graph.kubernetes.labels import (
    GATEWAY_ROLE,
    GRAPH,
    HTTP_PORT,
    HTTP_PORT_NAME,
    MAIN_CONTAINER,
    METRICS_PORT,
    METRICS_PORT_NAME,
    ROLE,
    SERVES,
    labels_of,
    object_name,
    selector_of,
)
from worker_graph.kubernetes.options import RenderOptions, is_dynamo_image
from worker_graph.kubernetes.podfields import PodFields
from worker_graph.kubernetes.security import container_security, pod_security
from worker_graph.local.gateway import DURATION_BUCKETS_S
from worker_graph.spec import Component, GraphSpec, Role

#: smg's words for the graph's routing.
POLICIES: Final = {
    "round-robin": "round_robin", "least-loaded": "least_load", "kv": "cache_aware", "random": "random",
}  # fmt: skip

#: Seconds for smg to end after the last stream.
_STOP_S: Final = 15
#: Seconds until no new connection comes: the Service's endpoints are changed on every node meanwhile.
_SETTLE_S: Final = 5


def gateway_objects(
    spec: GraphSpec, component: Component, fields: PodFields, options: RenderOptions, *, routing: str, longest_s: float
) -> list[dict[str, Any]]:
    """ServiceAccount, Role, RoleBinding, Service, PodDisruptionBudget and Deployment of a frontend.

    Args:
        spec: the graph.
        component: its frontend.
        fields: what the file says of its pods.
        options: of the rendering.
        routing: as the graph names it.
        longest_s: seconds that the longest request takes; its stream passes through the gateway to its end.
    """
    name, labels = object_name(spec.name, component.name), gateway_labels(spec, component, fields)
    pod = gateway_template(spec, component, fields, options, routing=routing, longest_s=longest_s)
    return [
        *gateway_around(spec, component, fields, options),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": component.replicas,
                "revisionHistoryLimit": 3,
                "selector": {"matchLabels": selector_of(spec.name, component.name)},
                # It holds no GPU: the new one serves before the old one goes.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": pod,
            },
        },
    ]


def gateway_labels(spec: GraphSpec, component: Component, fields: PodFields) -> dict[str, str]:
    """Of its objects and pods."""
    return {**fields.labels, **labels_of(spec.name, component.name, GATEWAY_ROLE)}


def gateway_around(
    spec: GraphSpec, component: Component, fields: PodFields, options: RenderOptions
) -> list[dict[str, Any]]:
    """What the gateway has beside its pods: an account that may watch pods and nothing else, and a Service."""
    name, labels = object_name(spec.name, component.name), gateway_labels(spec, component, fields)
    metadata = {"name": name, "labels": labels}
    made: list[dict[str, Any]] = []
    own_account = fields.pod.get("serviceAccountName")
    if own_account is None:
        made.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": copy.deepcopy(metadata)})
    subject = {"kind": "ServiceAccount", "name": own_account or name, "namespace": options.namespace or "default"}
    return [
        *made,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": copy.deepcopy(metadata),
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": copy.deepcopy(metadata),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [subject],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": copy.deepcopy(metadata),
            "spec": {
                "selector": selector_of(spec.name, component.name),
                "ports": [
                    {"name": HTTP_PORT_NAME, "port": HTTP_PORT, "targetPort": HTTP_PORT_NAME},
                    {"name": METRICS_PORT_NAME, "port": METRICS_PORT, "targetPort": METRICS_PORT_NAME},
                ],
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": copy.deepcopy(metadata),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector_of(spec.name, component.name)}},
        },
    ]


def gateway_template(
    spec: GraphSpec, component: Component, fields: PodFields, options: RenderOptions, *, routing: str, longest_s: float
) -> dict[str, Any]:
    """The gateway's pod.

    Ready when it answers, with workers or without: without them it refuses, and counts what it refused, which is how
    the planner sees a demand that has no worker yet.
    """
    name = object_name(spec.name, component.name)
    own, pod = copy.deepcopy(fields.main), copy.deepcopy(fields.pod)
    for ours in ("workingDir", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"):
        own.pop(ours, None)
    image = component.image
    given = {*component.env, *component.env_elsewhere}
    grace = int(_SETTLE_S + longest_s + _STOP_S)
    answers = {"httpGet": {"path": "/liveness", "port": HTTP_PORT_NAME}}
    namespace = {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    main: dict[str, Any] = {
        "name": MAIN_CONTAINER,
        "image": options.gateway_image if image is None or is_dynamo_image(image) else image,
        "command": ["smg", "launch"],
        "args": gateway_arguments(spec, routing=routing, longest_s=longest_s),
        "env": [
            *([] if "POD_NAMESPACE" in given else [namespace]),
            *copy.deepcopy(fields.variables),
            *({"name": key, "value": value} for key, value in component.env.items()),
        ],
        **({"envFrom": copy.deepcopy(fields.env_from)} if fields.env_from else {}),
        "ports": [
            {"name": HTTP_PORT_NAME, "containerPort": HTTP_PORT},
            {"name": METRICS_PORT_NAME, "containerPort": METRICS_PORT},
        ],
        "startupProbe": {**answers, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**answers, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**answers, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_SETTLE_S)]}}},
        "volumeMounts": [*own.pop("volumeMounts", []), {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 (the pod's own)
        "securityContext": container_security(own.pop("securityContext", None), read_only=True),
        "resources": own.pop("resources", {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "4Gi"}}),
    }
    made = {
        "serviceAccountName": name,
        **pod,
        "terminationGracePeriodSeconds": pod.get("terminationGracePeriodSeconds", grace),
        "securityContext": pod_security(pod.get("securityContext")),
        "containers": [{**main, **own}, *copy.deepcopy(fields.sidecars)],
        "volumes": [*pod.get("volumes", []), {"name": "tmp", "emptyDir": {}}],
    }
    annotations = fields.annotations
    return {
        "metadata": {
            "labels": gateway_labels(spec, component, fields),
            **({"annotations": dict(annotations)} if annotations else {}),
        },
        "spec": made,
    }


def gateway_arguments(spec: GraphSpec, *, routing: str, longest_s: float) -> list[str]:
    """Of `smg launch`, as the local gateway's, with the workers found by label.

    Watching takes a terminating pod out at once: smg drains a worker whose pod has a deletion timestamp.
    """
    found = [
        "--host", "0.0.0.0", "--port", str(HTTP_PORT),  # noqa: S104 (the pod's own network)
        "--prometheus-host", "0.0.0.0", "--prometheus-port", str(METRICS_PORT),  # noqa: S104
        "--prometheus-duration-buckets", *(f"{edge:g}" for edge in DURATION_BUCKETS_S),
        "--policy", POLICIES[routing],
        # A queue that the planner has not answered yet is the planner's business: with these off, an overloaded pool
        # queues in its engines, where it is measured, and no request is refused.
        "--disable-worker-overload-protection", "--queue-size", "100000", "--queue-timeout-secs", "600",
        "--max-concurrent-requests", "0", "--worker-wedge-secs", "120",
        "--health-check-interval-secs", "5", "--load-monitor-interval", "1", "--log-level", "warn",
        "--shutdown-grace-period-secs", str(int(longest_s)),
        "--service-discovery", "--service-discovery-namespace", "$(POD_NAMESPACE)",
        "--service-discovery-port", str(HTTP_PORT),
    ]  # fmt: skip
    roles = {worker.role for worker in spec.workers}
    if Role.PREFILL not in roles:
        return [*found, "--selector", *_selector(spec, Role.AGGREGATED)]
    return [
        *found, "--pd-disaggregation",
        "--prefill-selector", *_selector(spec, Role.PREFILL), "--decode-selector", *_selector(spec, Role.DECODE),
    ]  # fmt: skip


def _selector(spec: GraphSpec, role: Role) -> list[str]:
    return [f"{GRAPH}={spec.name}", f"{ROLE}={role.value}", f"{SERVES}=true"]
