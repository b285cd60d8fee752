"""Points in time as the API server writes them."""

from __future__ import annotations

import datetime as dt


def seconds_of(text: str | None) -> float | None:
    """Seconds since the epoch of a Time or MicroTime; None where there is none."""
    return dt.datetime.fromisoformat(text).timestamp() if text else None


def micro_time(wall_s: float) -> str:
    """MicroTime of seconds since the epoch: what renewTime and eventTime want."""
    return dt.datetime.fromtimestamp(wall_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
