"""Kubernetes Events on the objects that hold the pools: what was done, and what was not and why.

They go to events.k8s.io/v1 (since Kubernetes 1.19), where `kubectl describe` and `kubectl get events` find them too.
An Event that cannot be written is logged once and changes nothing else.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from planner.connectors.kubernetes.cluster import FIELD_MANAGER, Cluster
from planner.connectors.kubernetes.errors import ClusterError, NotFoundError
from planner.connectors.kubernetes.moments import micro_time
from planner.connectors.kubernetes.resources import Resource
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.words import counted

log = logging.getLogger("planner.connectors")

NEW_EVENTS = Resource("events.k8s.io", "v1", "events", "Event")

#: A refusal that lasts is written again so often, s: well within the hour for which servers keep Events.
AGAIN_S = 300.0

#: After a failure none is tried for so long, s: each try costs the tick a request, and perhaps its timeout.
PAUSE_S = 300.0

#: What the server takes as a note, and as the name of an instance, in bytes.
LONGEST_NOTE, LONGEST_NAME = 1000, 128


class Change(StrEnum):
    """Reasons of Events for the steps of a layout change; those of its replicas are `scaled`'s, as any others."""

    STARTED = "LayoutChangeStarted"
    #: The object of the other layout was made, or a retired one taken into use again.
    CREATED = "LayoutObjectCreated"
    #: The template of a component was given the other layout.
    PATCHED = "LayoutTemplatePatched"
    #: The object of the former layout has no workers and is out of use.
    RETIRED = "LayoutObjectRetired"
    COMPLETED = "LayoutChangeCompleted"
    #: It turned back to the former layout, and has arrived there.
    ROLLING_BACK = "LayoutChangeRollingBack"
    ROLLED_BACK = "LayoutChangeRolledBack"
    #: What keeps one from beginning, and what keeps one that has begun from its next write: these are for `refused`.
    REFUSED = "LayoutChangeRefused"
    BLOCKED = "LayoutChangeBlocked"


_WARNINGS = frozenset({Change.ROLLING_BACK, Change.ROLLED_BACK})

#: Object, pool and reason: one object may hold several pools.
_Key = tuple[str, str, str]


@dataclass
class _Series:
    event: str
    note: str
    count: int
    written_s: float


class Events:
    """Writes Events.

    Args:
        cluster: with the graph's namespace.
        enabled: whether to write any.
        steady: seconds of a clock that is never set.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        enabled: bool = True,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster, self._enabled, self._steady, self._wall = cluster, enabled, steady, wall
        self._series: dict[_Key, _Series] = {}
        self._paused_until_s: float | None = None
        self._told = False

    def scaled(self, about: PoolTarget, before: int, after: int, who: str, why: str = "") -> None:
        """A pool was given other replicas.

        Args:
            about: the pool.
            before: replicas that it had.
            after: replicas that it has.
            who: identity of the planner.
            why: for people, where it is not the plan.
        """
        reason = "ScaledUp" if after > before else "ScaledDown"
        note = f"{about.pool}: {before} -> {counted(after)}, asked for by {who}{f': {why}' if why else ''}"
        self._write(lambda: self._create(about, "Normal", reason, "Scale", note, who))

    def changed(self, about: PoolTarget, reason: Change, note: str, who: str) -> None:
        """A layout change has taken a step.

        Args:
            about: the pool, or the side of it, whose object the step was taken on.
            reason: which step.
            note: for people.
            who: identity of the planner.
        """
        kind = "Warning" if reason in _WARNINGS else "Normal"
        self._write(lambda: self._create(about, kind, reason.value, "ChangeLayout", note, who))

    def refused(self, about: PoolTarget, reason: str, note: str, who: str) -> None:
        """Something that keeps the plan from being carried out; while it lasts, one Event with a count.

        Args:
            about: the pool.
            reason: one word, such as RivalController.
            note: for people.
            who: identity of the planner.
        """
        key, now = _key(about, reason), self._steady()
        series = self._series.get(key)
        if series is None:
            self._write(lambda: self._begin(key, about, reason, note, who))
            return
        series.count += 1
        # The second one says that it lasts; from there on, every few minutes.
        if series.count == 2 or now - series.written_s >= AGAIN_S:
            self._write(lambda: self._go_on(key, series, about, reason, note, who))

    def over(self, about: PoolTarget, reason: str) -> None:
        """What kept the plan from being carried out does no longer: a next time is another Event."""
        self._series.pop(_key(about, reason), None)

    def _begin(self, key: _Key, about: PoolTarget, reason: str, note: str, who: str) -> None:
        name = self._create(about, "Warning", reason, "Refuse", note, who)
        self._series[key] = _Series(name, note, 1, self._steady())

    def _go_on(self, key: _Key, series: _Series, about: PoolTarget, reason: str, note: str, who: str) -> None:
        if series.count > 2 and note != series.note:
            self._begin(key, about, reason, note, who)
            return
        seen = {"count": series.count, "lastObservedTime": micro_time(self._wall())}
        try:
            self._cluster.patch(NEW_EVENTS, series.event, {"series": seen})
        except NotFoundError:
            self._begin(key, about, reason, note, who)  # the server keeps Events for an hour
            return
        series.written_s = self._steady()

    def _create(self, about: PoolTarget, kind: str, reason: str, action: str, note: str, who: str) -> str:
        name = f"{about.object_name}.{uuid.uuid4().hex[:16]}"
        body = {
            "apiVersion": NEW_EVENTS.api_version,
            "kind": NEW_EVENTS.kind,
            "metadata": {"name": name, "namespace": self._cluster.namespace},
            "eventTime": micro_time(self._wall()),
            "type": kind,
            "reason": reason,
            "action": action,
            "note": _cut(note, LONGEST_NOTE),
            "reportingController": FIELD_MANAGER,
            "reportingInstance": _cut(who, LONGEST_NAME) or FIELD_MANAGER,
            "regarding": {
                "apiVersion": about.resource.api_version,
                "kind": about.resource.kind,
                "namespace": self._cluster.namespace,
                "name": about.object_name,
                "uid": about.uid,
            },
        }
        self._cluster.create(NEW_EVENTS, body)
        return name

    def _write(self, what: Callable[[], object]) -> None:
        if not self._enabled or (self._paused_until_s is not None and self._steady() < self._paused_until_s):
            return
        try:
            what()
        except ClusterError as error:
            self._paused_until_s = self._steady() + PAUSE_S
            if not self._told:
                log.warning("Events are not written: %s", error, extra={"stage": "apply"})
                self._told = True
            return
        self._paused_until_s, self._told = None, False


def _key(about: PoolTarget, reason: str) -> _Key:
    return about.uid or about.object_name, about.pool, reason


def _cut(text: str, most: int) -> str:
    raw = text.encode()
    return text if len(raw) <= most else raw[: most - 3].decode(errors="ignore") + "..."
