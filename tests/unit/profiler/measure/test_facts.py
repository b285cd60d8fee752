"""What is read off an engine's metrics."""

from __future__ import annotations

from profiler.measure.facts import _capacity, parse

PAGE = """\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0",num_gpu_blocks="100"} 1.0
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="1",num_gpu_blocks="100"} 1.0
# HELP vllm:prompt_tokens_by_source_total Number of prompt tokens by source.
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 7.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 5.0
# HELP vllm:request_prefill_time_seconds Histogram
# TYPE vllm:request_prefill_time_seconds histogram
vllm:request_prefill_time_seconds_bucket{engine="0",le="0.3",model_name="m"} 1.0
vllm:request_prefill_time_seconds_bucket{engine="0",le="+Inf",model_name="m"} 2.0
vllm:request_prefill_time_seconds_count{engine="0",model_name="m"} 2.0
vllm:request_prefill_time_seconds_sum{engine="0",model_name="m"} 0.5
vllm:request_prefill_time_seconds_count{engine="1",model_name="m"} 3.0
vllm:request_prefill_time_seconds_sum{engine="1",model_name="m"} 0.25
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython"} 1.0
"""


def test_ranks_add_up_and_sources_stay_apart() -> None:
    seen = parse(PAGE)
    assert seen.get("vllm:request_prefill_time_seconds_sum") == 0.75
    assert seen.get("vllm:request_prefill_time_seconds_count") == 5.0
    assert seen.get("vllm:prompt_tokens_by_source_total{external_kv_transfer}") == 5.0
    assert seen.get("vllm:prompt_tokens_by_source_total{local_compute}") == 7.0
    assert seen.get("vllm:no_such_thing") == 0.0
    assert "python_info" not in seen.totals


def test_capacity_is_that_of_all_ranks() -> None:
    assert _capacity(parse(PAGE).cache) == 3200
    assert _capacity(({"kv_cache_size_tokens": "512", "num_gpu_blocks": "9", "block_size": "16"},)) == 512
    assert _capacity(({"num_gpu_blocks": "None", "block_size": "16"},)) is None
    assert _capacity(()) is None
