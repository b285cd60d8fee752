"""The rights that the planner uses, by what holds the pools: one table for the check, the manifests and the docs.

Whoever changes what the planner asks of an API server changes it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from planner.connectors.kubernetes.errors import ForbiddenError, NotFoundError
from planner.connectors.kubernetes.lease import lease_name
from planner.connectors.kubernetes.resources import DEPLOYMENTS, LEADER_WORKER_SETS
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.doctor.base import Check, failed, passed, plural, skipped, some, warned
from planner.doctor.scene import Scene
from worker_graph.kubernetes.labels import GRAPH, PART_OF, object_name

if TYPE_CHECKING:
    from planner.connectors.kubernetes.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on one kind of objects in the graph's namespace.

    Attributes:
        group: API group; empty for the core group.
        resource: plural, with `/SUBRESOURCE` behind it if it is one.
        verbs: as in a Role.
        why: what the planner does with them.
        optional: what is lost without them; empty where the planner does not work without.
        named: name of the one object that they are for; empty for all. Creating cannot be narrowed to a name.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str
    optional: str = ""
    named: str = ""

    @property
    def name(self) -> str:
        """`deployments.apps/scale`."""
        plural_name, _, subresource = self.resource.partition("/")
        return f"{plural_name}{'.' + self.group if self.group else ''}{'/' + subresource if subresource else ''}"


#: For any graph. Names are filled in: of its lease, of its state, of the one object that holds all pools.
LEASE, STATE, OBJECT = "{lease}", "{state}", "{object}"
COMMON = (
    Right("", "pods", ("list",), "tells starting, ready, unschedulable and failing workers apart"),
    Right("", "pods", ("patch",), "marks the least loaded pods before a scale-down (deletion cost)",
          "scale-downs end the youngest pods (connector.kubernetes.deletion_cost: false)"),
    Right("coordination.k8s.io", "leases", ("create",), "one planner acts at a time"),
    Right("coordination.k8s.io", "leases", ("get", "update"), "one planner acts at a time", named=LEASE),
    Right("", "configmaps", ("create",), "records a change of layout, for whoever carries it on"),
    Right("", "configmaps", ("get", "patch"), "records a change of layout, for whoever carries it on", named=STATE),
    Right("events.k8s.io", "events", ("create", "patch"), "writes an Event for every action",
          "no Events (connector.kubernetes.events: false)"),
    Right("autoscaling", "horizontalpodautoscalers", ("list",), "finds an HPA on the same replicas",
          "a competing HPA is noticed only by what it does"),
    Right("keda.sh", "scaledobjects", ("list",), "finds KEDA on the same replicas",
          "a competing ScaledObject is noticed only by what it does"),
)  # fmt: skip

_READS, _SETS = "reads replicas, GPUs and engine arguments", "sets replicas"
_CHANGES = "makes the pool of another layout, and takes the old one out of use"
_NO_CHANGES = "no changes of TP and DP"


def _plain(group: str, resource: str) -> tuple[Right, ...]:
    """One object per pool that the planner can also make another of."""
    return (
        Right(group, resource, ("list",), _READS),
        Right(group, f"{resource}/scale", ("get", "patch"), _SETS),
        Right(group, resource, ("get", "create", "patch"), _CHANGES, _NO_CHANGES),
    )


def _scaled(group: str, resource: str) -> tuple[Right, ...]:
    """Anything with a scale subresource."""
    return (
        Right(group, resource, ("list",), _READS),
        Right(group, f"{resource}/scale", ("get", "patch"), _SETS),
    )


_CLIQUES, _CLIQUE_GROUPS = _scaled("grove.io", "podcliques"), _scaled("grove.io", "podcliquescalinggroups")

#: By kind of the objects that hold the pools.
BY_KIND: dict[str, tuple[Right, ...]] = {
    "Deployment": _plain("apps", "deployments"),
    "StatefulSet": _scaled("apps", "statefulsets"),
    "LeaderWorkerSet": _plain("leaderworkerset.x-k8s.io", "leaderworkersets"),
    "PodCliqueSet": (Right("grove.io", "podcliquesets", ("get",), _READS, named=OBJECT), *_CLIQUES, *_CLIQUE_GROUPS),
    "PodClique": (*_CLIQUES, Right("grove.io", "podcliquesets", ("list",), _READS)),
    "PodCliqueScalingGroup": (*_CLIQUE_GROUPS, Right("grove.io", "podcliquesets", ("list",), _READS)),
    "DynamoGraphDeployment": (
        Right("nvidia.com", "dynamographdeployments", ("get", "patch"), "reads the graph and sets its replicas",
              named=OBJECT),
        Right("nvidia.com", "dynamographdeploymentscalingadapters", ("list",), "finds the scaling adapters"),
        Right("nvidia.com", "dynamographdeploymentscalingadapters/scale", ("get", "patch"), "sets replicas by them"),
    ),
}  # fmt: skip

#: Kinds whose pods no ReplicaSet owns: a scale-down ends the highest index, and there is nothing to mark.
INDEXED = ("StatefulSet", "LeaderWorkerSet", "PodCliqueSet", "PodClique", "PodCliqueScalingGroup")

#: What a planner never needs; with any of these its token is worth stealing.
EXCESS = (
    ("*", "*", "*", "everything in the namespace"),
    ("get", "", "secrets", "reading Secrets"),
    ("create", "", "pods/exec", "running commands in pods"),
    ("delete", "apps", "deployments", "deleting Deployments"),
    ("create", "rbac.authorization.k8s.io", "rolebindings", "giving rights to others"),
)


def rights_for(
    settings: KubernetesSettings | None, graph: str = "", state: str | None = None, *, kinds: Iterable[str] = ()
) -> tuple[Right, ...]:
    """All rights that a planner uses with these settings.

    Args:
        settings: of the configuration's section; None for the defaults.
        graph: whose lease and state; without it the rights are for all leases and ConfigMaps.
        state: ConfigMap of the checkpoint, where there is one (service.checkpoint_config_map).
        kinds: of the objects with the graph's label; Deployments without any.
    """
    settings = settings or KubernetesSettings()
    found = list(COMMON)
    if settings.graph is not None:
        held_by = [str(settings.graph.kind)]
    else:
        held_by = sorted({one.kind for one in (settings.objects or {}).values()}) or list(kinds) or ["Deployment"]
    for kind in held_by:
        plural_name, _, group = kind.partition(".")
        found += BY_KIND.get(kind) or _scaled(group, plural_name)
    if not settings.deletion_cost or all(kind in INDEXED for kind in held_by):
        found = [one for one in found if (one.resource, one.verbs) != ("pods", ("patch",))]
    if not settings.events:
        found = [one for one in found if one.resource != "events"]
    if state is not None:
        why = "keeps what was learned, for a standby"
        found.append(Right("", "configmaps", ("get", "patch"), why, named=state))
    names = {LEASE: "", STATE: "", OBJECT: settings.graph.name if settings.graph is not None else ""}
    if graph:
        names |= {LEASE: lease_name(graph), STATE: object_name(PART_OF, graph, "state")}
    return tuple(dict.fromkeys(replace(one, named=names.get(one.named, one.named)) for one in found))


def allowed(
    cluster: Cluster, verb: str, group: str, resource: str, *, named: str = "", everywhere: bool = False
) -> bool:
    """Whether the user may do this, by a SelfSubjectAccessReview, which everybody may ask.

    Args:
        cluster: in whose namespace.
        verb: as in a Role.
        group: as in a Role.
        resource: as in a Role, with a subresource behind it, too.
        named: of the one object; all without it.
        everywhere: in all namespaces, and for objects outside of any.

    Raises:
        ClusterError: it cannot be asked.
    """
    name, _, subresource = resource.partition("/")
    about = {"verb": verb, "group": group, "resource": name}
    about |= {"subresource": subresource} if subresource else {}
    about |= {"name": named} if named else {}
    about |= {} if everywhere else {"namespace": cluster.namespace}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": about},
    }
    return bool((cluster.review(body).get("status") or {}).get("allowed"))


def needed(scene: Scene) -> Iterator[Check]:
    """Every verb that the planner uses."""
    cluster, config = scene.api(), scene.config
    if config is not None and scene.on_kubernetes:
        kinds = _labelled_kinds(cluster, config.graph)
        wanted = rights_for(scene.kubernetes, config.graph, config.service.checkpoint_config_map, kinds=kinds)
    else:
        wanted = rights_for(None)
    asked = []
    for right in wanted:
        verbs = [
            verb
            for verb in right.verbs
            if not allowed(cluster, verb, right.group, right.resource, named=right.named if verb != "create" else "")
        ]
        asked.append((right, verbs))
    yield from judge(asked, cluster.namespace, graph_known=config is not None)


def _labelled_kinds(cluster: Cluster, graph: str) -> list[str]:
    """Kinds of the objects that carry the graph's label; Deployments where there are none, or none may be listed."""
    found = []
    for resource in (DEPLOYMENTS, LEADER_WORKER_SETS):
        try:
            if cluster.list(resource, labels=f"{GRAPH}={graph}").items:
                found.append(resource.kind)
        except (ForbiddenError, NotFoundError):
            continue  # not installed, or a right that is missing: asking for the rights says so
    return found


