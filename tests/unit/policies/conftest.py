"""A small disaggregated setting, its profiles, and observations to hand to a policy."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from planner.core.engines import Engines
from planner.core.settings import PlannerSettings
from planner.core.types import Known, LengthSample, Observation, Pool, PoolState, Role, Sla, Unknown
from planner.whatif.policies.base import Setting
from planner.whatif.traces import Trace, TraceChunk
from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Source
from profiler.tables import Profile
from profiler.timing import engine_timing, transfer_timing

CAPACITY = 100_000


class NoTrace(Trace):
    """Policies may not read the trace; this one has nothing to read."""

    name = "none"

    def chunks(self) -> Iterator[TraceChunk]:
        yield from ()


def _meta(role: Literal["prefill", "decode"]) -> ProfileMeta:
    return ProfileMeta(
        schema_version=1,
        model=ModelInfo(name="toy", dtype="bfloat16"),
        gpu=GpuInfo(name="toy-gpu", count_per_worker=1),
        engine=Engine(name="vllm"),
        role=role,
        tp=1,
        dp=1,
        kv_capacity_tokens=CAPACITY,
        limits=Limits(max_num_seqs=256),
        source=Source(text="made up for tests", licence="Apache-2.0"),
    )


@pytest.fixture
def prefill() -> Profile:
    isl = np.array([100.0, 1000.0, 2000.0, 3000.0, 4000.0])
    ttft_ms = np.array([20.0, 50.0, 100.0, 150.0, 200.0])
    rows = {"isl": isl, "ttft_ms": ttft_ms, "throughput_tokens_per_s_per_gpu": isl / ttft_ms * 1000.0}
    return Profile(Path("toy/prefill"), _meta("prefill"), {"prefill": rows})


@pytest.fixture
def decode() -> Profile:
    """ITL = 5 + 10 kv_usage ms: 10 ms at half a cache, at every context length."""
    context, usage = (a.ravel() for a in np.meshgrid([0.0, 1000.0, 2000.0, 4000.0], np.linspace(0.0, 1.0, 12)))
    context, usage = np.maximum(context, 1.0), np.maximum(usage, 1e-5)
    batch = usage * CAPACITY / context
    rows = {
        "batch": batch,
        "kv_tokens": usage * CAPACITY,
        "context_tokens": context,
        "itl_ms": 5.0 + 10.0 * usage,
        "throughput_tokens_per_s_per_gpu": 1000.0 + 4000.0 * usage,
        "kv_usage": usage,
        "suspect": np.where(usage > 0.9, 1.0, 0.0),
    }
    return Profile(Path("toy/decode"), _meta("decode"), {"decode": rows})


@pytest.fixture
def make_setting(prefill: Profile, decode: Profile) -> Callable[..., Setting]:
    def make(max_gpus: int = 64, prefill_gpus: int = 1, decode_gpus: int = 1, **bounds: int) -> Setting:
        pools = {
            Role.PREFILL: Pool("p", Role.PREFILL, prefill_gpus, **bounds),
            Role.DECODE: Pool("d", Role.DECODE, decode_gpus, **bounds),
        }
        engines = Engines(
            (Role.PREFILL, Role.DECODE),
            (engine_timing(prefill, decode, limits_of=prefill), engine_timing(None, decode, limits_of=decode)),
            transfer_timing([prefill, decode]),
        )
        settings = PlannerSettings(sla=Sla(200.0, 10.0), pools=tuple(pools.values()), max_gpus=max_gpus)
        profiles = {Role.PREFILL: prefill, Role.DECODE: decode}
        return Setting(engines, profiles, pools, settings, {"p": 1, "d": 1}, 30.0, "least_loaded", NoTrace())

    return make


@pytest.fixture
def aggregated(make_setting: Callable[..., Setting], decode: Profile) -> Setting:
    made = make_setting()
    pools = {Role.AGGREGATED: Pool("a", Role.AGGREGATED, 1)}
    return Setting(
        made.engines, {Role.AGGREGATED: decode}, pools, made.settings, {"a": 1}, 30.0, "least_loaded", made.trace
    )


@pytest.fixture
def observe() -> Callable[..., Observation]:
    def make(
        pools: dict[str, PoolState] | None,
        *,
        arrivals: int = 0,
        isl: int | None = 1000,
        osl: int = 200,
        ttft_ms: float | None = 100.0,
        itl_ms: float | None = 8.0,
        interval_s: float = 15.0,
    ) -> Observation:
        none = Unknown("not measured")
        lengths = none if isl is None else Known(LengthSample((isl,), (osl,), (0,)))
        return Observation(
            interval_s=interval_s,
            arrivals=Known(arrivals),
            dispersion=none,
            lengths=lengths,
            pools=none if pools is None else Known(pools),
            mean_ttft_ms=none if ttft_ms is None else Known(ttft_ms),
            mean_itl_ms=none if itl_ms is None else Known(itl_ms),
        )

    return make
