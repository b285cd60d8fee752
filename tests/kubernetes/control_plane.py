"""etcd, API server, controller-manager and scheduler on the loopback, in a state directory of their own.

No container and no kubelet: what makes pods run is `tests.kubernetes.kubelet`.
"""

from __future__ import annotations

import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import pytest

from tests.kubernetes import audit
from tests.kubernetes.binaries import CONTROLLERS, SCHEDULER, Binaries
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.pki import Authority, write_kubeconfig
from tests.kubernetes.program import Program, fixed_port
from tests.kubernetes.watchdog import Watchdog

#: Of the controller-manager. Not those that need real nodes: pods of fake nodes would be evicted or collected.
LOOPS = (
    "deployment", "replicaset", "statefulset", "namespace", "garbagecollector", "serviceaccount",
    "serviceaccount-token", "root-ca-cert-publisher", "endpoint", "disruption", "job", "persistentvolume-binder",
)  # fmt: skip

#: Kinds that are read and watched past the API server's cache, whose history begins anew with the server: a watch goes
#: on from before a restart, and shows every version. Who held a Lease when is read from that.
NOT_CACHED = ("leases.coordination.k8s.io",)


class ControlPlane(Cluster):
    """Runs from `start` (or entering it) to `stop`.

    Args:
        binaries: of `binaries.find()`.
        folder: its state directory; its programs' logs are `FOLDER/NAME.log`.

    Attributes:
        etcd, api_server, controllers, scheduler: the programs; the last two are None where they are missing.
        pki: its certificate authority.
    """

    own = True

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.binaries, self.folder, self.version = binaries, folder, binaries.version
        self.pki = Authority(folder / "pki")
        self.authority = self.pki.certificate
        self.watchdog = Watchdog()
        self._tokens = {name: secrets.token_hex(16) for name in ("admin", CONTROLLERS, SCHEDULER)}
        self._audit_log = folder / "audit.log"
        client_port, peer_port, api_port = fixed_port(), fixed_port(), fixed_port()
        self.url = f"https://127.0.0.1:{api_port}"
        self._write_files()
        self._etcd_url = f"http://127.0.0.1:{client_port}"
        self.etcd = Program("etcd", self._etcd_command(f"http://127.0.0.1:{peer_port}"), folder, self.watchdog)
        self.api_server = Program("kube-apiserver", self._api_command(api_port), folder, self.watchdog)
        self.controllers = self._optional(CONTROLLERS, self._controllers_flags())
        self.scheduler = self._optional(SCHEDULER, [])
        self._tls = ssl.create_default_context(cafile=str(self.authority))

    def __enter__(self) -> ControlPlane:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Its life.

    def start(self) -> None:
        """Start everything and wait until pods can be made."""
        self.etcd.start()
        self.etcd.wait_until(lambda: self._answers(f"{self._etcd_url}/health"), "answers")
        self.start_api_server()
        for program in (self.controllers, self.scheduler):
            if program is not None:
                program.start()
        if self.controllers is not None:
            account = f"{self.url}/api/v1/namespaces/default/serviceaccounts/default"
            self.controllers.wait_until(lambda: self._answers(account), "makes service accounts")

    def stop(self) -> None:
        """End its programs, and only these."""
        with ExitStack() as stack:
            stack.callback(self.watchdog.close)
            for program in (self.etcd, self.api_server, self.controllers, self.scheduler):
                if program is not None:
                    stack.callback(program.kill)

    def start_api_server(self) -> None:
        """Start it and wait until it is ready."""
        self.api_server.start()
        self.api_server.wait_until(lambda: self._answers(f"{self.url}/readyz"), "is ready")

    def stop_api_server(self) -> None:
        """Stop it properly; its data stay."""
        self.api_server.stop()

    def kill_api_server(self) -> None:
        """SIGKILL."""
        self.api_server.kill()

    def pause_api_server(self) -> None:
        """SIGSTOP: connections are accepted and nothing is answered."""
        self.api_server.pause()

    def resume_api_server(self) -> None:
        """SIGCONT."""
        self.api_server.resume()

    def needs_controllers(self) -> None:
        """Skip the test where no controller-manager runs."""
        if self.controllers is None:
            pytest.skip(f"{CONTROLLERS} is not in {self.binaries.folder}")

    def needs_scheduler(self) -> None:
        """Skip the test where no scheduler runs."""
        if self.scheduler is None:
            pytest.skip(f"{SCHEDULER} is not in {self.binaries.folder}")

    # Its users and what they asked.

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), namespace: str = "default") -> Path:
        """A kubeconfig of a user of any name, who has no rights until a role binding gives some."""
        certificate, key = self.pki.user(user, groups)
        who = {"client-certificate": str(certificate), "client-key": str(key)}
        return write_kubeconfig(certificate.with_suffix(".kubeconfig"), self.url, self.authority, who, namespace)

    def audit_mark(self) -> int:
        """The place in the audit log now."""
        return self._audit_log.stat().st_size

    def audit(self, since: int = 0, *, user: str | None = None, namespace: str | None = None) -> list[audit.ApiCall]:
        """The requests that were answered since a mark, oldest first; see `Cluster.audit`."""
        calls, _ = audit.read(self._audit_log, since)
        return [
            call for call in calls if user in {None, call.user} and namespace in {None, call.namespace}
        ]  # fmt: skip

    # How it is set up.

    def _write_files(self) -> None:
        groups = {"admin": "system:masters", CONTROLLERS: "system:masters", SCHEDULER: "system:authenticated"}
        users = {"admin": "admin", CONTROLLERS: f"system:{CONTROLLERS}", SCHEDULER: f"system:{SCHEDULER}"}
        rows = [f'{token},{users[name]},{name},"{groups[name]}"\n' for name, token in self._tokens.items()]
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("".join(rows), encoding="utf-8")
        for name, token in self._tokens.items():
            write_kubeconfig(self.folder / f"{name}.kubeconfig", self.url, self.authority, {"token": token})
        self.kubeconfig = self.folder / "admin.kubeconfig"
        (self.folder / "audit-policy.json").write_text(json.dumps(audit.POLICY), encoding="utf-8")

    def _etcd_command(self, peers: str) -> list[str | Path]:
        return [
            self.binaries["etcd"], "--name", "tests", "--data-dir", self.folder / "etcd", "--log-level", "warn",
            "--logger", "zap", "--listen-client-urls", self._etcd_url, "--advertise-client-urls", self._etcd_url,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"tests={peers}",
            "--unsafe-no-fsync",
        ]  # fmt: skip

    def _api_command(self, port: int) -> list[str | Path]:
        pki = self.pki.folder
        flags: dict[str, str | int | Path] = {
            "etcd-servers": self._etcd_url,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": port,
            # A loopback address is refused as an endpoint of the service `kubernetes`.
            "endpoint-reconciler-type": "none",
            "cert-dir": pki,
            "tls-cert-file": pki / "server.crt",
            "tls-private-key-file": pki / "server.key",
            "client-ca-file": self.authority,
            "token-auth-file": self.folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": pki / "service-accounts.pub",
            "service-account-signing-key-file": pki / "service-accounts.key",
            "service-cluster-ip-range": "10.0.0.0/24",
            "allow-privileged": "true",
            "event-ttl": "1h",
            "watch-cache-sizes": ",".join(f"{kind}#0" for kind in NOT_CACHED),
            "audit-policy-file": self.folder / "audit-policy.json",
            "audit-log-path": self._audit_log,
            "v": 1,
        }
        if self.version < (1, 24):
            flags["insecure-port"] = 0
        return [self.binaries["kube-apiserver"], *(f"--{name}={value}" for name, value in flags.items())]

    def _controllers_flags(self) -> list[str]:
        return [
            f"--service-account-private-key-file={self.pki.folder / 'service-accounts.key'}",
            f"--root-ca-file={self.authority}", "--use-service-account-credentials=false", "--concurrent-gc-syncs=4",
            "--kube-api-qps=200", "--kube-api-burst=400", f"--controllers={','.join(LOOPS)}",
        ]  # fmt: skip

    def _optional(self, name: str, flags: Sequence[str]) -> Program | None:
        if not self.binaries.has(name):
            return None
        config = self.folder / f"{name}.kubeconfig"
        common = [
            f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
            "--leader-elect=false", "--bind-address=127.0.0.1", f"--secure-port={fixed_port()}",
            f"--cert-dir={self.folder / name}", "--v=1",
        ]  # fmt: skip
        if self.version < (1, 23):
            common.append("--port=0")
        return Program(name, [self.binaries[name], *common, *flags], self.folder, self.watchdog)

    def _answers(self, url: str) -> bool:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self._tokens['admin']}"})  # noqa: S310
        with suppress(OSError), urllib.request.urlopen(request, timeout=5.0, context=self._tls) as answer:  # noqa: S310
            return int(answer.status) == 200
        return False
