"""Targets of the HPA's metrics: what a load test of one worker would have told the operator.

The guides of GKE and EKS for autoscaling vLLM have the operator load one worker until its latency reaches the limit
and set the target by the load found. That test is taken here from the profile, at the mean lengths of the first
requests that the policy sees: from then on the target is a constant, as in a manifest. The target of `queue` is the
constant of the usual examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from planner.core.types import LengthSample, Role, Sla
from profiler.tables import Profile

Metric = Literal["queue", "concurrency", "kv"]

#: Waiting requests per worker: the threshold of the vLLM production stack's KEDA example, and the upper end of the 3 to
#: 5 from which GKE's guide to autoscaling LLM inference starts.
QUEUE_TARGET = 5.0

#: Share of the requests at one worker that fit the SLA one after another (prefill) or side by side (decode).
#: Set by trial; see `hpa.Hpa`.
PREFILL_SHARE, DECODE_SHARE = 0.25, 0.7

#: Requests at one worker that are tried; beyond vLLM's largest default batch.
_MOST_REQUESTS = 2048


def metrics_of(role: Role, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The metrics that a pool is scaled on, each once.

    KV usage says little of a prefill worker, which frees a prompt's KV at once: a prefill pool goes without it, and
    takes `concurrency` where it was the only one.
    """
    found = tuple(dict.fromkeys(metric for metric in metrics if not (metric == "kv" and role is Role.PREFILL)))
    return found or ("concurrency",)


def default_target(role: Role, metric: Metric, profile: Profile, sla: Sla, lengths: LengthSample) -> float:
    """The target of a pool's metric: requests per worker, or the share of the KV cache in use.

    Args:
        role: of the pool.
        metric: as `metrics_of` gave it.
        profile: of the pool's workers.
        sla: limits that the load test goes up to.
        lengths: requests to test with.
    """
    if metric == "queue":
        return QUEUE_TARGET
    isl, osl = float(np.mean(lengths.isl)), float(np.mean(lengths.osl))
    if role is Role.PREFILL:
        return max(1.0, PREFILL_SHARE * prompts_within(profile, sla, isl))
    requests = DECODE_SHARE * batch_within(profile, sla, isl + osl / 2.0)
    if metric == "concurrency":
        return max(1.0, requests)
    capacity = profile.meta.kv_capacity_tokens
    # Without a capacity there is no usage to read either; 0.8 is where llm-d's autoscaler calls a worker saturated.
    return 0.8 if capacity is None else min(0.8, requests * (isl + osl / 2.0) / capacity)


def prompts_within(profile: Profile, sla: Sla, isl: float) -> float:
    """Prompts of `isl` tokens that one worker computes one after another within the TTFT limit."""
    if profile.prefill is None:
        return 1.0
    return sla.ttft_ms / float(profile.prefill.ttft_ms(isl))


def batch_within(profile: Profile, sla: Sla, context: float) -> float:
    """The largest batch of requests of `context` tokens that one worker decodes within the ITL limit, at least 1."""
    if profile.decode is None:
        return 1.0
    batches = np.arange(1.0, _MOST_REQUESTS + 1.0)
    within = profile.decode.itl_ms(batches, batches * context) <= sla.itl_ms
    capacity = profile.meta.kv_capacity_tokens
    if capacity is not None:
        within &= batches * context <= capacity
    return float(batches[within].max(initial=1.0))
