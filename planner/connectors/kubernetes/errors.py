"""What an API server answers when it does not do what was asked.

ConnectorError
└── ClusterError
    ├── ConflictError      409: the object has changed since it was read, or another field manager owns the field
    ├── ForbiddenError     403, 401: the role lacks a verb, or the token has run out
    ├── NotFoundError      404: no such object, or no such kind of objects
    ├── GoneError          410: a list's continuation or a watch's position has expired
    ├── InvalidError       400, 415, 422: the request is wrong, or the server does not know that kind of patch
    └── UnreachableError   no answer in time, a cut connection, 429 and 5xx: may go away by itself
"""

from __future__ import annotations

from planner.connectors.base import ConnectorError


class ClusterError(ConnectorError):
    """The API server did not do what was asked; the message names verb, object and reason."""


class ConflictError(ClusterError):
    """Somebody else has changed the object, or owns the field."""


class ForbiddenError(ClusterError):
    """Not allowed; the message names what the role lacks."""


class NotFoundError(ClusterError):
    """Not there."""


class GoneError(ClusterError):
    """What was asked to go on from is too old."""


class InvalidError(ClusterError):
    """The server refuses the request itself."""


class UnreachableError(ClusterError):
    """No answer, or one that says to come back later."""


BY_STATUS: dict[int, type[ClusterError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    405: InvalidError,
    409: ConflictError,
    410: GoneError,
    415: InvalidError,
    422: InvalidError,
}


def error_of(status: int) -> type[ClusterError]:
    """The error of an HTTP status; UnreachableError for what a later try may mend."""
    return BY_STATUS.get(status, UnreachableError)
