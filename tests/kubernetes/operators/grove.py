"""What Grove's operator does, as far as a planner sees it: cliques of pods with its names, labels and variables.

A PodCliqueSet makes PodCliques, and PodCliqueScalingGroups that make PodCliques for each of their replicas; replicas
are taken from the templates once, so that the objects' own scale counts from then on. No gangs: the default scheduler
places each pod for itself. A changed PodSpec is not rolled out.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection
from typing import Any

from tests.kubernetes.api import Object, unless
from tests.kubernetes.operators.base import Operator, is_ready, owner, with_env

PODS = "/api/v1/pods"
CLIQUES = "/apis/grove.io/v1alpha1/podcliques"
GROUPS = "/apis/grove.io/v1alpha1/podcliquescalinggroups"
SETS = "/apis/grove.io/v1alpha1/podcliquesets"

SET_INDEX, GROUP_INDEX = "grove.io/podcliqueset-replica-index", "grove.io/podcliquescalinggroup-replica-index"
CLIQUE, GROUP, POD_INDEX = "grove.io/podclique", "grove.io/podcliquescalinggroup", "grove.io/podclique-pod-index"


def managed(set_name: str, index: str, component: str) -> dict[str, str]:
    """Labels of every object of a set."""
    return {
        "app.kubernetes.io/managed-by": "grove-operator",
        "app.kubernetes.io/part-of": set_name,
        "app.kubernetes.io/component": component,
        SET_INDEX: index,
    }


def clique_of(template: Object, name: str, labels: dict[str, str], variables: dict[str, str], parent: Object) -> Object:
    """A PodClique from a template of its set."""
    spec = template["spec"]
    return {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodClique",
        "metadata": {
            "name": name,
            "labels": {**template.get("labels", {}), **labels},
            "annotations": template.get("annotations", {}),
            "ownerReferences": owner(parent),
        },
        "spec": {**spec, "podSpec": with_env(spec["podSpec"], {**variables, "GROVE_PCLQ_NAME": name})},
    }


def set_variables(parent: Object, set_name: str, index: str) -> dict[str, str]:
    """What containers of a set's replica know of it."""
    service = f"{set_name}-{index}.{parent['metadata']['namespace']}.svc.cluster.local"
    return {"GROVE_PCS_NAME": set_name, "GROVE_PCS_INDEX": index, "GROVE_HEADLESS_SERVICE": service}


async def make(operator: Operator, namespace: str, collection: str, body: Object, there: Collection[str]) -> None:
    """Make an object unless one of its name is there."""
    if body["metadata"]["name"] not in there:
        await unless(409, operator.api.create(operator.path(namespace, collection=collection), body))


