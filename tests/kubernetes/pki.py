"""The certificates of a control plane of its own: one authority, the server's, and a client's for each user."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: Names and addresses under which the API server is reached.
_NAMES = "IP:127.0.0.1,IP:::1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc,IP:10.0.0.1"
#: What openssl adds to each kind of certificate. Python 3.13 wants key usage and key identifiers to be there.
_CONFIG = f"""
[req]
distinguished_name = name
prompt = no
[name]
CN = unused
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {_NAMES}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Authority:
    """A certificate authority in a folder; `FOLDER/NAME.crt` and `FOLDER/NAME.key` are made by `sign`.

    Attributes:
        certificate: of the authority, which clients trust.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._config = folder / "openssl.cnf"
        self._config.write_text(_CONFIG, encoding="utf-8")
        self._make("ca", "/CN=plimsoll-tests", "authority", [])
        self.sign("server", "/CN=kube-apiserver", "server")
        _openssl("genrsa", "-out", folder / "service-accounts.key", "2048")
        _openssl("rsa", "-in", folder / "service-accounts.key", "-pubout", "-out", folder / "service-accounts.pub")

    def sign(self, name: str, subject: str, kind: str = "client") -> tuple[Path, Path]:
        """A new certificate and its key.

        Args:
            name: of the two files.
            subject: "/O=GROUP/CN=USER" of a client.
            kind: "client" or "server".
        """
        issuer = ["-CA", self.certificate, "-CAkey", self.folder / "ca.key"]
        return self._make(name, subject, kind, issuer)

    def user(self, name: str, groups: Sequence[str] = ()) -> tuple[Path, Path]:
        """The certificate with which a client is this user, and its key."""
        file = "user-" + re.sub(r"[^A-Za-z0-9.-]", "_", name)
        return self.sign(file, "".join(f"/O={group}" for group in groups) + f"/CN={name}")

    def _make(self, name: str, subject: str, kind: str, issuer: Sequence[str | Path]) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
        about = ["-config", self._config, "-extensions", kind, "-subj", subject, "-days", "30"]
        _openssl("req", "-x509", "-new", *curve, *about, *issuer, "-out", certificate)
        return certificate, key


def write_kubeconfig(
    file: Path, server: str, authority: Path, user: dict[str, str], namespace: str = "default"
) -> Path:
    """A kubeconfig file of one user; `user` is its part of that name (a token, or a certificate's files)."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "tests", "user": user}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}],
        "current-context": "tests",
    }
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")
    file.chmod(0o600)
    return file


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
