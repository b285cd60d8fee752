"""Ports on this machine."""

from __future__ import annotations

import socket

from profiler.errors import DependencyError


class PortTakenError(DependencyError):
    """Something listens there already."""


def free_ports(host: str, count: int) -> list[int]:
    """Ports that were free a moment ago, all different; held together while they are chosen."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def check_free(host: str, port: int, what: str) -> None:
    """Raise PortTakenError if a port cannot be bound; 0 stands for any."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing may be taken over.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"{what}: {host}:{port} cannot be listened on: {error.strerror}") from None
