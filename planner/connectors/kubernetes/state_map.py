"""A ConfigMap that keeps what a planner has learned, where a standby in another pod finds it."""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib

from planner.connectors.kubernetes.cluster import Cluster, Object
from planner.connectors.kubernetes.errors import NotFoundError, UnreachableError
from planner.connectors.kubernetes.resources import CONFIG_MAPS

#: What the API server takes as the content of one ConfigMap, bytes.
MOST_BYTES = 1_000_000


class StateMap:
    """One key of a ConfigMap, compressed: etcd keeps every version for minutes.

    Args:
        cluster: the graph's.
        name: of the ConfigMap; created when it is first written.
        key: of the content.
    """

    #: Other planners of the graph read and write it too.
    shared = True

    def __init__(self, cluster: Cluster, name: str, key: str = "checkpoint.json.gz") -> None:
        self._cluster, self._name, self._key = cluster, name, key
        self.where = f"ConfigMap {name}"

    def read(self) -> bytes | None:
        """The content; None where there is none yet.

        Raises:
            ConnectorError: it cannot be read.
        """
        found = self._cluster.find(CONFIG_MAPS, self._name)
        text = ((found or {}).get("binaryData") or {}).get(self._key)
        if text is None:
            return None
        try:
            return gzip.decompress(base64.b64decode(text, validate=True))
        except (binascii.Error, OSError, EOFError, zlib.error):
            # What is there is no checkpoint: whoever reads it finds that out, and moves it aside.
            return str(text).encode()

    def write(self, content: bytes) -> None:
        """Replace the content in one request.

        Raises:
            ConnectorError: it cannot be written, or is larger than a ConfigMap may be; the old content stays.
        """
        packed = gzip.compress(content, 6, mtime=0)
        if len(packed) * 4 / 3 > MOST_BYTES:
            raise UnreachableError(f"{self.where}: {len(packed):,} bytes are more than a ConfigMap takes")
        self._put({self._key: base64.b64encode(packed).decode()})

    def aside(self, suffix: str) -> str:
        """Keep the content under another key; the key's name.

        Raises:
            ConnectorError: it cannot be kept.
        """
        content = self.read()
        kept = f"{self._key}.{suffix}"
        if content is not None:
            packed = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
            self._put({kept: packed, self._key: None})
        return kept

    def _put(self, data: dict[str, str | None]) -> None:
        try:
            self._cluster.patch(CONFIG_MAPS, self._name, {"binaryData": data})
        except NotFoundError:
            body: Object = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self._name, "labels": {"app.kubernetes.io/managed-by": "plimsoll"}},
                "binaryData": {key: value for key, value in data.items() if value is not None},
            }
            self._cluster.create(CONFIG_MAPS, body)
