"""A cluster as tests see it: the project's own control plane (`control_plane`), or one that is there already."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from tests.kubernetes.audit import ApiCall
from tests.kubernetes.pki import write_kubeconfig

#: An existing cluster for the tests.
NAMED, USE = "PLIMSOLL_TEST_KUBECONFIG", "PLIMSOLL_TEST_USE_KUBECONFIG"


class Cluster:
    """What every cluster can.

    Attributes:
        kubeconfig: of an administrator.
        folder: for files of the tests.
        url: of the API server.
        authority: certificate file that its clients trust.
        own: whether it is the project's own control plane, whose programs can be stopped and whose nodes are fake.
        version: of the API server: major, minor.
    """

    own = False
    kubeconfig: Path
    folder: Path
    url: str
    authority: Path
    version: tuple[int, int]

    def client(self) -> client.ApiClient:
        """A new client of the administrator; `kubernetes.client.CoreV1Api(cluster.client())`."""
        return new_client(self.kubeconfig)

    def kubeconfig_for_service_account(self, namespace: str, name: str, duration_s: int = 3600) -> Path:
        """A kubeconfig with a token of a service account that exists."""
        body = {"spec": {"expirationSeconds": duration_s, "audiences": []}}
        with self.client() as api:
            made = client.CoreV1Api(api).create_namespaced_service_account_token(name, namespace, body)
        file = self.folder / f"{namespace}-{name}.kubeconfig"
        return write_kubeconfig(file, self.url, self.authority, {"token": made.status.token}, namespace)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), namespace: str = "default") -> Path:
        """A kubeconfig of a user of any name, who has no rights until a role binding gives some."""
        return self._unsupported(f"users of any name ({user}, {groups}, {namespace})")

    def needs_controllers(self) -> None:
        """Skip the test where no controller-manager runs."""

    def needs_scheduler(self) -> None:
        """Skip the test where no scheduler runs."""

    def needs_own(self) -> None:
        """Skip the test where the cluster is not the project's own."""
        if not self.own:
            self._unsupported("programs, users and nodes for tests")

    def audit_mark(self) -> int:
        """The place in the audit log now."""
        return self._unsupported("an audit log")

    def audit(self, since: int = 0, *, user: str | None = None, namespace: str | None = None) -> list[ApiCall]:
        """The requests that were answered since a mark, oldest first.

        Args:
            since: of `audit_mark`.
            user: only those of this user.
            namespace: only those to objects of this namespace.
        """
        return self._unsupported(f"an audit log ({since}, {user}, {namespace})")

    def stop_api_server(self) -> None:
        """Stop it properly; its data stay."""
        self._unsupported("an API server to stop")

    def start_api_server(self) -> None:
        """Start it again and wait until it is ready."""
        self._unsupported("an API server to start")

    def kill_api_server(self) -> None:
        """SIGKILL."""
        self._unsupported("an API server to kill")

    def pause_api_server(self) -> None:
        """SIGSTOP: connections are accepted and nothing is answered."""
        self._unsupported("an API server to pause")

    def resume_api_server(self) -> None:
        """SIGCONT."""
        self._unsupported("an API server to resume")

    def _unsupported(self, what: str) -> Any:
        pytest.skip(f"not allowed here: only the project's own control plane has {what}, and {self.url} is another")


class ExistingCluster(Cluster):
    """A cluster that somebody else runs, reached through a kubeconfig."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.folder = folder
        loaded = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        context = _named(loaded["contexts"], loaded["current-context"])["context"]
        cluster = _named(loaded["clusters"], context["cluster"])["cluster"]
        self.kubeconfig, self.url = kubeconfig, cluster["server"]
        if "certificate-authority-data" in cluster:
            self.authority = folder / "authority.crt"
            self.authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        else:
            self.authority = kubeconfig.parent / cluster["certificate-authority"]
        with self.client() as api:
            told = client.VersionApi(api).get_code()
        self.version = (int(told.major), int(told.minor.rstrip("+")))


def existing() -> Path | None:
    """The kubeconfig of the cluster that the environment names for tests.

    KUBECONFIG alone does not do: nobody's cluster becomes a test's by accident.
    """
    if named := os.environ.get(NAMED):
        return Path(named)
    if os.environ.get(USE) == "1" and (named := os.environ.get("KUBECONFIG")):
        return Path(named)
    return None


def new_client(kubeconfig: Path) -> client.ApiClient:
    """A client of the user of a kubeconfig."""
    return config.new_client_from_config(str(kubeconfig))


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)
