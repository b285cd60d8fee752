"""Volumes that the file asks for: shared memory, claims and what mounts them, the cache of compiled kernels."""

from __future__ import annotations

from typing import Any, Final

from worker_graph.kubernetes.podfields import PodFields, only
from worker_graph.spec.node import Node

#: Where a cache of compiled kernels is mounted that the file gives no folder.
CACHE_FOLDER: Final = "/var/cache/vllm"


def add_volumes(graph: Node, node: Node, found: PodFields) -> None:
    """Shared memory, the compilation cache, and v1alpha1's claims and mounts."""
    memory, size = node.get("sharedMemory"), node.get("sharedMemorySize")
    if memory is not None:
        only(memory, {"disabled", "size"}, lambda below, _: below.error("is no field of sharedMemory"))
        found.shared_memory = "" if memory.mapping().get("disabled") is True else memory.mapping().get("size")
    if size is not None:
        found.shared_memory = "" if str(size.value) == "0" else str(size.value)
    claims = {each.mapping().get("name"): each for each in graph.below("pvcs")}
    volumes: list[dict[str, Any]] = found.pod.setdefault("volumes", [])
    mounts: list[dict[str, Any]] = found.main.setdefault("volumeMounts", [])

    def mount(claim: str, path: str) -> None:
        if all(volume.get("name") != claim for volume in volumes):
            volumes.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": claim, "mountPath": path})

    for entry in node.below("volumeMounts"):
        only(
            entry,
            {"name", "mountPoint", "useAsCompilationCache"},
            lambda below, _: below.error("is no field of a mount"),
        )
        name, path = entry.get("name"), entry.get("mountPoint")
        if name is None or name.text() not in claims:
            raise entry.error("names no claim of spec.pvcs", ", ".join(map(str, claims)) or "a claim in spec.pvcs")
        cached = entry.mapping().get("useAsCompilationCache") is True
        if path is None and not cached:
            raise entry.error("has no mountPoint", "the folder to mount it at")
        where = path.text() if path is not None else CACHE_FOLDER
        mount(name.text(), where)
        found.compilation_cache = where if cached else found.compilation_cache
        if claims[name.text()].mapping().get("create") is True:
            found.claims.append(_claim(claims[name.text()]))
    cache = node.get("compilationCache")
    if cache is not None:
        only(cache, {"pvcName", "mountPath"}, lambda below, _: below.error("is no field of compilationCache"))
        claim, path = cache.get("pvcName"), cache.get("mountPath")
        if claim is None:
            raise cache.error("has no pvcName", "the claim that holds the cache")
        found.compilation_cache = path.text() if path is not None else CACHE_FOLDER
        mount(claim.text(), found.compilation_cache)
    for holder, key in ((found.pod, "volumes"), (found.main, "volumeMounts")):
        if not holder[key]:
            del holder[key]


def _claim(node: Node) -> dict[str, Any]:
    values = {}
    for key in ("name", "storageClass", "size", "volumeAccessMode"):
        value = node.get(key)
        if value is None:
            raise node.error(
                f"has no {key}", "name, storageClass, size and volumeAccessMode of a claim that is to be made"
            )
        values[key] = str(value.value)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": values["name"]},
        "spec": {
            "accessModes": [values["volumeAccessMode"]],
            "storageClassName": values["storageClass"],
            "resources": {"requests": {"storage": values["size"]}},
        },
    }
