"""What is recorded of layout changes: two keys of the graph's state ConfigMap, beside the planner's own checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from pydantic import TypeAdapter, ValidationError

from planner.connectors.kubernetes.cluster import Cluster, Object
from planner.connectors.kubernetes.errors import InvalidError
from planner.connectors.kubernetes.resources import CONFIG_MAPS
from planner.core.transition import Intent
from worker_graph.kubernetes.labels import GRAPH, PART_OF, object_name

#: Keys of the ConfigMap: the change that is under way, and what came of earlier ones.
CHANGE, HISTORY = "layout-change", "layout-history"


@dataclass(frozen=True, slots=True)
class History:
    """What came of earlier changes.

    Attributes:
        objects: name of the object that holds a pool now, by pool; without pools that were never changed.
        ended_s: unix time at which the last change ended; None where there was none.
        last: how it ended, for people.
    """

    objects: Mapping[str, str] = field(default_factory=dict)
    ended_s: float | None = None
    last: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Both keys as they were read.

    Attributes:
        intent: of the change under way; None where there is none.
        history: of earlier ones.
        resource_version: of the ConfigMap; empty where it is not there yet.
    """

    intent: Intent | None = None
    history: History = field(default_factory=History)
    resource_version: str = ""


@cache
def _intents() -> TypeAdapter[Intent]:
    return TypeAdapter(Intent)


@cache
def _histories() -> TypeAdapter[History]:
    return TypeAdapter(History)


class Store:
    """Reads and writes the record.

    Args:
        cluster: with the graph's namespace.
        graph: its name.
    """

    def __init__(self, cluster: Cluster, graph: str) -> None:
        self._cluster, self._graph = cluster, graph
        self.name = object_name(PART_OF, graph, "state")

    def read(self) -> Recorded:
        """What is recorded.

        Raises:
            ClusterError: it cannot be read, or is not what a planner writes; the message names the key.
        """
        found = self._cluster.find(CONFIG_MAPS, self.name)
        if found is None:
            return Recorded()
        data = found.get("data") or {}
        intent = history = None
        for key in (CHANGE, HISTORY):
            if key not in data:
                continue
            try:
                if key == CHANGE:
                    intent = _intents().validate_json(data[key])
                else:
                    history = _histories().validate_json(data[key])
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise InvalidError(
                    f"ConfigMap {self.name}: key {key} is damaged ({first['msg']}); look at the objects of the pool, "
                    f"bring them to what they should be, and remove the key"
                ) from None
        return Recorded(intent, history or History(), str(found["metadata"].get("resourceVersion", "")))

    def write(self, seen: Recorded, intent: Intent | None, history: History | None = None) -> Recorded:
        """Record an intent, or none, and a new history if one is given, in one request.

        Args:
            seen: as it was read; somebody else's write since then makes this one fail.
            intent: to record; None to forget it.
            history: to record beside it.

        Returns:
            The record as it is now.

        Raises:
            ConflictError: somebody else has written since.
            ClusterError: it cannot be written.
        """
        data: dict[str, str | None] = {CHANGE: None if intent is None else _intents().dump_json(intent).decode()}
        if history is not None:
            data[HISTORY] = json.dumps(_histories().dump_python(history, mode="json"))
        if seen.resource_version:
            meta: Object = {"resourceVersion": seen.resource_version}
            answer = self._cluster.patch(CONFIG_MAPS, self.name, {"metadata": meta, "data": data})
        else:
            labels = {GRAPH: self._graph, "app.kubernetes.io/managed-by": PART_OF}
            body = {
                "apiVersion": CONFIG_MAPS.api_version,
                "kind": CONFIG_MAPS.kind,
                "metadata": {"name": self.name, "labels": labels},
                "data": {key: value for key, value in data.items() if value is not None},
            }
            answer = self._cluster.create(CONFIG_MAPS, body)
        version = str(answer["metadata"].get("resourceVersion", ""))
        return Recorded(intent, history or seen.history, version)
