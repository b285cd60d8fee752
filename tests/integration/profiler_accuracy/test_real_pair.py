"""Recording from a pair of real vLLM workers without a gateway: the client hands the KV over, and nothing is computed
twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from profiler.record import PoissonSchedule, read_recording
from profiler.record.jobs import Target, run_all
from tests.integration.vllm_cpu.workers import MODEL_NAME, Worker, nixl


def test_a_run_on_a_pair(tmp_path: Path, start_vllm: Callable[..., Worker]) -> None:
    prefill, decode = start_vllm("prefill", *nixl("kv_producer")), start_vllm("decode", *nixl("kv_consumer"))
    prefill.wait_until_ready()
    decode.wait_until_ready()
    schedule = PoissonSchedule(rate=1.5, duration_s=12, isl=400, isl_cv=0.8, osl=20, osl_cv=0.5, seed=2)
    target = Target((), (prefill.url,), (decode.url,), "tiny", MODEL_NAME, "cpu", {})
    (done,) = asyncio.run(run_all(target, [schedule], tmp_path))
    assert {one.error for one in done.results} == {""}
    back = read_recording(done.path)
    assert back.completed.all()
    assert (back.ttft_ms > back.prefill_ms).all()
    # Exact token ids on both sides: what was sent is what the engines counted.
    first, second = back.meta.of("prefill")[0].counters, back.meta.of("decode")[0].counters
    assert first["vllm:prompt_tokens_total"] == back.isl.sum()
    assert second["vllm:generation_tokens_total"] == back.osl.sum()
    # All but each prompt's last token came over; the decode worker computed none of the rest.
    came = second["vllm:prompt_tokens_by_source_total{external_kv_transfer}"]
    assert came >= back.isl.sum() - len(back.isl)
    assert first.get("vllm:prefix_cache_hits_total", 0.0) == 0.0
    assert back.meta.engine_version is not None