def judge(asked: Sequence[tuple[Right, list[str]]], namespace: str, *, graph_known: bool = True) -> Iterator[Check]:
    """Checks of rights.

    Args:
        asked: rights, and the verbs of each that are missing.
        namespace: in which.
        graph_known: whether names were asked for; a Role may give rights on the graph's own objects alone.
    """
    for right, missing in asked:
        if not missing:
            continue
        of_name = f" {right.named}" if right.named else ""
        text = f"may not {', '.join(missing)} {right.name}{of_name} in {namespace}: {right.why}"
        fix = f"add to the planner's Role: {rule(right, missing)}"
        if right.optional:
            yield warned(right.resource, text, f"{fix}; without it {right.optional}")
        elif not graph_known and right.resource in {"leases", "configmaps"} and "create" not in missing:
            yield skipped(right.resource, f"{text}; a Role may name them one by one", "give --config to ask for these")
        else:
            yield failed(right.resource, text, fix)
    have = sum(len(right.verbs) - len(missing) for right, missing in asked)
    wanted = sum(len(right.verbs) for right, _ in asked)
    if have == wanted:
        kinds = plural(len({right.name for right, _ in asked}), "kind")
        yield passed("verbs", f"all {wanted} that the planner uses, on {kinds} of objects in {namespace}")


def rule(right: Right, verbs: Iterable[str]) -> str:
    """A rule of a Role, on one line."""
    names = f", resourceNames: [{right.named}]" if right.named else ""
    return f'{{apiGroups: ["{right.group}"], resources: [{right.resource}]{names}, verbs: [{", ".join(verbs)}]}}'


def excess(scene: Scene) -> Iterable[Check]:
    """Whether there are rights that no planner needs."""
    cluster = scene.api()
    if allowed(cluster, "*", "*", "*", everywhere=True):
        fix = "run it in the planner's pod to ask for its own rights; if these are the planner's, bind the Role instead"
        return [warned("too much", "these are a cluster administrator's rights", fix)]
    found = [words for verb, group, resource, words in EXCESS if allowed(cluster, verb, group, resource)]
    if found:
        fix = "bind the planner's Role alone to its service account: it uses none of this"
        return [warned("too much", f"may do more than a planner needs: {some(found, 5)}", fix)]
    return [passed("too much", "nothing that a planner does not need")]
