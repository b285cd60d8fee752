"""The forward passes that Dynamo 1.6 reads of each engine, as a replay's figures show them, and its profile as passes.

Dynamo's engines report every pass: its prompts and decodes with their tokens, its time, and what waits. Here a policy
sees each worker's requests and KV, so a pass is put together from these:

* Prompts have the mean length of those that completed last; their cached tokens are not computed. A worker that is idle
  at this very moment has still computed one since the last look if prompts came, and Dynamo's engines keep on reporting
  their last pass.
* An aggregated worker's pass holds the prompt tokens that come in during one iteration; while prompts wait, it is full.
* A pass takes the time that the simulated engine takes for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.core.types import LengthSample, Role
from planner.whatif.policies.base import Setting
from planner.whatif.policies.dynamo_engine import EngineModel, Limits, Load
from planner.whatif.policies.dynamo_regression import Pass
from planner.whatif.policies.dynamo_tables import table_rows
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.tables import Profile
from profiler.timing import DEFAULT_MAX_MODEL_LEN, EngineTiming


@dataclass(frozen=True, slots=True)
class Lengths:
    """Means of requests: prompt tokens, those of them that were cached, output tokens; NaN before any completed."""

    isl: float = math.nan
    hit: float = math.nan
    osl: float = math.nan

    @property
    def known(self) -> bool:
        """Whether any request completed."""
        return math.isfinite(self.isl)

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that were cached; NaN when unknown."""
        return self.hit / self.isl if self.known and self.isl > 0.0 else math.nan

    @classmethod
    def of(cls, sample: LengthSample) -> Lengths:
        """Means of a sample that is not empty."""
        columns = (sample.isl, sample.prefix_hit_tokens, sample.osl)
        return cls(*(float(np.mean(column)) for column in columns))


def limits_of(timing: EngineTiming, profile: Profile) -> Limits:
    """An engine's limits as it would publish them."""
    return Limits(
        batched_tokens=timing.max_num_batched_tokens,
        seqs=timing.max_num_seqs,
        kv_tokens=timing.kv_capacity_tokens,
        context_tokens=profile.meta.limits.max_model_len or DEFAULT_MAX_MODEL_LEN,
    )


def load_of(worker: WorkerLoad, role: Role, timing: EngineTiming, seen: Lengths, arrivals_per_s: float) -> Load:
    """What the engine of a worker last reported.

    Args:
        worker: its requests and KV now.
        role: of its pool.
        timing: of its engine.
        seen: lengths of requests.
        arrivals_per_s: requests that came to it.
    """
    isl = seen.isl if seen.known else 0.0
    computed = max(0.0, isl - seen.hit) if seen.known else 0.0
    kv = round(worker.kv_usage * worker.kv_capacity_tokens)
    if role is Role.DECODE:
        scheduled = Pass(0, 0, worker.running, kv if worker.running else 0)
        queued = Pass(0, 0, worker.waiting, round(worker.waiting * isl))
    elif role is Role.PREFILL:
        # A prompt that has come since the last look has been computed, be it gone already.
        prompts = worker.running or (1 if arrivals_per_s > 0.0 and not worker.waiting else 0)
        at_once = max(1, min(prompts, int(timing.max_num_batched_tokens // max(1.0, computed))))
        tokens = round(min(prompts * computed, timing.max_num_batched_tokens))
        late = max(0, prompts - at_once)
        scheduled = Pass(at_once if tokens else 0, tokens)
        queued = Pass(worker.waiting + late, round((worker.waiting + late) * isl))
    else:
        scheduled = _mixed_pass(worker, timing, computed, arrivals_per_s, kv)
        queued = Pass(worker.waiting, round(worker.waiting * isl))
    return Load(scheduled, time_ms_of(scheduled, timing), queued)


def _mixed_pass(worker: WorkerLoad, timing: EngineTiming, computed: float, arrivals_per_s: float, kv: int) -> Pass:
    if not worker.running:
        return Pass()
    room = max(0, timing.max_num_batched_tokens - worker.running)
    iteration_s = float(timing.iteration_ms(worker.running, kv)) / 1000.0
    tokens = room if worker.waiting else min(room, round(arrivals_per_s * iteration_s * computed))
    prompts = max(1, round(tokens / computed)) if tokens and computed >= 1.0 else 0
    return Pass(prompts, tokens if prompts else 0, worker.running, kv)


def time_ms_of(held: Pass, timing: EngineTiming) -> float:
    """How long the simulated engine takes for a pass, its prompts equally long and without cached tokens; ms."""
    if held.empty:
        return 0.0
    decode_ms = float(timing.iteration_ms(held.decodes, held.decode_kv)) if held.decodes else 0.0
    if held.prompt_tokens <= 0:
        return decode_ms
    attention_ms = timing.attention_ms_per_token2 * held.prompt_tokens**2 / max(1, held.prompts)
    prompts_ms = float(timing.linear_ms(held.prompt_tokens)) + attention_ms
    return float(timing.mixed_ms(prompts_ms, decode_ms, held.decodes)) if held.decodes else prompts_ms


def bootstrapped(role: Role, setting: Setting) -> EngineModel:
    """A role's model, tuned with the profile's samples in their order, as with Dynamo's `profile_results_dir`.

    Raises:
        InputError: no profile has the table.
    """
    profile, timing = setting.profiles[role], setting.engines.of(role)
    model = EngineModel(role, limits_of(timing, profile))
    if role is not Role.DECODE:
        # An aggregated worker may be described by two profiles, of which the graph's own is that with the limits.
        source = profile if "prefill" in profile.samples else _prefill_source(setting, profile)
        rows = table_rows(source, "prefill", "dynamo")
        for isl, ttft_ms in zip(rows["isl"], rows["ttft_ms"], strict=True):
            model.tune(Pass(1, int(isl)), float(ttft_ms))
    if role is not Role.PREFILL:
        rows = table_rows(profile, "decode", "dynamo")
        for kv, context, itl_ms in zip(rows["kv_tokens"], rows["context_tokens"], rows["itl_ms"], strict=True):
            tokens = round(float(kv))
            batch = max(1, round(tokens / float(context))) if context > 0 else 1
            model.tune(Pass(0, 0, batch, tokens), float(itl_ms))
    return model


def _prefill_source(setting: Setting, otherwise: Profile) -> Profile:
    with_table = (source for source in setting.sources if "prefill" in source.samples)
    return next(with_table, otherwise)
