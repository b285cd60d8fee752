"""The frontend of Dynamo; names as its own planner queries them, not tried here.

Releases before `requests_started_total` only count completed requests.
"""

from __future__ import annotations

from planner.observe.dialects.base import GatewayDialect, Selector

DYNAMO = GatewayDialect(
    name="dynamo",
    arrivals=(Selector("dynamo_frontend_requests_started_total"), Selector("dynamo_frontend_requests_total")),
    ttft="dynamo_frontend_time_to_first_token_seconds",
)
