"""vllm-router. What each counter counts was found out by trying release 0.1.17.

With disaggregation `vllm_router_pd_requests_total` counts a request when it is dispatched, also one that then fails.
Without, `vllm_router_requests_total` only counts what completed, so `vllm_router_processed_requests_total` is used,
which counts at dispatch. Neither counts what waits in the router's queue or is refused there
(`--max-concurrent-requests`): above that limit the offered load is seen only as far as the limit lets it through. Its
latency histograms end with the head of the worker's answer; TTFT therefore comes from the engines.
"""

from __future__ import annotations

from planner.observe.dialects.base import GatewayDialect, Selector

VLLM_ROUTER = GatewayDialect(
    name="vllm-router",
    arrivals=(Selector("vllm_router_pd_requests_total"), Selector("vllm_router_processed_requests_total")),
    signs=("vllm_router_worker_health", "vllm_router_active_workers"),
)
