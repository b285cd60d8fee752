"""The graph on the cluster: objects of the pools, gateway, what protects workers that drain, the hub's token."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from planner.connectors.base import ConnectorError, Supply
from planner.connectors.kubernetes.errors import ClusterError, ForbiddenError, NotFoundError
from planner.connectors.kubernetes.pods import Phase, pod_of
from planner.connectors.kubernetes.resources import Resource
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.targets import gateway_selector
from planner.connectors.kubernetes.targets.discovery import MismatchError
from planner.connectors.kubernetes.view import GATEWAY_PORTS
from planner.core.types import Pool, Role
from planner.doctor.base import Check, failed, passed, plural, skipped, some, warned
from planner.doctor.objects import gateway_pods
from planner.doctor.quantities import main_container
from planner.doctor.scene import Scene

BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
BUDGETS_V1BETA1 = Resource("policy", "v1beta1", "poddisruptionbudgets", "PodDisruptionBudget")
SECRETS = Resource("", "v1", "secrets", "Secret")

#: Kubernetes' own, where a pod does not say.
DEFAULT_GRACE_S = 30

#: Tokens of an answer that a draining worker should be given the time for, where no profile says how long one may be.
LONGEST_OSL = 4096


def connector(scene: Scene) -> Iterable[Check]:
    """What the planner itself would read."""
    try:
        supply = scene.supply()
    except ConnectorError as error:
        fix = "mend what it names; until then the planner holds what it has"
        return [failed("connector", str(error), fix)]
    return list(judge_supply(supply, scene.settings.pools_by_name))


def judge_supply(supply: Supply, wanted: Mapping[str, Pool]) -> Iterator[Check]:
    """The graph as the connector sees it, against the configured pools."""
    wrong = supply.contradiction(wanted)
    if wrong is not None:
        fix = "give the pools the names and the GPUs of the graph, or name a profile of that layout"
        yield failed("connector", wrong, fix)
        return
    counts = ", ".join(f"{name} {pool.ready} of {pool.desired} ready" for name, pool in sorted(supply.pools.items()))
    yield passed("connector", f"as the planner sees it: {counts}")
    for notice in supply.notices:
        yield warned("notice", notice, "see the checks of pods and competing controllers; the planner reports it, too")


def pools(scene: Scene) -> Iterator[Check]:
    """Objects and their GPUs against the profiles."""
    try:
        found = scene.pools
    except (MismatchError, NotFoundError) as error:
        fix = "apply the graph, or name its objects in connector.kubernetes (graph, objects, or labels plimsoll.io/…)"
        yield failed("pools", str(error), fix)
        return
    for one in found:
        yield judge_pool(one.target, one.gpus_of_profile)


def judge_pool(target: PoolTarget, profile_gpus: int) -> Check:
    """One pool: the GPUs of its workers beside those that its profile was measured on."""
    gpus, name = target.gpus_per_worker, f"pool {target.pool}"
    text = f"{target.resource.kind} {target.object_name}: {plural(target.desired, 'worker')}"
    if target.pods_per_worker > 1:
        text += f" of {target.pods_per_worker} pods"
    if gpus is None:
        return warned(name, f"{text}; their GPUs cannot be read", "set gpus_per_worker of this object")
    if gpus == 0:
        return warned(name, f"{text} without GPU limits", f"the budget counts the profile's {profile_gpus}; set limits")
    if gpus != profile_gpus:
        fix = f"set the GPU limits to {profile_gpus}, or take a profile of this layout"
        return failed(name, f"{text} with {gpus} GPUs each; the profile is of {profile_gpus}", fix)
    return passed(name, f"{text} with {plural(gpus, 'GPU')} each, as in the profile")


def gateway(scene: Scene) -> Iterable[Check]:
    """Whether the gateway is found: what it was offered is the load."""
    settings = scene.kubernetes
    pods = [pod_of(pod) for pod in gateway_pods(scene)]
    ready = [pod for pod in pods if pod.phase is Phase.READY]
    where = gateway_selector(scene.configuration().graph, settings)
    if not pods:
        fix = "start the gateway, or set connector.kubernetes.gateway_selector to its pods' labels"
        return [failed("gateway", f"no pod has {where}: the load cannot be seen", fix)]
    if not ready:
        told = next((pod.trouble for pod in pods if pod.trouble), pods[0].phase.value)
        return [failed("gateway", f"none of {plural(len(pods), 'pod')} is ready: {told}", "see kubectl describe pod")]
    unnamed = [pod.name for pod in ready if not pod.address(settings.gateway_metrics_port, GATEWAY_PORTS)]
    if unnamed:
        fix = "name the container's port so, or set connector.kubernetes.gateway_metrics_port"
        text = f"{some(unnamed)} has no port {settings.gateway_metrics_port}"
        return [failed("gateway", text, fix)]
    return [passed("gateway", f"{plural(len(ready), 'pod')}: {some([pod.name for pod in ready])}")]


def disruption(scene: Scene) -> Iterator[Check]:
    """PodDisruptionBudgets: drains of nodes must not take a pool's last worker, nor be blocked for ever."""
    cluster = scene.api()
    try:
        found = cluster.list(BUDGETS).items
    except NotFoundError:
        found = cluster.list(BUDGETS_V1BETA1).items
    for one in scene.pools:
        yield judge_disruption(one.pool, [pod["metadata"].get("labels") or {} for pod in one.pods], found)


