"""Python, ports and the hub's token on this host."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from planner.doctor.base import Check, passed, skipped, warned
from planner.doctor.host import installed
from planner.doctor.scene import Scene

#: vLLM's and the gateway's.
PORTS = (8000, 29000)
LEAST_PYTHON = (3, 11)


def python(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - every probe takes the scene
    """The interpreter, and what of an engine is installed beside it."""
    found = installed()
    wheels = ", ".join(f"{name} {found[name]}" for name in ("vllm", "torch") if name in found)
    text = f"Python {'.'.join(map(str, sys.version_info[:3]))}; {wheels or 'neither vllm nor torch in it'}"
    if sys.version_info < LEAST_PYTHON:
        return [warned("Python", text, "Python 3.11 or later")]
    return [passed("Python", text)]


def ports(scene: Scene) -> Iterable[Check]:
    """Ports that workers, gateway and planner listen on."""
    wanted = {port: "engine" if port == 8000 else "gateway's metrics" for port in PORTS}
    if scene.config is not None and scene.config.service.port:
        wanted[scene.config.service.port] = "planner"
    taken = [f"{port} ({what})" for port, what in wanted.items() if not _free(port)]
    if taken:
        fix = "nothing, if that is the graph that runs; else end it, or choose other ports"
        return [warned("ports", f"taken: {', '.join(taken)}", fix)]
    return [passed("ports", f"free: {', '.join(map(str, wanted))}")]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def hub_token(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - as above
    """Whether there is a token for models with a licence to accept; it is neither read into an answer nor sent."""
    named = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), None)
    if named is not None:
        return [passed("hub token", f"{named} is set")]
    home = os.environ.get("HF_HOME")
    file = Path(home).expanduser() / "token" if home else Path.home() / ".cache" / "huggingface" / "token"
    if file.is_file():
        return [passed("hub token", f"{file} is there")]
    return [skipped("hub token", "there is none", "set HF_TOKEN for models whose licence must be accepted")]
