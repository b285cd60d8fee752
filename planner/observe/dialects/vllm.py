"""vLLM, V1 engine. Checked against a scrape of 0.32."""

from __future__ import annotations

from planner.observe.dialects.base import EngineDialect

VLLM = EngineDialect(
    name="vllm",
    waiting="vllm:num_requests_waiting",
    running="vllm:num_requests_running",
    kv_usage="vllm:kv_cache_usage_perc",
    started="process_start_time_seconds",
    isl="vllm:request_prompt_tokens",
    osl="vllm:request_generation_tokens",
    ttft="vllm:time_to_first_token_seconds",
    request_itl="vllm:request_time_per_output_token_seconds",
    token_itl="vllm:inter_token_latency_seconds",  # noqa: S106 (a metric, not a secret)
    prefix_queries="vllm:prefix_cache_queries_total",
    # The external one counts what a KV connector's store (CPU, disk, other instances) supplied beyond the device's.
    prefix_hits=("vllm:prefix_cache_hits_total", "vllm:external_prefix_cache_hits_total"),
)
