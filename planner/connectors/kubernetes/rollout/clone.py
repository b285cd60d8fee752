"""A pool's object copied for another layout. Pure: the object that is there in, the one to make out."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final

from planner.connectors.kubernetes.resources import DEPLOYMENTS, LEADER_WORKER_SETS, Resource
from planner.connectors.kubernetes.targets.pods import gpus_in
from profiler.errors import InputError
from worker_graph.kubernetes import labels as names
from worker_graph.kubernetes.relayout import relayout

#: Kinds whose pools can be copied.
KINDS: Final = (DEPLOYMENTS, LEADER_WORKER_SETS)

#: Label of an object that is out of use, in place of `plimsoll.io/pool`: the pool that it was of.
RETIRED: Final = names.RETIRED

#: Annotation of a copy: the object that it was made from.
CLONED_FROM: Final = f"{names.DOMAIN}/cloned-from"

#: Annotation of a retired object: the one that stands for it.
REPLACED_BY: Final = f"{names.DOMAIN}/replaced-by"

#: What names an object's keeper: one that prunes what it finds under its name would end the copy.
_KEEPERS: Final = re.compile(
    r"(kubectl\.kubernetes\.io/last-applied-configuration|deployment\.kubernetes\.io/.*|argocd\.argoproj\.io/.*|"
    r"(kustomize|helm)\.toolkit\.fluxcd\.io/.*|meta\.helm\.sh/.*|helm\.sh/.*|app\.kubernetes\.io/instance)"
)
_SUFFIX: Final = re.compile(r"-tp[1-9][0-9]*(-dp[1-9][0-9]*)?\Z")

_Object = dict[str, Any]


def clone_name(name: str, tp: int, dp: int) -> str:
    """Name of a copy: `decode` and `decode-tp2` both become `decode-tp4`; at most 63 characters."""
    suffix = f"tp{tp}" if dp == 1 else f"tp{tp}-dp{dp}"
    return names.object_name(_SUFFIX.sub("", name), suffix)


def clone(thing: Mapping[str, Any], resource: Resource, tp: int, dp: int, name: str) -> _Object:
    """A Deployment or LeaderWorkerSet for another layout, with no workers yet.

    Its pods keep the labels that Services, PodDisruptionBudgets and monitors find a pool's pods by, and carry their
    own `plimsoll.io/layout`, which its selector asks for. An original whose selector asks for it as well finds none of
    the copy's pods; one whose selector does not still owns its own alone, for controllers go by owner references.

    Args:
        thing: the object that is there; it stays as it is.
        resource: its kind.
        tp: tensor-parallel size.
        dp: data-parallel size.
        name: of the copy.

    Raises:
        InputError: a kind, a worker of several nodes or a container whose layout cannot be changed.
    """
    if resource not in KINDS:
        right = " or ".join(one.kind for one in KINDS)
        raise InputError(f"is a {resource.kind}", expected=f"a {right}, to change its layout", field=name)
    made = copy.deepcopy(dict(thing))
    made.pop("status", None)
    meta, layout = made["metadata"], names.layout(tp, dp)
    original = str(meta["name"])
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if not _KEEPERS.fullmatch(key)}
    pool = labels.pop(RETIRED, None)
    if pool is not None:
        labels[names.POOL] = pool
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if not _KEEPERS.fullmatch(key)}
    annotations.pop(REPLACED_BY, None)
    made["metadata"] = {
        "name": name,
        "labels": {**labels, "app.kubernetes.io/managed-by": names.PART_OF, names.LAYOUT: layout},
        "annotations": {**annotations, CLONED_FROM: original},
    }
    if meta.get("namespace"):
        made["metadata"]["namespace"] = meta["namespace"]
    spec = made["spec"]
    spec["replicas"] = 0
    if resource == DEPLOYMENTS:
        selector = spec["selector"]
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), names.LAYOUT: layout}
        _relayout(spec["template"], tp, dp, original)
        return made
    group = spec["leaderWorkerTemplate"]
    if int(group.get("size", 1)) > 1:
        problem = f"has workers of {group['size']} pods"
        raise InputError(problem, expected="workers of one node, to change their layout", field=original)
    for template in (group[key] for key in ("leaderTemplate", "workerTemplate") if group.get(key)):
        _relayout(template, tp, dp, original)
    return made


def template_patch(made: Mapping[str, Any], resource: Resource) -> _Object:
    """What brings a retired object to the state of a fresh copy, as a JSON merge patch; selectors cannot change.

    Args:
        made: by `clone`, with the retired object's own name.
        resource: kind of the objects.
    """
    meta = made["metadata"]
    part = "template" if resource == DEPLOYMENTS else "leaderWorkerTemplate"
    return {
        "metadata": {
            "labels": {**meta["labels"], RETIRED: None},
            "annotations": {**meta["annotations"], REPLACED_BY: None},
        },
        "spec": {"replicas": 0, part: made["spec"][part]},
    }


def gpus_of_layout(thing: Mapping[str, Any], resource: Resource, tp: int, dp: int) -> int:
    """GPUs of a worker of the copy.

    Raises:
        InputError: as `clone`.
    """
    spec = clone(thing, resource, tp, dp, str(thing["metadata"]["name"]))["spec"]
    template = spec["template"] if resource == DEPLOYMENTS else spec["leaderWorkerTemplate"]["workerTemplate"]
    return sum(gpus_in(one.get("resources") or {}) for one in template["spec"]["containers"])


def _relayout(template: _Object, tp: int, dp: int, name: str) -> None:
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), names.LAYOUT: names.layout(tp, dp)}
    containers = template["spec"]["containers"]
    at = _engine(containers, name)
    containers[at] = relayout(containers[at], tp, dp)


def _engine(containers: list[_Object], name: str) -> int:
    """Which container runs the engine: the one called main, the one that has GPUs, or the only one."""
    likely = [i for i, one in enumerate(containers) if one.get("name") == names.MAIN_CONTAINER]
    likely = likely or [i for i, one in enumerate(containers) if gpus_in(one.get("resources") or {})]
    likely = likely or list(range(len(containers)))
    if len(likely) != 1:
        raise InputError(
            f"has {len(likely)} containers that may be the engine",
            expected=f"one that is called {names.MAIN_CONTAINER}",
            field=name,
        )
    return likely[0]
