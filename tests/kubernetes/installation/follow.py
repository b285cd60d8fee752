"""Objects of one kind as the API server shows them, followed by a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.kubernetes.cluster import Cluster
from tests.servers import wait_until

#: Answer to those who want to go on from where the server's history does not reach.
_GONE = 410


class Follower(ABC):
    """Lists and watches from `start` to `stop`; while the API server is away it sees nothing, then it goes on.

    It goes on from where it was, so that no version is left out, as far as the server's history reaches: after a
    restart not back to before it, but for kinds that the server does not cache (`control_plane.NOT_CACHED`).

    Args:
        cluster: to look at.
        namespace: of the objects.
        name: of its thread.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._watch = watch.Watch()
        #: Seen last; empty before the first list.
        self._version = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._watch.stop()
        self._thread.join(20.0)

    def catch_up(self) -> None:
        """Wait until it has seen everything that is there now; it lies behind what other clients see."""
        with self._cluster.client() as api:
            there = self.lister(api)(self._namespace, _request_timeout=30).items
        newest = max((int(one.metadata.resource_version) for one in there), default=0)
        wait_until(lambda: int(self._version or 0) >= newest, f"{self._thread.name} has seen what is there")

    @abstractmethod
    def lister(self, api: client.ApiClient) -> Callable[..., Any]:
        """The client's call that lists the objects of a namespace."""

    @abstractmethod
    def listed(self, objects: list[Any]) -> None:
        """All that there are now."""

    @abstractmethod
    def changed(self, kind: str, thing: Any) -> None:
        """One was ADDED, MODIFIED or DELETED."""

    def _run(self) -> None:
        with self._cluster.client() as api:
            call = self.lister(api)
            while not self._ended.is_set():
                # The server is away.
                with contextlib.suppress(HTTPError, OSError):
                    try:
                        self._follow(call)
                    except ApiException as error:
                        if error.status == _GONE:
                            self._version = ""
                self._ended.wait(0.2)

    def _follow(self, call: Callable[..., Any]) -> None:
        if not self._version:
            listed = call(self._namespace, _request_timeout=5)
            self.listed(listed.items)
            self._version = listed.metadata.resource_version
        while not self._ended.is_set():
            # From where the last one ended: a list would not show what came and went meanwhile. A quiet watch ends
            # with its time alone, and `stop` waits for that.
            for event in self._watch.stream(call, self._namespace, resource_version=self._version, timeout_seconds=2):
                self.changed(event["type"], event["object"])
                self._version = event["object"].metadata.resource_version
