"""The manifests as tests see them: files, and overlays as kubectl's own Kustomize renders them."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())

Object = dict[str, Any]


def documents(path: Path) -> list[Object]:
    """Objects of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]


def plain_files() -> list[Path]:
    """YAML files that are applied as they are."""
    return sorted(MANIFESTS.glob("*.yaml"))


@functools.cache
def kubectl() -> str:
    """A kubectl whose Kustomize knows components (1.21 and later), beside the interpreter or on the path; or skips."""
    for found in (str(Path(sys.executable).with_name("kubectl")), shutil.which("kubectl")):
        if found is None or not Path(found).is_file():
            continue
        said = subprocess.run([found, "version", "--client"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"v1\.(\d+)", said)
        if version is not None and int(version[1]) >= 21:
            return found
    pytest.skip("not installed: a kubectl from 1.21 on, for its Kustomize")


@functools.cache
def kustomized(folder: Path) -> str:
    """What `kubectl kustomize` makes of a folder."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(overlay: str) -> list[Object]:
    """Objects of an overlay."""
    return list(yaml.safe_load_all(kustomized(MANIFESTS / "overlays" / overlay)))


def only(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of this kind and name."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def alerts() -> Iterator[Object]:
    """Alerts of the rules."""
    (rules,) = documents(MANIFESTS / "monitoring" / "rules.yaml")
    for group in rules["spec"]["groups"]:
        yield from group["rules"]


def with_component(folder: Path, overlay: str, component: str) -> list[Object]:
    """Objects of an overlay with one more component, rendered from a kustomization in a copy of the manifests."""
    copy = folder / "manifests"
    if not copy.exists():
        shutil.copytree(MANIFESTS, copy)
    above = copy / "overlays" / f"{overlay}-{component}"
    above.mkdir()
    text = {"resources": [f"../{overlay}"], "components": [f"../../components/{component}"], "namespace": "plimsoll"}
    (above / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return list(yaml.safe_load_all(kustomized(above)))
