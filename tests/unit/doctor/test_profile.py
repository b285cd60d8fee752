"""A profile beside engines: what changes timing fails, what may change it warns."""

from __future__ import annotations

from typing import Any

import pytest

from planner.core.types import Role
from planner.doctor.base import Verdict
from planner.doctor.engine import Running, cache_labels, flags_of, words_of
from planner.doctor.profile import judge_arguments, judge_engines, judge_gpu, profiles_for
from profiler.schema import ProfileMeta
from profiler.tables import Profile, load_profile
from tests.unit.doctor.profiles import meta, shipped

MEASURED = ("vllm", "serve", "llama", "--tensor-parallel-size", "2", "--max-num-seqs", "512", "--dtype=bfloat16")


def test_flags_in_all_their_forms() -> None:
    words = [
        "vllm",
        "serve",
        "m",
        "-tp",
        "2",
        "--max_num_seqs=512",
        "--enforce-eager",
        "--dtype",
        "half",
        "--dtype",
        "auto",
    ]
    assert flags_of(words) == {
        "--tensor-parallel-size": "2",
        "--max-num-seqs": "512",
        "--enforce-eager": "",
        "--dtype": "auto",
    }
    container = {"command": ["sh", "-c"], "args": ["exec vllm serve m \\\n --block-size 32 --enable-lora"]}
    assert flags_of(words_of(container)) == {"--block-size": "32", "--enable-lora": ""}
    assert words_of({"command": ["vllm"], "args": ["serve", "m"]}) == ["vllm", "serve", "m"]
    assert words_of({}) == []


@pytest.mark.parametrize(
    ("words", "verdicts"),
    [
        ("-tp 2 --max-num-seqs 512 --dtype bfloat16", [Verdict.PASS]),
        ("-tp 4 --max-num-seqs 512 --dtype bfloat16", [Verdict.FAIL]),
        ("-tp 2 --max-num-seqs 256 --dtype bfloat16", [Verdict.FAIL]),
        ("-tp 2 --max-num-seqs 512 --dtype bfloat16 --enforce-eager", [Verdict.FAIL]),
        ("-tp 2 --max-num-seqs 512 --dtype bfloat16 --block-size 32", [Verdict.WARN]),
        ("-tp 2 --dtype bfloat16", [Verdict.WARN]),
        ("-tp 2 -dp 2 --dtype bfloat16", [Verdict.FAIL, Verdict.WARN]),
    ],
)
def test_arguments_beside_those_that_were_measured(words: str, verdicts: list[Verdict]) -> None:
    found = list(judge_arguments("decode", flags_of(words.split()), meta(tp=2, arguments=MEASURED)))
    assert [one.verdict for one in found] == verdicts


def test_a_profile_that_does_not_say_its_arguments_is_compared_by_its_limits_alone() -> None:
    bare = meta(tp=1, arguments=None, max_num_seqs=256)
    assert [one.verdict for one in judge_arguments("d", flags_of(["--max-num-seqs", "256"]), bare)] == [Verdict.PASS]
    assert [one.verdict for one in judge_arguments("d", flags_of(["--max-num-seqs", "64"]), bare)] == [Verdict.FAIL]
    assert [one.verdict for one in judge_arguments("d", {"--enforce-eager": "", "--max-num-seqs": "256"}, bare)] == [
        Verdict.PASS
    ]


@pytest.mark.parametrize(
    ("products", "verdict"),
    [
        ({"NVIDIA-H100-80GB-HBM3": 2}, Verdict.PASS),
        ({"NVIDIA-H100-80GB-HBM3": 1, "NVIDIA-H200": 1}, Verdict.FAIL),
        ({"NVIDIA-A10": 1}, Verdict.FAIL),
        ({"": 2}, Verdict.SKIP),
    ],
)
def test_the_nodes_gpu_beside_the_profiles(products: dict[str, int], verdict: Verdict) -> None:
    assert judge_gpu("decode", products, meta(gpu="h100-sxm")).verdict is verdict


def test_a_gpu_that_no_table_knows_is_compared_by_its_name() -> None:
    assert judge_gpu("decode", {"NVIDIA-A10": 1}, meta(gpu="NVIDIA A10")).verdict is Verdict.PASS


def cache(blocks: int, **more: str) -> dict[str, str]:
    return {"num_gpu_blocks": str(blocks), "block_size": "16", **more}


def running(**changes: Any) -> Running:
    return Running(**{"address": "a:1", "version": "0.26.0", "models": ("meta-llama/Llama-3.1-8B",), **changes})


def engine(one: Running | list[Running], profile: ProfileMeta | None = None, model: str = "chat") -> dict[str, Verdict]:
    told = one if isinstance(one, list) else [one]
    found = judge_engines("d", told, profile or meta(kv=160_000), model)
    return {check.name.removesuffix(" d"): check.verdict for check in found}


def test_an_engine_as_measured() -> None:
    good = running(models=("chat", "meta-llama/Llama-3.1-8B"), caches=(cache(10_000),))
    assert engine(good) == {"version": Verdict.PASS, "model": Verdict.PASS, "KV cache": Verdict.PASS}


@pytest.mark.parametrize(
    ("blocks", "verdict"),
    [(9_600, Verdict.PASS), (9_000, Verdict.WARN), (7_900, Verdict.FAIL), (12_100, Verdict.FAIL)],
)
def test_kv_capacity_beside_the_profiles(blocks: int, verdict: Verdict) -> None:
    assert engine(running(caches=(cache(blocks),)))["KV cache"] is verdict


def test_ranks_count_together_and_an_engine_that_says_tokens_is_believed() -> None:
    assert running(caches=(cache(5_000), cache(5_000))).kv_tokens == 160_000
    assert running(caches=(cache(1, kv_cache_size_tokens="4096"),)).kv_tokens == 4096
    assert running(caches=(cache(5_000), {"num_gpu_blocks": "None"})).kv_tokens is None
    assert running().kv_tokens is None


def test_versions_and_models_that_differ() -> None:
    assert engine(running(version="0.27.0"))["version"] is Verdict.WARN
    assert engine([running(), running(version="0.27.0")])["version"] is Verdict.WARN
    assert engine(running(version="0.26.0+cu130"))["version"] is Verdict.PASS
    assert engine(running(), meta(version=None))["version"] is Verdict.SKIP
    assert engine(running(models=("qwen3-32b",)))["model"] is Verdict.FAIL
    assert engine(running(models=("/models/abc",)))["model"] is Verdict.WARN
    assert engine(running(models=("Llama-3.1-8B",)))["model"] is Verdict.WARN  # the configuration says chat
    assert engine(running(models=()))["model"] is Verdict.SKIP


def test_the_caches_description_among_a_page_of_metrics() -> None:
    page = (
        "# HELP vllm:cache_config_info x\n"
        'vllm:cache_config_info{block_size="32",num_gpu_blocks="100",engine="0"} 1.0\n'
        'vllm:num_requests_running{engine="0"} 3.0\n'
    )
    assert [dict(one) for one in cache_labels(page)] == [{"block_size": "32", "num_gpu_blocks": "100", "engine": "0"}]
    assert cache_labels("x 1\n") == ()


def test_an_aggregated_worker_may_be_described_by_two_profiles() -> None:
    loaded: list[Profile] = [load_profile(path) for path in shipped()]
    assert [one.meta.role for one in profiles_for(loaded, Role.DECODE)] == ["decode"]
    assert sorted(one.meta.role for one in profiles_for(loaded, Role.AGGREGATED)) == ["decode", "prefill"]
