"""Security contexts: no root, no privileges, the runtime's system call filter. What the file says wins."""

from __future__ import annotations

import copy
from typing import Any, Final

#: Of the pods' user; images that name no other user run as this one, and the volumes belong to its group.
USER: Final = 2000


def pod_security(own: dict[str, Any] | None) -> dict[str, Any]:
    """Of a pod."""
    ours = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # A volume with a model's files is large: changing the owner of each at every start takes minutes.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {**ours, **copy.deepcopy(own or {})}


def container_security(own: dict[str, Any] | None, *, read_only: bool = False) -> dict[str, Any]:
    """Of a container."""
    ours: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    if read_only:
        ours["readOnlyRootFilesystem"] = True
    return {**ours, **copy.deepcopy(own or {})}
