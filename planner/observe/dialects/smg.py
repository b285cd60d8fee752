"""smg, the Shepherd model gateway. What each counter counts was found out by trying release 1.13.

`smg_http_requests_total` counts a request when it arrives: also one that waits for admission, is rejected with 429 or
fails. Retries are not counted again. It also counts what is malformed or names an unknown model, which no worker will
see. (`smg_router_requests_total` only counts what was admitted.)

`smg_pd_prefill_duration_seconds` covers dispatch to the end of the prefill worker's answer, failed requests left out.
`smg_pd_ttft_seconds` is no TTFT: it ends with the head of the decode worker's answer, which vLLM sends before the first
token when streaming, and after the last one when not. Time spent waiting for admission is in neither. Without
disaggregation the gateway exports no latency that ends with a token.
"""

from __future__ import annotations

from planner.observe.dialects.base import GatewayDialect, Selector, TtftSpan

PATHS = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/generate"})

SMG = GatewayDialect(
    name="smg",
    arrivals=(Selector("smg_http_requests_total", {"method": frozenset({"POST"}), "path": PATHS}),),
    signs=("smg_worker_liveness_fallback_total",),
    ttft="smg_pd_prefill_duration_seconds",
    ttft_span=TtftSpan.PREFILL,
    answers=Selector("smg_http_responses_total", {"path": PATHS}),
    failed_statuses=frozenset({"408", "429", "500", "502", "503", "504"}),
)
