"""What the operators of the tests share: objects to be looked at, and children that follow them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from tests.kubernetes.api import Api, ApiError, Object, unless
from tests.kubernetes.statuses import now

#: Paths of collections, and whose turn it is when one of their objects changes: namespace and name.
Watched = Mapping[str, Callable[[Object], tuple[str, str]]]

#: Between tries of what failed, and for definitions that are not there yet, s.
_RETRY_S = 0.5


class Operator(ABC):
    """Keeps the objects of one kind as they should be.

    Attributes:
        kind: of its objects.
        collection: path of all of them, "/apis/GROUP/VERSION/PLURAL".
        watched: paths of other collections, with what names this kind's object to look at again. Owned objects need
            none: their owner reference says it.
        children: paths of the collections of what it makes. They go with their owner at once: the cluster's garbage
            collector knows a new kind after half a minute only.
    """

    kind: str
    collection: str
    watched: ClassVar[Watched] = {}
    children: tuple[str, ...] = ()

    def __init__(self, api: Api) -> None:
        self.api = api
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._queued: set[tuple[str, str]] = set()
        self._known: dict[tuple[str, str], Object] = {}

    @abstractmethod
    async def reconcile(self, it: Object) -> None:
        """Bring one object's children and its status to where they should be."""

    def path(self, namespace: str, name: str = "", collection: str = "") -> str:
        """Of an object of this or another kind, or of all of a namespace."""
        head, _, plural = (collection or self.collection).rpartition("/")
        return f"{head}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")

    def again(self, namespace: str, name: str) -> None:
        """Look at an object once more."""
        if (namespace, name) not in self._queued:
            self._queued.add((namespace, name))
            self._queue.put_nowait((namespace, name))

    async def work(self) -> None:
        """Reconcile what is queued, for ever."""
        while True:
            namespace, name = key = await self._queue.get()
            self._queued.discard(key)
            try:
                it = await self.api.find(self.path(namespace, name))
                before = self._known.pop(key, None)
                if before is not None and (it is None or it["metadata"]["uid"] != before["metadata"]["uid"]):
                    await self._clear(before)
                if it is not None:
                    self._known[key] = it
                    if "deletionTimestamp" not in it["metadata"]:
                        await self.reconcile(it)
            except ApiError as error:
                # Somebody was faster, or the namespace goes: once more on fresh objects.
                print(f"{self.kind} {namespace}/{name}: {error}", file=sys.stderr, flush=True)
                asyncio.get_running_loop().call_later(_RETRY_S, self.again, namespace, name)

    async def set_status(self, it: Object, status: Object) -> None:
        """Write the status where it differs."""
        old = it.get("status", {})
        if any(old.get(key) != value for key, value in status.items()):
            path = self.path(it["metadata"]["namespace"], it["metadata"]["name"])
            await self.api.patch(f"{path}/status", {"status": status})

    async def owned(self, it: Object, collection: str, **labels: str) -> list[Object]:
        """The objects of a kind that this one owns."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        query = {"labelSelector": selector} if selector else {}
        found = await self.api.get(self.path(it["metadata"]["namespace"], collection=collection), **query)
        uid = it["metadata"]["uid"]
        return [one for one in found["items"] if any(ref["uid"] == uid for ref in owners(one))]

    async def _clear(self, gone: Object) -> None:
        for collection in self.children:
            for one in await unless(404, self.owned(gone, collection)) or []:
                await self.delete(one, collection)

    async def delete(self, one: Object, collection: str) -> None:
        """Delete an object unless it is gone."""
        about = one["metadata"]
        if "deletionTimestamp" not in about:
            await unless(404, self.api.delete(self.path(about["namespace"], about["name"], collection)))


async def run(api: Api, operators: list[Operator]) -> None:
    """Watch and work, for ever. Kinds that are not defined are waited for."""
    by_kind = {operator.kind: operator for operator in operators}
    children = {"/api/v1/pods", "/apis/apps/v1/deployments", "/apis/leaderworkerset.x-k8s.io/v1/leaderworkersets"}

    def seen(path: str, it: Object) -> None:
        namespace = it["metadata"].get("namespace", "")
        for operator in operators:
            if path == operator.collection:
                operator.again(namespace, it["metadata"]["name"])
            if path in operator.watched:
                operator.again(*operator.watched[path](it))
        for owner in owners(it):
            if (operator_of := by_kind.get(owner["kind"])) is not None:
                operator_of.again(namespace, owner["name"])

    async def follow(path: str) -> None:
        async def relisted(items: list[Object]) -> None:
            for it in items:
                seen(path, it)

        while True:
            with suppress(ApiError):
                async for _, it in api.follow(path, relisted):
                    seen(path, it)
            await asyncio.sleep(_RETRY_S)

    paths = (
        children | {one.collection for one in operators} | {path for operator in operators for path in operator.watched}
    )
    async with asyncio.TaskGroup() as group:
        for path in paths:
            group.create_task(follow(path))
        for operator in operators:
            group.create_task(operator.work())


def owners(it: Object) -> list[Object]:
    """Owner references."""
    return list(it["metadata"].get("ownerReferences", []))


def owner(it: Object) -> list[Object]:
    """What a child carries, so that it goes with its owner."""
    about = it["metadata"]
    reference = {"apiVersion": it["apiVersion"], "kind": it["kind"], "name": about["name"], "uid": about["uid"]}
    return [{**reference, "controller": True, "blockOwnerDeletion": True}]


def digest(value: Any) -> str:
    """A short hash of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready and not on its way out."""
    conditions = pod.get("status", {}).get("conditions", [])
    good = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return good and "deletionTimestamp" not in pod["metadata"]


def gpus(pod_spec: Object) -> int:
    """GPUs that the containers of a pod ask for."""
    limits = [one.get("resources", {}).get("limits", {}) for one in pod_spec.get("containers", [])]
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)


def condition(old: Object, kind: str, reason: str, message: str, *, value: bool) -> Object:
    """A condition, with the time of its last change."""
    status = "True" if value else "False"
    before = next((one for one in old.get("status", {}).get("conditions", []) if one["type"] == kind), {})
    since = before["lastTransitionTime"] if before.get("status") == status else now()
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def with_env(spec: Object, values: Mapping[str, str]) -> Object:
    """A pod's spec whose containers all have these variables, before their own."""
    added = [{"name": name, "value": value} for name, value in values.items()]
    return {**spec, "containers": [{**one, "env": [*added, *one.get("env", [])]} for one in spec["containers"]]}
