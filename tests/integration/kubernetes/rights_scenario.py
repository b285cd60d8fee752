"""What a planner does on a cluster in a few ticks, under any Role, and what it could not do."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kubernetes import client

from planner.connectors.base import ConnectorError
from planner.connectors.kubernetes import resources
from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.connectors.kubernetes.errors import NotFoundError
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.connectors.kubernetes.state_map import StateMap
from planner.connectors.kubernetes.target import PoolTarget, Target
from planner.connectors.kubernetes.targets import make_target
from planner.core.layout_change import LayoutProposal
from planner.core.types import Pool, Role
from tests.integration.kubernetes.rights_graphs import DECODE, PREFILL, Graph, Object, config_of
from tests.kubernetes.cluster import Cluster as TestCluster
from tests.servers import wait_until

ACCOUNT, ME = "plimsoll-planner", "planner-0"
PATIENCE_S = 60.0
_SAID = {"a scale-down ends the youngest": "cost", "Events are not written": "events"}
_NOTICED = {"HorizontalPodAutoscaler of the same": "hpa", "ScaledObject of the same": "keda"}


def without(role: Object, verb: str, rule: int) -> Object:
    """The Role without one verb of one of its rules."""
    made = copy.deepcopy(role)
    made["rules"][rule]["verbs"].remove(verb)
    made["rules"] = [one for one in made["rules"] if one["verbs"]]
    return made


def bind(control_plane: TestCluster, api: client.ApiClient, namespace: str, role: Object) -> Cluster:
    """A client of the planner's service account, which may do what the Role says and nothing else."""
    client.CoreV1Api(api).create_namespaced_service_account(namespace, {"metadata": {"name": ACCOUNT}})
    rbac = client.RbacAuthorizationV1Api(api)
    rbac.create_namespaced_role(namespace, role)
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
    binding = {"metadata": {"name": ACCOUNT}, "roleRef": {**_REF, "name": role["metadata"]["name"]}}
    rbac.create_namespaced_role_binding(namespace, {**binding, "subjects": [subject]})
    rule = role["rules"][-1]
    about = {"namespace": namespace, "verb": rule["verbs"][0], "group": rule["apiGroups"][0]}
    about["resource"], _, about["subresource"] = rule["resources"][0].partition("/")
    about |= {"name": rule["resourceNames"][0]} if "resourceNames" in rule else {}
    review: Any = {"spec": {"user": user(namespace), "resourceAttributes": about}}
    asked = client.AuthorizationV1Api(api)
    wait_until(lambda: asked.create_subject_access_review(review).status.allowed, "the Role holds", every_s=0.02)
    file = control_plane.kubeconfig_for_service_account(namespace, ACCOUNT)
    return Cluster(namespace, kubeconfig=file, timeout_s=30.0)


_REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role"}


def user(namespace: str) -> str:
    """The planner's user, as the audit log calls it."""
    return f"system:serviceaccount:{namespace}:{ACCOUNT}"


class Touched(Target):
    """A target whose objects change, but not in their replicas, between being seen and being written."""

    def __init__(self, target: Target, admin: Cluster) -> None:
        self._target, self._admin, self._times = target, admin, 0

    def read(self) -> Sequence[PoolTarget]:
        found = self._target.read()
        self.atomic = self._target.atomic
        return found

    def write(self, replicas: Mapping[str, int], seen: Sequence[PoolTarget]) -> None:
        for one in seen:
            if one.pool in replicas:
                self._times += 1
                note = {"metadata": {"annotations": {"touched": str(self._times)}}}
                self._admin.patch(one.resource, one.object_name, note)
        self._target.write(replicas, seen)

    def worker_of(self, pod: Mapping[str, Any], target: PoolTarget) -> str:
        return self._target.worker_of(pod, target)


