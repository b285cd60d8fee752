"""ConfigMaps of one namespace, changed key by key: what another pod wrote beside ours stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import urllib3.exceptions
from kubernetes.client.exceptions import ApiException

from profiler.errors import DependencyError

#: Owner of the fields that we set.
FIELD_MANAGER = "plimsoll-profiler"

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ConfigMaps:
    """The ConfigMaps of a namespace, with the pod's service account or the current kubeconfig.

    Args:
        namespace: the pod's own or the kubeconfig's without it.
        timeout_s: of one request.

    Raises:
        DependencyError: there is nothing that says how to reach a cluster.
    """

    def __init__(self, namespace: str | None = None, *, timeout_s: float = 10.0) -> None:
        settings = kubernetes.client.Configuration()
        settings.retries = False
        own = "default"
        try:
            if _ACCOUNT.exists():
                kubernetes.config.load_incluster_config(client_configuration=settings)
                own = _ACCOUNT.read_text(encoding="utf-8").strip()
            else:
                kubernetes.config.load_kube_config(client_configuration=settings)
                _, current = kubernetes.config.list_kube_config_contexts()
                own = current["context"].get("namespace", own)
        except (kubernetes.config.ConfigException, OSError) as error:
            raise DependencyError(f"no cluster to reach: {error}") from None
        self.namespace = namespace or own
        self._timeout_s = timeout_s
        self._api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(settings))

    def read(self, name: str) -> dict[str, str] | None:
        """The data of a ConfigMap; None where there is none.

        Raises:
            DependencyError: the API server refused or did not answer.
        """
        found = self._ask(name, "read", self._api.read_namespaced_config_map, name, self.namespace, none_at=404)
        return None if found is None else dict(found.data or {})

    def merge(self, name: str, data: Mapping[str, str], labels: Mapping[str, str] | None = None) -> None:
        """Set keys and leave all others as they are; makes the ConfigMap where there is none and we may.

        Raises:
            DependencyError: the API server refused or did not answer.
        """
        metadata: dict[str, Any] = {"labels": dict(labels)} if labels else {}
        body = {"metadata": metadata, "data": dict(data)}
        done = self._ask(
            name, "changed", self._api.patch_namespaced_config_map, name, self.namespace, body, none_at=404,
            field_manager=FIELD_MANAGER, _content_type="application/merge-patch+json",
        )  # fmt: skip
        if done is None:
            made = {"apiVersion": "v1", "kind": "ConfigMap", **body, "metadata": {**metadata, "name": name}}
            self._ask(
                name, "made", self._api.create_namespaced_config_map, self.namespace, made, field_manager=FIELD_MANAGER
            )

    def _ask(self, name: str, verb: str, call: Any, *arguments: Any, none_at: int | None = None, **options: Any) -> Any:
        try:
            return call(*arguments, _request_timeout=self._timeout_s, **options)
        except ApiException as error:
            if error.status == none_at:
                return None
            what = f"ConfigMap {self.namespace}/{name} cannot be {verb}"
            raise DependencyError(f"{what}: {_said(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise DependencyError(f"ConfigMap {self.namespace}/{name} cannot be {verb}: {error}") from None


def _said(error: ApiException) -> str:
    """What the API server said, in its own words where it used any."""
    import json  # noqa: PLC0415 - of refusals only

    try:
        message = json.loads(error.body or "{}").get("message")
    except ValueError:
        message = None
    return f"{error.status} {message or error.reason}"
