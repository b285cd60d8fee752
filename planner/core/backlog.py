"""A backlog: more waits than the workers that serve work off at once.

Whoever comes behind a backlog misses the TTFT limit, however few workers the arrivals alone would need. So long as one
lasts, and for an interval after it, no pool gives up a worker, be it one that serves or one that starts: a crowd ends
when its queue does, not when its arrivals do. It never raises a plan: what is sized for the arrivals works a backlog
off by its own reserve.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BacklogSettings(BaseModel):
    """When what waits is a backlog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work_off_s: float = Field(default=2.0, gt=0)
    """Waiting requests that the ready workers do not work off within so many seconds, beside what comes meanwhile, are
    a backlog. A batch of prompts is none; behind two seconds of work few limits are kept."""


def is_backlog(settings: BacklogSettings, waiting: float, rate_rps: float, capacity_rps: float) -> bool:
    """Whether w + (r - c) t > 0: what waits, w, is not worked off within t = `work_off_s` by workers that serve c of r.

    Args:
        settings: t.
        waiting: requests in the pool's queues.
        rate_rps: what comes, requests/s.
        capacity_rps: what the ready workers serve at most, requests/s; 0 without any.
    """
    return waiting > 0 and waiting + (rate_rps - capacity_rps) * settings.work_off_s > 0
