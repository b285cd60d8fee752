"""What clients asked of an API server, read from its audit log (level Metadata)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

#: Of the API server: every request once, without bodies.
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class ApiCall:
    """One request; a watch counts once, when it begins.

    Attributes:
        time: when the server received it.
        verb: get, list, watch, create, update, patch, delete or deletecollection.
        user: "system:serviceaccount:NAMESPACE:NAME", or a certificate's name.
        pod: whose token it was; empty for users that are no pods.
        agent: the client's User-Agent.
        group, resource, subresource, namespace, name: of the object; empty where it has none.
        code: status of the answer.
        uri: path and query.
    """

    time: datetime
    verb: str
    user: str
    pod: str
    agent: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    uri: str


def read(log: Path, since: int) -> tuple[list[ApiCall], int]:
    """The calls behind a place in the log, bytes, and the place behind the last of them."""
    with log.open("rb") as stream:
        stream.seek(since)
        data = stream.read()
    whole = data[: data.rfind(b"\n") + 1]
    return list(_calls(whole)), since + len(whole)


def _calls(lines: bytes) -> Iterator[ApiCall]:
    for line in lines.splitlines():
        event = json.loads(line)
        begins = "ResponseStarted" if event["verb"] == "watch" and _succeeded(event) else "ResponseComplete"
        if event["stage"] in {begins, "Panic"}:
            yield _call(event)


def _succeeded(event: dict[str, Any]) -> bool:
    return int(event.get("responseStatus", {}).get("code", 0)) < 400


def _call(event: dict[str, Any]) -> ApiCall:
    about = event.get("objectRef", {})
    return ApiCall(
        time=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        verb=event["verb"],
        user=event["user"]["username"],
        pod=next(iter(event["user"].get("extra", {}).get("authentication.kubernetes.io/pod-name", ())), ""),
        agent=event.get("userAgent", ""),
        group=about.get("apiGroup", ""),
        resource=about.get("resource", ""),
        subresource=about.get("subresource", ""),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=int(event.get("responseStatus", {}).get("code", 0)),
        uri=event["requestURI"],
    )
