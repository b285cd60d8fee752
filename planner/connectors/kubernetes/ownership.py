"""Who sets the replicas of an object, by its managed fields, and who of them gives way to the planner.

The API server notes which client wrote each field last (`metadata.managedFields`). Of those that own a replicas field

- the planner itself is one (manager `plimsoll-planner`);
- the author of a manifest is another: kubectl, helm, Argo CD, Flux, Terraform, a console, or whoever owns the pod
  template along with the replicas. Their number was where the graph began; the planner takes the field from them;
- everyone else is a controller that scales: the HorizontalPodAutoscaler (manager kube-controller-manager), KEDA, an
  operator, another planner. Two that set one field fight, so this is an error that names it, unless the configuration
  says `takeover: always`.

A claim outlives its owner: an autoscaler that was deleted still stands in the managed fields. So a claim of the
kube-controller-manager or of KEDA counts only while there is an autoscaler for the object.

What the servers do. From 1.22 on, `/scale` takes part (https://github.com/kubernetes/kubernetes/pull/98377): a
write through it is noted in the object's managed fields under `subresource: scale`, and server-side apply on it is
refused (409, "conflict with …") while others own the field. Before, seen on 1.20.2, writes through `/scale` leave no
trace, whoever makes them, and server-side apply on it always conflicts with "before-first-apply": there, the planner
sends merge patches, and who fights is seen only by what they do (`rivals.Fights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.connectors.kubernetes.cluster import FIELD_MANAGER
from planner.connectors.kubernetes.errors import ConflictError

#: Where most kinds keep their replicas, as managed fields write it.
REPLICAS = ("f:spec", "f:replicas")

#: Autoscalers whose claim counts only while they have an object that says so.
AUTOSCALER_MANAGERS = ("kube-controller-manager", "keda")

#: Field managers of people and of what applies their manifests, by how their names begin, in lower case.
_AUTHORS = (
    "kubectl", "helm", "argocd", "argo-cd", "kustomize", "flux", "terraform", "hashicorp", "pulumi", "ansible",
    "before-first-apply", "rancher", "lens", "k9s", "mozilla", "node-fetch", "dashboard", "openshift-console",
)  # fmt: skip


class OwnedByOtherError(ConflictError):
    """Another controller owns the replicas; a fresh read does not help."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One owner of a replicas field.

    Attributes:
        manager: name that the client gave.
        subresource: through which it wrote; empty for the object itself.
        whole: whether it owns more of the object's spec than the replicas, as the author of a manifest does.
        time: of its last write, RFC 3339; claims are compared by it.
    """

    manager: str
    subresource: str = ""
    whole: bool = False
    time: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is the planner's."""
        return self.manager == FIELD_MANAGER

    @property
    def scales(self) -> bool:
        """Whether it is a controller's that scales, and not the author's of a manifest."""
        return not (self.ours or self.whole or self.manager.lower().startswith(_AUTHORS))


def claims_of(thing: Mapping[str, Any], path: Sequence[str] = REPLICAS) -> tuple[Claim, ...]:
    """Who owns a field of an object, newest last.

    Args:
        thing: the object.
        path: of the field, as managed fields write it, such as `f:spec`, `k:{"name":"x"}`, `f:replicas`.
    """
    found = []
    for entry in thing.get("metadata", {}).get("managedFields") or ():
        fields: Any = entry.get("fieldsV1") or {}
        around: Any = {}
        for step in path:
            around, fields = fields, fields.get(step) if isinstance(fields, dict) else None
        if fields is None:
            continue
        whole = any(key not in {path[-1], ".", "f:name", 'k:{"name"}'} for key in around)
        manager, subresource = str(entry.get("manager") or "unknown"), str(entry.get("subresource") or "")
        found.append(Claim(manager, subresource, whole, str(entry.get("time") or "")))
    return tuple(sorted(found, key=lambda claim: claim.time))


def managers_of(claims: Sequence[Claim]) -> tuple[str, ...]:
    """Their names, newest last, each once."""
    return tuple(dict.fromkeys(claim.manager for claim in claims))
