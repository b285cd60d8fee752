"""The image's tree, made by its own steps, and processes in it as in a container (see rootfs.sh)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.manifests import MANIFESTS, ROOT

STEPS = MANIFESTS / "image" / "steps.sh"
ROOTFS = Path(__file__).with_name("rootfs.sh")
#: Of this interpreter, not of its virtual environment, which has no packages of the image's.
PREFIX = Path(sys.base_prefix)
PYTHON = PREFIX / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def step(*words: str | Path) -> None:
    """Run one of the steps."""
    env = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["sh", STEPS, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"steps.sh {words[0]}: {done.stdout}{done.stderr}"


def build(folder: Path) -> Path:
    """The image's /opt/plimsoll below a folder."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("planner", "profiler", "worker_graph"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "plimsoll"
    step("wheel", source, folder / "wheel")
    step("install", folder / "wheel", target)
    step("strip", target)
    step("check", target)
    return target


def can_isolate() -> bool:
    """Whether mounts of one's own are allowed here."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    words = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def inside(target: Path, config: Path, profiles: Path, state: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """The words that run a command as user 65532 in a tree that only /tmp and the state can be written to."""
    return ["unshare", "-m", ROOTFS, PREFIX, target, config, profiles, state, *command]


def size_mib(target: Path) -> float:
    """Of all files."""
    return sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 2**20
