"""Where the programs of a control plane are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: What `make kubernetes` builds.
VERSION = "1.20.2"
#: Without these there is no API; the other two may be missing where KUBEBUILDER_ASSETS names the folder.
NEEDED = ("etcd", "kube-apiserver")
CONTROLLERS, SCHEDULER = "kube-controller-manager", "kube-scheduler"


def cache() -> Path:
    """The folder that `make kubernetes` fills."""
    named = os.environ.get("XDG_CACHE_HOME")
    base = Path(named) if named else Path.home() / ".cache"
    return base / "plimsoll" / f"kubernetes-{VERSION}" / "bin"


@dataclass(frozen=True)
class Binaries:
    """The programs of one folder."""

    folder: Path
    version: tuple[int, int]
    """Of the API server: major, minor."""

    def has(self, name: str) -> bool:
        """Whether a program is there."""
        return (self.folder / name).is_file()

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def find() -> Binaries | str:
    """The binaries, or why there are none: of KUBEBUILDER_ASSETS where it is set, else of the cache."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    folder = Path(assets) if assets else cache()
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        hint = "KUBEBUILDER_ASSETS names this folder" if assets else "run `make kubernetes`"
        return f"no Kubernetes control plane: {', '.join(missing)} not in {folder} ({hint})"
    if shutil.which("openssl") is None:
        return "openssl is not installed, which makes the control plane's certificates"
    said = subprocess.run([folder / "kube-apiserver", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v(\d+)\.(\d+)", said)
    if found is None:
        raise RuntimeError(f"kube-apiserver --version said {said!r}")
    return Binaries(folder, (int(found[1]), int(found[2])))
