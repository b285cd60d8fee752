"""Requests to an API server: any kind of objects as plain data, with a deadline, and errors by what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import urllib3.exceptions
from kubernetes.client.exceptions import ApiException

from planner.connectors.kubernetes.errors import ClusterError, GoneError, NotFoundError, UnreachableError, error_of
from planner.connectors.kubernetes.resources import Resource
from profiler.errors import InputError

#: An object of any kind, as the API server's JSON has it.
Object = dict[str, Any]

#: Owner of the fields that the planner sets, for server-side apply and for people who look.
FIELD_MANAGER = "plimsoll-planner"

#: Objects asked for at once: what kubectl asks for.
PAGE = 500

#: Times that a list whose continuation expired is begun again.
MOST_LISTS = 3

_NAMESPACE_OF_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Patch(StrEnum):
    """How a patch is meant, by its media type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects of one kind at one moment, and that moment's resource version."""

    items: tuple[Object, ...]
    resource_version: str


class Cluster:
    """One namespace of one API server; safe to use from several threads.

    Args:
        namespace: of the objects; the pod's own or the kubeconfig's without it.
        kubeconfig: file; the pod's service account, $KUBECONFIG or ~/.kube/config without it.
        context: of the kubeconfig; its current one without it.
        timeout_s: of one request, connecting and reading each.

    Raises:
        InputError: there is no configuration to reach a cluster with, or it is wrong.
    """

    def __init__(
        self,
        namespace: str | None = None,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        configuration = kubernetes.client.Configuration()
        # A planner's tick tries again by itself, with a fresh read; retries below it would only hide for how long.
        configuration.retries = False
        own = _load(configuration, kubeconfig, context)
        self.namespace = namespace or own
        self.server = str(configuration.host)
        self.timeout_s = timeout_s
        self._api = kubernetes.client.ApiClient(configuration)

    def close(self) -> None:
        """Close connections."""
        self._api.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, resource: Resource, name: str, subresource: str = "") -> Object:
        """One object, or a subresource of it.

        Raises:
            NotFoundError: there is none.
            ClusterError: it cannot be read.
        """
        return self._request("GET", resource.path(self.namespace, name, subresource), f"read {resource.name} {name}")

    def find(self, resource: Resource, name: str, subresource: str = "") -> Object | None:
        """One object; None where there is none, or no such kind."""
        try:
            return self.read(resource, name, subresource)
        except NotFoundError:
            return None

    def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> Listing:
        """Objects of a kind, page by page, of one moment.

        Args:
            resource: the kind.
            labels: label selector; all without it.
            fields: field selector.

        Raises:
            NotFoundError: the server knows no such kind.
            ClusterError: they cannot be listed.
        """
        about = f"list {resource.name}"
        path = resource.path(self.namespace)
        selectors = [pair for pair in (("labelSelector", labels), ("fieldSelector", fields)) if pair[1]]
        for _ in range(MOST_LISTS):
            items: list[Object] = []
            query = [*selectors, ("limit", str(PAGE))]
            try:
                while True:
                    page = self._request("GET", path, about, query=query)
                    items.extend(page.get("items") or ())
                    meta = page.get("metadata") or {}
                    if not meta.get("continue"):
                        return Listing(tuple(items), str(meta.get("resourceVersion", "")))
                    query = [*selectors, ("limit", str(PAGE)), ("continue", meta["continue"])]
            except GoneError:
                continue  # the continuation has expired; another moment is as good
        raise UnreachableError(f"{about}: pages expired {MOST_LISTS} times before the last one was read")

    def version(self) -> tuple[int, int]:
        """Major and minor version of the server."""
        answer = self._request("GET", "/version", "read the server's version")
        return int(answer["major"]), int(str(answer["minor"]).rstrip("+"))

    def serves(self, resource: Resource) -> bool:
        """Whether the server has such a kind in this version."""
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        try:
            answer = self._request("GET", root, f"look for {resource.name}")
        except NotFoundError:
            return False
        return any(one.get("name") == resource.plural for one in answer.get("resources") or ())

    # -- writing ---------------------------------------------------------------------------------------------------

    def patch(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        how: Patch = Patch.MERGE,
        subresource: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Object:
        """Change an object. A body with `metadata.resourceVersion` is refused when the object has changed since.

        Args:
            resource: the kind.
            name: of the object.
            body: the patch.
            how: what the body means.
            subresource: such as `scale`.
            force: with server-side apply, take fields that others own.
            dry_run: only ask whether the server would accept it.

        Returns:
            The object, or the subresource, afterwards.

        Raises:
            ConflictError: it has changed, or another manager owns a field.
            ClusterError: it cannot be changed.
        """
        query = [("fieldManager", FIELD_MANAGER)]
        if how is Patch.APPLY:
            query.append(("force", "true" if force else "false"))
        if dry_run:
            query.append(("dryRun", "All"))
        path = resource.path(self.namespace, name, subresource)
        return self._request("PATCH", path, f"patch {resource.name} {name}", body=body, media=how, query=query)

    def create(self, resource: Resource, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create an object; ConflictError where there is one of its name."""
        name = body.get("metadata", {}).get("name", "")
        query = [("fieldManager", FIELD_MANAGER), *([("dryRun", "All")] if dry_run else [])]
        about = f"create {resource.name} {name}"
        return self._request("POST", resource.path(self.namespace), about, body=body, query=query)

    def replace(self, resource: Resource, name: str, body: Mapping[str, Any]) -> Object:
        """Replace an object whole; with its resourceVersion it is refused when it has changed since."""
        query = [("fieldManager", FIELD_MANAGER)]
        path = resource.path(self.namespace, name)
        return self._request("PUT", path, f"update {resource.name} {name}", body=body, query=query)

    def delete(self, resource: Resource, name: str) -> None:
        """Delete an object and, in the background, what it owns; nothing happens where there is none."""
        path, query = resource.path(self.namespace, name), [("propagationPolicy", "Background")]
        try:
            self._request("DELETE", path, f"delete {resource.name} {name}", query=query)
        except NotFoundError:
            return

    def review(self, body: Mapping[str, Any]) -> Object:
        """Ask what this user may do: a SelfSubjectAccessReview or SelfSubjectRulesReview of authorization.k8s.io/v1."""
        plural = f"{str(body['kind']).lower()}s"
        path = f"/apis/authorization.k8s.io/v1/{plural}"
        return self._request("POST", path, "ask for this user's rights", body=body)

    # -- one request -----------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        about: str,
        *,
        body: object = None,
        media: str = "application/json",
        query: Sequence[tuple[str, str]] = (),
    ) -> Object:
        headers = {"Accept": "application/json", **({"Content-Type": str(media)} if body is not None else {})}
        try:
            response = self._api.call_api(
                *self._api.param_serialize(
                    method,
                    path,
                    query_params=list(query),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                ),
                _request_timeout=(self.timeout_s, self.timeout_s),
            )
            response.read()
        except ApiException as error:
            raise _from_status(about, int(error.status or 0), error.body, error.reason) from None
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(f"cannot {about} at {self.server}: {_short(error)}") from None
        except OSError as error:
            raise UnreachableError(f"cannot {about} at {self.server}: {error.strerror or error}") from None
        data = response.data or b""
        if not 200 <= response.status < 300:
            raise _from_status(about, int(response.status), data, response.reason)
        try:
            answer = json.loads(data)
        except ValueError:
            raise UnreachableError(f"cannot {about}: {self.server} answered no JSON") from None
        if not isinstance(answer, dict):
            raise UnreachableError(f"cannot {about}: {self.server} answered no object")
        return answer


def _from_status(about: str, status: int, body: bytes | str | None, reason: str | None) -> ClusterError:
    try:
        message = json.loads(body or b"")["message"]
    except (ValueError, KeyError, TypeError):
        message = reason or "no reason given"
    return error_of(status)(f"cannot {about}: {status}: {message}")


def _short(error: Exception) -> str:
    """urllib3's errors repeat the pool and the address; the last cause says what happened."""
    cause = getattr(error, "reason", None) or error
    return str(cause).rsplit(": ", 1)[-1] if "object at 0x" in str(cause) else str(cause)


def _load(configuration: kubernetes.client.Configuration, kubeconfig: Path | None, context: str | None) -> str:
    """Fill the configuration; the namespace that goes with it."""
    loader = kubernetes.config
    try:
        if kubeconfig is None and context is None and _NAMESPACE_OF_POD.exists():
            loader.load_incluster_config(client_configuration=configuration)
            return _NAMESPACE_OF_POD.read_text().strip()
        file = str(kubeconfig) if kubeconfig is not None else None
        loader.load_kube_config(config_file=file, context=context, client_configuration=configuration)
        contexts, current = loader.list_kube_config_contexts(config_file=file)
        chosen = next((one for one in contexts if one["name"] == context), current)
        return str(chosen.get("context", {}).get("namespace") or "default")
    except (loader.ConfigException, OSError) as error:
        place = str(kubeconfig) if kubeconfig is not None else "kubeconfig"
        expected = "a kubeconfig that names a cluster, or a pod with a service account"
        raise InputError(str(error), field=place, expected=expected) from None