class Scenario:
    """Every kind of request that a planner makes, once at least.

    Args:
        graph: whose objects are in the namespace.
        mine: the planner's client.
        admin: an administrator's, who does what users, kubelets and operators do.

    Attributes:
        lost: what could not be done, by the feature, with the reason.
    """

    def __init__(self, graph: Graph, mine: Cluster, admin: Cluster) -> None:
        self._graph, self._mine, self._admin = graph, mine, admin
        config = config_of(graph.overlay)
        self._settings = config.connector.kubernetes or KubernetesSettings()
        pools = [Pool(name, Role(one.role), 1) for name, one in config.pools.items()]
        self._target = Touched(make_target(mine, config.graph, pools, self._settings), admin)
        self._planner = KubernetesConnector(mine, config.graph, pools, self._settings, 64, target=self._target)
        self._state = StateMap(mine, config.service.checkpoint_config_map or "")
        self.lost: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        """All of it, as far as it goes."""
        with _said(self.lost):
            self._try("state", self._keep_state)
            if self._try("read", self._read) and self._try("lease", self._take_lease):
                if self._try("scale", self._scale):
                    self._try("hpa", self._meet_an_autoscaler)
                for pool in self._graph.layouts:
                    self._try("layout", lambda pool=pool: self._change_layout(pool))  # type: ignore[misc]
                self._try("lease", lambda: self._planner.release(ME))
        return self.lost

    def _try(self, feature: str, what: Callable[[], object]) -> bool:
        try:
            what()
        except ConnectorError as error:
            self.lost.setdefault(feature, str(error))
            return False
        return True

    def _keep_state(self) -> None:
        for content in (b"one", b"two"):
            self._state.write(content)
            assert self._state.read() == content

    def _read(self) -> None:
        for text in self._planner.read().notices:
            for words, feature in _NOTICED.items():
                if words in text:
                    self.lost[feature] = text

    def _take_lease(self) -> None:
        for _ in range(2):
            assert self._planner.lease(ME, 60.0).held

    def _apply(self, **plan: int) -> Mapping[str, str]:
        # As at every tick: on a busy machine the lease would be too old to write with.
        self._planner.lease(ME, 60.0)
        said = self._planner.apply(plan, ME)
        refused = next((text for text in said.values() if "not applied" in text), "")
        if refused and "HorizontalPodAutoscaler" not in refused:
            raise ConnectorError(refused)
        return said

    def _scale(self) -> None:
        assert self._apply(**{PREFILL: 2, DECODE: 2}) == {PREFILL: "1 -> 2", DECODE: "1 -> 2"}
        wait_until(self._all_pods, "the pods of all workers", PATIENCE_S, every_s=0.02)
        self.serve()
        self._planner.read()
        assert self._apply(**{PREFILL: 1, DECODE: 1}) == {PREFILL: "2 -> 1", DECODE: "2 -> 1"}

    def _all_pods(self) -> bool:
        """As many as the Deployments ask for."""
        asked = sum(one["spec"]["replicas"] for one in self._admin.list(resources.DEPLOYMENTS).items)
        pods = self._admin.list(resources.PODS).items
        return sum(_owner(one) == "ReplicaSet" for one in pods if not _goes(one)) >= asked

    def _meet_an_autoscaler(self) -> None:
        """It is found, the pool is left alone, and an Event says so; the Event is counted up."""
        [one] = [one for one in self._target.read() if one.pool == DECODE]
        to = {"apiVersion": one.resource.api_version, "kind": one.resource.kind, "name": one.object_name}
        body = {"metadata": {"name": "h"}, "spec": {"maxReplicas": 9, "scaleTargetRef": to}}
        self._admin.create(resources.AUTOSCALERS_V1, body)
        self._read()
        said = [self._apply(**{DECODE: 2}) for _ in range(2)]
        self._admin.delete(resources.AUTOSCALERS_V1, "h")
        if "hpa" not in self.lost:
            assert all("HorizontalPodAutoscaler h" in one[DECODE] for one in said)

    def _change_layout(self, pool: str) -> None:
        self._planner.read()
        self._planner.change_layout(
            LayoutProposal(
                pool=pool, role=Role.DECODE, old=(1, 1), new=(2, 1), old_workers=1, new_workers=1, new_gpus=2,
                least_capacity=1.0, patience_s=PATIENCE_S, duration_s=0.0, missing_s=0.0, peak_gpus=0,
            ),
            ME,
        )  # fmt: skip
        end = time.monotonic() + PATIENCE_S
        while self._planner.read().layout_change.under_way:
            self.serve()
            for text in self._apply(**{pool: 1}).values():
                if "403" in text:
                    raise ConnectorError(text)
            assert time.monotonic() < end
        assert self._planner.read().layouts[pool] == (2, 1)

    def serve(self) -> None:
        """What kubelets do: every pod that is there gets ready."""
        for one in self._admin.list(resources.PODS).items:
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            status = {"status": {"phase": "Running", "podIP": "10.0.0.9", "conditions": [ready]}}
            if one["status"].get("phase") == "Pending" and not _goes(one):
                with suppress(NotFoundError):  # gone meanwhile
                    self._admin.patch(resources.PODS, one["metadata"]["name"], status, subresource="status")

    def install(self) -> None:
        """The graph's objects."""
        for resource, body in self._graph.objects(config_of(self._graph.overlay).graph):
            self._admin.create(resource, {"apiVersion": resource.api_version, "kind": resource.kind, **body})


def _owner(pod: Object) -> str:
    return next((str(one["kind"]) for one in pod["metadata"].get("ownerReferences") or ()), "")


def _goes(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


@contextmanager
def _said(lost: dict[str, str]) -> Iterator[None]:
    """What the planner's log says that it goes without."""

    class Ears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for words, feature in _SAID.items():
                if words in record.getMessage():
                    lost[feature] = record.getMessage()

    ears, log = Ears(), logging.getLogger("planner.connectors")
    log.addHandler(ears)
    try:
        yield
    finally:
        log.removeHandler(ears)


__all__ = ["Scenario", "bind", "user", "without"]