def judge_disruption(pool: str, labels: Sequence[Mapping[str, str]], budgets: Sequence[Mapping[str, Any]]) -> Check:
    """The budgets that cover a pool's pods."""
    name = f"disruption {pool}"
    covering = [one for one in budgets if any(_covers(one, each) for each in labels)]
    if not labels:
        return skipped(name, "it has no pods to look for")
    if not covering:
        fix = "add a PodDisruptionBudget (maxUnavailable: 1) that selects its pods"
        return warned(name, "no PodDisruptionBudget: draining nodes may take all workers at once", fix)
    blocked = [one["metadata"]["name"] for one in covering if (one.get("status") or {}).get("disruptionsAllowed") == 0]
    if len(covering) > 1:
        text = f"{len(covering)} PodDisruptionBudgets cover one pod: evictions are refused"
        return warned(name, text, f"leave one of {some([str(one['metadata']['name']) for one in covering])}")
    if blocked:
        text = f"{blocked[0]} allows no disruption now: drains of nodes wait"
        return warned(name, text, "nothing while workers start; else raise maxUnavailable or add a worker")
    return passed(name, str(covering[0]["metadata"]["name"]))


def _covers(budget: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = ((budget.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def grace(scene: Scene) -> Iterator[Check]:
    """Seconds that a pod has to end, beside the longest answer that it may be in the middle of."""
    itl_s = scene.configuration().sla.itl_ms / 1000.0
    limits = {
        str(profile.meta.role): profile.meta.limits.max_model_len
        for profile in scene.profiles
        if profile.meta.limits.max_model_len
    }
    for one in scene.pools:
        if not one.spec:
            continue
        if one.role is Role.PREFILL:
            # A prompt takes seconds, and its hand-off as long as the decode worker needs to fetch it.
            needed_s = max(DEFAULT_GRACE_S, math.ceil(2 * scene.configuration().sla.ttft_ms / 1000.0))
        else:
            needed_s = math.ceil(min(limits.get(one.role.value) or LONGEST_OSL, LONGEST_OSL) * itl_s)
        yield judge_grace(one.pool, one.spec, needed_s)


def judge_grace(pool: str, spec: Mapping[str, Any], needed_s: int) -> Check:
    """A pod template whose longest request takes so many seconds at the SLA's pace."""
    name = f"grace {pool}"
    given = spec.get("terminationGracePeriodSeconds")
    given_s = DEFAULT_GRACE_S if given is None else int(given)
    lifecycle = main_container(spec).get("lifecycle") or {}
    if given_s < needed_s:
        text = f"{given_s} s{' (the default)' if given is None else ''}; the longest request is taken for {needed_s} s"
        return warned(name, text, f"set terminationGracePeriodSeconds: {needed_s}, or scale-downs cut long answers off")
    if "preStop" not in lifecycle:
        text = f"{given_s} s, and no preStop: an engine that ends at SIGTERM loses what it computes"
        return warned(name, text, "render the graph with its drain (planner graph render), or add a preStop")
    return passed(name, f"{given_s} s, with a preStop; the longest request is taken for {needed_s} s")


def secrets(scene: Scene) -> Iterable[Check]:
    """Secrets that the workers' pods name; only whether they are there is asked, never what is in them."""
    named = sorted({secret for one in scene.pools for secret in secrets_in(one.spec)})
    if not named:
        return [passed("secrets", "the workers' pods name no Secret; models without a licence to accept need none")]
    checks = []
    for name in named:
        try:
            there = scene.api().find(SECRETS, name) is not None
        except ForbiddenError:
            text = f"whether Secret {name} is there cannot be seen; a planner needs no right to read Secrets"
            checks.append(skipped("secrets", text, f"kubectl get secret {name}"))
            continue
        except ClusterError as error:
            checks.append(skipped("secrets", str(error)))
            continue
        if there:
            checks.append(passed("secrets", f"{name} is there"))
        else:
            fix = f"kubectl create secret generic {name} --from-literal=HF_TOKEN=…"
            checks.append(failed("secrets", f"the workers name Secret {name}, which is not there", fix))
    return checks


def secrets_in(spec: Mapping[str, Any]) -> Iterator[str]:
    """Names of Secrets that a pod cannot start without."""
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for one in container.get("envFrom") or ():
            yield from _required(one.get("secretRef"))
        for one in container.get("env") or ():
            yield from _required((one.get("valueFrom") or {}).get("secretKeyRef"))
    for one in spec.get("volumes") or ():
        secret = one.get("secret") or {}
        if secret.get("secretName") and not secret.get("optional"):
            yield str(secret["secretName"])
    for one in spec.get("imagePullSecrets") or ():
        yield str(one["name"])


def _required(reference: Mapping[str, Any] | None) -> Iterator[str]:
    if reference and reference.get("name") and not reference.get("optional"):
        yield str(reference["name"])
