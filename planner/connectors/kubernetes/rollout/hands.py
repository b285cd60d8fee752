"""What a connector lends for carrying layout changes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.connectors.kubernetes.events import Events
from planner.connectors.kubernetes.lease import Lease
from planner.connectors.kubernetes.rivals import Fights
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.victims import Marker
from planner.connectors.kubernetes.view import Viewer


@dataclass(frozen=True, slots=True)
class Hands:
    """A connector's own parts.

    Attributes:
        viewer: looks at the graph through the same `ChangingTarget`.
        lease: says who may.
        marker: marks the pods that are to go.
        fights: is told what was written.
        events: tells the cluster's users.
        gpus_of: GPUs that one worker of a pool counts for.
    """

    viewer: Viewer
    lease: Lease
    marker: Marker
    fights: Fights
    events: Events
    gpus_of: Callable[[PoolTarget], int | None]