class PodCliqueSets(Operator):
    """PodCliqueSets to PodCliques and scaling groups."""

    kind = "PodCliqueSet"
    collection = SETS
    children = (CLIQUES, GROUPS)

    async def reconcile(self, it: Object) -> None:
        """Every replica's cliques and groups."""
        about, template = it["metadata"], it["spec"]["template"]
        groups = template.get("podCliqueScalingGroups", [])
        grouped = {name for group in groups for name in group["cliqueNames"]}
        wanted = int(it["spec"]["replicas"])
        children = [(one, path) for path in (CLIQUES, GROUPS) for one in await self.owned(it, path)]
        there = {one["metadata"]["name"] for one, _ in children}
        for index in map(str, range(wanted)):
            for clique in template["cliques"]:
                if clique["name"] not in grouped:
                    labels = managed(about["name"], index, "pcs-podclique")
                    variables = set_variables(it, about["name"], index)
                    body = clique_of(clique, f"{about['name']}-{index}-{clique['name']}", labels, variables, it)
                    await make(self, about["namespace"], CLIQUES, body, there)
            for group in groups:
                body = {
                    "apiVersion": "grove.io/v1alpha1",
                    "kind": "PodCliqueScalingGroup",
                    "metadata": {
                        "name": f"{about['name']}-{index}-{group['name']}",
                        "labels": managed(about["name"], index, "pcs-podcliquescalinggroup"),
                        "ownerReferences": owner(it),
                    },
                    "spec": {key: group[key] for key in ("replicas", "minAvailable", "cliqueNames")},
                }
                await make(self, about["namespace"], GROUPS, body, there)
        for one, path in children:
            if int(one["metadata"]["labels"][SET_INDEX]) >= wanted:
                await self.delete(one, path)
        # Of the objects that were there before: what was made just now serves nothing yet.
        enough = Counter(one["metadata"]["labels"][SET_INDEX] for one, _ in children if _has_enough(one))
        each = len(template["cliques"]) - len(grouped) + len(groups)
        status = {
            "observedGeneration": about["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "availableReplicas": sum(enough[str(index)] == each for index in range(wanted)),
            "hpaPodSelector": f"app.kubernetes.io/part-of={about['name']}",
        }
        await self.set_status(it, status)


class PodCliqueScalingGroups(Operator):
    """Scaling groups to the PodCliques of each of their replicas."""

    kind = "PodCliqueScalingGroup"
    collection = GROUPS
    children = (CLIQUES,)

    async def reconcile(self, it: Object) -> None:
        """Every replica's cliques, from the set's templates."""
        about, wanted = it["metadata"], int(it["spec"]["replicas"])
        set_name, set_index = about["labels"]["app.kubernetes.io/part-of"], about["labels"][SET_INDEX]
        parent = await self.api.find(self.path(about["namespace"], set_name, SETS))
        if parent is None:
            return
        templates = {one["name"]: one for one in parent["spec"]["template"]["cliques"]}
        cliques_there = await self.owned(it, CLIQUES)
        names = {one["metadata"]["name"] for one in cliques_there}
        pods = sum(int(templates[name]["spec"]["replicas"]) for name in it["spec"]["cliqueNames"])
        for index in map(str, range(wanted)):
            labels = managed(set_name, set_index, "pcsg-podclique") | {GROUP: about["name"], GROUP_INDEX: index}
            variables = set_variables(it, set_name, set_index) | {
                "GROVE_PCSG_NAME": about["name"],
                "GROVE_PCSG_INDEX": index,
                "GROVE_PCSG_TEMPLATE_NUM_PODS": str(pods),
            }
            for name in it["spec"]["cliqueNames"]:
                body = clique_of(templates[name], f"{about['name']}-{index}-{name}", labels, variables, it)
                await make(self, about["namespace"], CLIQUES, body, names)
        there: dict[int, list[Object]] = {}
        for clique in cliques_there:
            there.setdefault(int(clique["metadata"]["labels"][GROUP_INDEX]), []).append(clique)
        for index, cliques in there.items():
            if index >= wanted:
                for clique in cliques:
                    await self.delete(clique, CLIQUES)
        whole = [
            cliques
            for index, cliques in there.items()
            if index < wanted and len(cliques) == len(it["spec"]["cliqueNames"])
        ]
        status = {
            "observedGeneration": about["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "scheduledReplicas": sum(all(_scheduled(one) for one in cliques) for cliques in whole),
            "availableReplicas": sum(all(_has_enough(one) for one in cliques) for cliques in whole),
            "selector": f"{GROUP}={about['name']}",
        }
        await self.set_status(it, status)


class PodCliques(Operator):
    """PodCliques to pods."""

    kind = "PodClique"
    collection = CLIQUES
    children = (PODS,)

    async def reconcile(self, it: Object) -> None:
        """As many pods as it has replicas; those that are not ready go first, then the highest indexes."""
        about, wanted = it["metadata"], int(it["spec"]["replicas"])
        pods = [
            pod for pod in await self.owned(it, PODS)
            if pod["status"].get("phase") not in {"Succeeded", "Failed"} and "deletionTimestamp" not in pod["metadata"]
        ]  # fmt: skip
        taken = {_index(pod) for pod in pods}
        free = (n for n in range(len(taken) + wanted) if n not in taken)
        for _ in range(wanted - len(pods)):
            body = self._pod(it, next(free))
            pods.append(await self.api.create(self.path(about["namespace"], collection=PODS), body))
        pods.sort(key=lambda pod: (not is_ready(pod), _index(pod)))
        for pod in pods[wanted:]:
            await self.delete(pod, PODS)
        kept = pods[:wanted]
        status = {
            "observedGeneration": about["generation"],
            "replicas": len(kept),
            "readyReplicas": sum(map(is_ready, kept)),
            "updatedReplicas": len(kept),
            "scheduledReplicas": sum("nodeName" in pod["spec"] for pod in kept),
            "scheduleGatedReplicas": 0,
            "hpaPodSelector": f"{CLIQUE}={about['name']}",
        }
        await self.set_status(it, status)

    def _pod(self, it: Object, index: int) -> Object:
        about = it["metadata"]
        labels = {**about.get("labels", {}), CLIQUE: about["name"], POD_INDEX: str(index)}
        spec = with_env(it["spec"]["podSpec"], {"GROVE_PCLQ_POD_INDEX": str(index)})
        return {
            "metadata": {
                "name": f"{about['name']}-{secrets.token_hex(3)}",
                "labels": labels,
                "annotations": about.get("annotations", {}),
                "ownerReferences": owner(it),
            },
            "spec": {**spec, "hostname": f"{about['name']}-{index}"},
        }


def _index(pod: Object) -> int:
    return int(pod["metadata"]["labels"][POD_INDEX])


def _count(one: Object, name: str) -> int:
    value: Any = one.get("status", {}).get(name, 0)
    return int(value)


def _has_enough(one: Object) -> bool:
    """Whether a clique or a group has what it needs at least."""
    least = int(one["spec"].get("minAvailable") or one["spec"]["replicas"])
    return _count(one, "readyReplicas" if one["kind"] == "PodClique" else "availableReplicas") >= least


def _scheduled(clique: Object) -> bool:
    return _count(clique, "scheduledReplicas") >= int(clique["spec"].get("minAvailable") or clique["spec"]["replicas"])
