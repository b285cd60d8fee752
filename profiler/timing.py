"""From measured tables to iteration times: the one model of the engine that sizing and simulation share.

A measured TTFT of a lone prompt of n tokens, T(n), is split as T(n) = L(n) + alpha n^2: L is the part that depends on
how many tokens an iteration holds (weights, GEMMs, fixed overhead), the square is causal attention, which depends on
each prompt alone. An iteration with prompts of q_1, q_2, … new tokens behind h_1, h_2, … cached ones then takes L(q_1
+ q_2 + …) + alpha * sum((h_i + q_i)^2 - h_i^2). A lone prompt gets exactly its measured time back, and a batch shares
the fixed part but is never faster on its linear part than the table's longest prompts were.

Where the table has the engine's own clock, T is that, and what a client sees beyond it is the front end's: a line over
the prompt's tokens that is added to a request's TTFT and delays no other request. Where a decode table shows how fast
a front end streams, the tokens of one iteration pass it one after the other, and a new request's is the last.

An engine that schedules ahead launches an iteration while the one before it runs. Beside decodes, then, a prompt takes
the GPU's own time, or what was left to launch when that one ended. The GPU's own time is convex in the tokens: at first
the weights are read whatever their number, then arithmetic grows with it. It is taken as the largest convex curve below
the lone prompts' times. Where iterations of prompts and decodes were measured themselves, these count instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.engine_side import attention_share, convex_below
from profiler.interpolate import DecodeSurface, PrefillCurve
from profiler.mixed_fit import fit_mixed
from profiler.roofline import kv_bytes_per_token
from profiler.streaming import streaming_limit
from profiler.tables import Profile

#: Table nodes: fine enough that linear interpolation between them adds less than the measurement's own noise.
PREFILL_STEP_TOKENS = 32
KV_NODES = 256

#: vLLM's defaults for its API server on GPUs of 80 GB and more; used where a profile does not record its limits.
DEFAULT_MAX_NUM_SEQS = 1024
DEFAULT_MAX_NUM_BATCHED_TOKENS = 8192
DEFAULT_BLOCK_SIZE = 16
DEFAULT_MAX_MODEL_LEN = 131_072


@dataclass(frozen=True, eq=False)
class EngineTiming:
    """Iteration times and limits of one worker.

    Attributes:
        prefill_ms: L at 0, step, 2 step, … tokens, ms; shape (N,).
        behind_ms: L of prompts whose iteration was launched while the one before it ran; shape (N,).
        prefill_step_tokens: tokens between nodes of both.
        attention_ms_per_token2: alpha.
        decode_ms: iteration time of a pure decode batch by running batch 0, 1, … and KV node; ms; shape (B, K).
        kv_step_tokens: KV tokens between nodes of `decode_ms`.
        floor_ms: decode iteration at batch 1 with no KV; no iteration is shorter.
        shared_ms: what an iteration of prompts and decodes saves against the two apart.
        mixed_ms_per_request: what it takes beyond them for each request that decodes.
        kv_capacity_tokens, max_num_seqs, max_num_batched_tokens, block_size: the engine's limits.
        gpus: GPUs of one worker.
        front_ms, front_ms_per_token: TTFT spent outside the engine's loop, by prompt tokens.
        stream_ms: TTFT for each request that decodes in the iteration of the first token: the front end streams
            theirs, too.
        ahead: an iteration is decided when the one before it begins.
        exposed: what of a launch is not hidden behind the iteration before it is not in `behind_ms`.
    """

    prefill_ms: NDArray[np.float64]
    behind_ms: NDArray[np.float64]
    prefill_step_tokens: int
    attention_ms_per_token2: float
    decode_ms: NDArray[np.float64]
    kv_step_tokens: float
    floor_ms: float
    shared_ms: float
    kv_capacity_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    gpus: int
    front_ms: float = 0.0
    front_ms_per_token: float = 0.0
    ahead: bool = False
    mixed_ms_per_request: float = 0.0
    stream_ms: float = 0.0
    exposed: bool = False

    def front_end_ms(self, isl: ArrayLike) -> NDArray[np.float64]:
        """What a prompt's TTFT holds beside the engine's loop, ms, same shape as `isl`."""
        return self.front_ms + self.front_ms_per_token * np.asarray(isl, dtype=np.float64)

    def slowed(self, factor: float) -> EngineTiming:
        """The engine with every iteration `factor` times as long; the front end, which is no iteration, as it is."""
        return replace(
            self,
            prefill_ms=self.prefill_ms * factor,
            behind_ms=self.behind_ms * factor,
            attention_ms_per_token2=self.attention_ms_per_token2 * factor,
            decode_ms=self.decode_ms * factor,
            floor_ms=self.floor_ms * factor,
            shared_ms=self.shared_ms * factor,
            mixed_ms_per_request=self.mixed_ms_per_request * factor,
        )

    def linear_ms(self, tokens: ArrayLike, *, hidden: bool = False) -> NDArray[np.float64]:
        """L(tokens), ms, same shape; with its launch `hidden` behind another iteration, or alone."""
        nodes = np.arange(len(self.prefill_ms)) * float(self.prefill_step_tokens)
        table = self.behind_ms if hidden else self.prefill_ms
        return np.asarray(np.interp(np.asarray(tokens, dtype=np.float64), nodes, table))

    def linear_behind_ms(self, tokens: ArrayLike, last_ms: ArrayLike) -> NDArray[np.float64]:
        """L(tokens) right behind an iteration of `last_ms`, ms (broadcast).

        An engine that schedules ahead launches during that one; what takes longer to launch is not hidden.
        """
        hidden = self.linear_ms(tokens, hidden=True)
        if not self.exposed:
            return hidden
        return np.maximum(hidden, self.linear_ms(tokens) - np.asarray(last_ms, dtype=np.float64))

    def prompt_ms(self, isl: ArrayLike, prefix_hit_tokens: ArrayLike = 0) -> NDArray[np.float64]:
        """A lone prompt's prefill time, ms, same shape as `isl`."""
        total = np.asarray(isl, dtype=np.float64)
        hit = np.asarray(prefix_hit_tokens, dtype=np.float64)
        return self.linear_ms(total - hit) + self.attention_ms_per_token2 * (total**2 - hit**2)

    def mixed_ms(self, prompts_ms: ArrayLike, decode_ms: ArrayLike, batch: ArrayLike) -> NDArray[np.float64]:
        """An iteration of prompts, with their attention, and a batch of decodes, ms; of what each takes (broadcast).

        Prompts take the floor at least, and no iteration less than its decodes.
        """
        decode = np.asarray(decode_ms, dtype=np.float64)
        prompts = np.maximum(np.asarray(prompts_ms, dtype=np.float64), self.floor_ms)
        added = prompts + self.mixed_ms_per_request * np.asarray(batch, dtype=np.float64)
        return np.maximum(added + (decode - self.shared_ms), decode)

    def iteration_ms(self, batch: ArrayLike, kv_tokens: ArrayLike) -> NDArray[np.float64]:
        """A pure decode iteration, ms; bilinear in (batch, KV tokens), held at the table's ends."""
        last_b, last_k = self.decode_ms.shape[0] - 1, self.decode_ms.shape[1] - 1
        b = np.clip(np.asarray(batch, dtype=np.float64), 0.0, last_b)
        k = np.clip(np.asarray(kv_tokens, dtype=np.float64) / self.kv_step_tokens, 0.0, last_k)
        b0 = np.minimum(b.astype(np.int64), last_b - 1)
        k0 = np.minimum(k.astype(np.int64), last_k - 1)
        fb, fk = b - b0, k - k0
        table = self.decode_ms
        low = table[b0, k0] * (1 - fk) + table[b0, k0 + 1] * fk
        high = table[b0 + 1, k0] * (1 - fk) + table[b0 + 1, k0 + 1] * fk
        return np.asarray(low * (1 - fb) + high * fb)


@dataclass(frozen=True, eq=False)
class TransferTiming:
    """Hand-off of a prompt's KV from prefill to decode.

    Attributes:
        transfer_ms: end to end, at 0, step, 2 step, … tokens; shape (N,).
        step_tokens: tokens between nodes.
        source: where it comes from, for people.
        post_ms: of it, what the decode engine's loop posts the copies for, at the same steps; shape (M,). No iteration
            is launched meanwhile. Zeros where it is not known.
    """

    transfer_ms: NDArray[np.float64]
    step_tokens: int
    source: str
    post_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def at(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Hand-off time, ms, same shape as `tokens`."""
        return self._along(self.transfer_ms, tokens)

    def post_at(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """By how much the decode iteration with which a hand-off begins is longer, ms, same shape as `tokens`."""
        return self._along(self.post_ms, tokens)

    def _along(self, table: NDArray[np.float64], tokens: ArrayLike) -> NDArray[np.float64]:
        nodes = np.arange(len(table)) * float(self.step_tokens)
        return np.asarray(np.interp(np.asarray(tokens, dtype=np.float64), nodes, table))


def _prefill_table(curve: PrefillCurve, longest: int, tokens: int) -> tuple[NDArray[np.float64], float]:
    alpha = attention_share(curve, longest)
    nodes = np.arange(0, tokens + PREFILL_STEP_TOKENS, PREFILL_STEP_TOKENS, dtype=np.float64)
    linear = curve.ttft_ms(np.maximum(nodes, 1.0)) - alpha * nodes**2
    return np.maximum.accumulate(linear), alpha


def _hidden_table(alone: NDArray[np.float64], tokens: int) -> NDArray[np.float64]:
    """L less its launches up to so many tokens; beyond, where L is extrapolated or no iteration goes, as alone."""
    nodes = min(tokens // PREFILL_STEP_TOKENS + 1, len(alone))
    return np.concatenate([convex_below(alone[:nodes]), alone[nodes:]])


def _decode_table(surface: DecodeSurface, max_num_seqs: int, capacity: int) -> tuple[NDArray[np.float64], float]:
    step = capacity / (KV_NODES - 1)
    batches = np.arange(max_num_seqs + 1, dtype=np.float64)
    table = surface.itl_ms(np.maximum(batches, 1.0)[:, None], (np.arange(KV_NODES) * step)[None, :])
    return np.ascontiguousarray(table), step


def engine_timing(prefill: Profile | None, decode: Profile | None, *, limits_of: Profile) -> EngineTiming:
    """Timing of a worker from the profiles that know its prefill and its decode speed.

    A prefill worker never decodes and a decode worker prefills only what it preempted, so either table may be missing;
    the missing half is then taken as free of cost for prefill and must not be asked for decode.

    Args:
        prefill: profile with a prefill table, or None.
        decode: profile with a decode table, or None.
        limits_of: the profile of this worker's role; its engine limits and GPUs count.
    """
    meta = limits_of.meta
    limits = meta.limits
    seqs = limits.max_num_seqs or DEFAULT_MAX_NUM_SEQS
    batched = limits.max_num_batched_tokens or DEFAULT_MAX_NUM_BATCHED_TOKENS
    capacity = meta.kv_capacity_tokens or (decode.meta.kv_capacity_tokens if decode else None)
    if capacity is None:
        capacity = DEFAULT_MAX_MODEL_LEN
    tokens = min(limits.max_model_len or DEFAULT_MAX_MODEL_LEN, DEFAULT_MAX_MODEL_LEN) + batched
    front_ms, front_ms_per_token = 0.0, 0.0
    if prefill is not None and prefill.prefill_engine is not None:
        longest = int(prefill.samples["prefill"]["isl"].max())
        fill, alpha = _prefill_table(prefill.prefill_engine, longest, tokens)
        front_ms, front_ms_per_token = prefill.front_end
    else:
        longest, fill, alpha = 0, np.zeros(2), 0.0
    if decode is not None and decode.decode is not None:
        table, step = _decode_table(decode.decode, seqs, capacity)
        limit = streaming_limit(decode.samples["decode"])
        stream_ms = 0.0 if limit is None else 1.0 / limit
    else:
        stream_ms = 0.0
        table, step = np.zeros((seqs + 1, 2)), float(capacity)
    timing = EngineTiming(
        prefill_ms=fill,
        behind_ms=_hidden_table(fill, min(longest, batched)) if limits.async_scheduling else fill,
        prefill_step_tokens=PREFILL_STEP_TOKENS,
        attention_ms_per_token2=alpha,
        decode_ms=table,
        kv_step_tokens=step,
        floor_ms=float(table[1, 0]),
        shared_ms=float(table[1, 0]),
        kv_capacity_tokens=int(capacity),
        max_num_seqs=int(seqs),
        max_num_batched_tokens=int(batched),
        block_size=int(limits.block_size or DEFAULT_BLOCK_SIZE),
        gpus=int(meta.gpu.count_per_worker),
        front_ms=front_ms,
        front_ms_per_token=front_ms_per_token,
        stream_ms=stream_ms,
        ahead=bool(limits.async_scheduling),
        exposed=bool(limits.async_scheduling),
    )
    return _beside_decodes(timing, prefill)


def _beside_decodes(timing: EngineTiming, profile: Profile | None) -> EngineTiming:
    """The timing with prompts beside decodes as they were measured; as it is without such a table.

    Tables without the engine's clock hold the front end in the prompt's time, so that nothing can be told from them.
    """
    rows = None if profile is None or profile.prefill_engine is profile.prefill else profile.samples.get("mixed")
    if rows is None:
        return timing
    decode = timing.iteration_ms(rows["batch"], rows["kv_tokens"])
    fit = fit_mixed(rows, decode, timing.attention_ms_per_token2)
    if fit is None:
        return timing
    nodes = np.arange(len(timing.prefill_ms)) * float(timing.prefill_step_tokens)
    # With the floor, which a mixed iteration shares, so that prompts by themselves have a time, too.
    behind = timing.floor_ms + fit.along(nodes, timing.prefill_ms)
    return replace(timing, behind_ms=behind, mixed_ms_per_request=fit.per_request_ms, exposed=False)


#: Where the hand-off was not measured: a 400 Gb/s network card at full rate, and a millisecond of notification.
ASSUMED_TRANSFER_GB_PER_S = 50.0
ASSUMED_TRANSFER_BASE_MS = 1.0


def transfer_timing(profiles: Sequence[Profile]) -> TransferTiming:
    """Hand-off time from the first profile that measured it; from KV bytes over an assumed network otherwise.

    It is that from a worker of the prefill profile's TP (without such a profile, of the measuring profile's own), or of
    the nearest TP that was measured, which `source` then says. Without the model's shape there is nothing to go by, and
    the assumed base is all that is left.
    """
    step = 64
    prefill_tp = next((profile.meta.tp for profile in profiles if profile.meta.role == "prefill"), None)
    nodes = np.arange(0, DEFAULT_MAX_MODEL_LEN + step, step, dtype=np.float64)
    for profile in profiles:
        wanted = profile.meta.tp if prefill_tp is None else prefill_tp
        found = profile.transfer_from(wanted)
        if found is not None:
            curve, tp = found
            source = "measured" if tp == wanted else f"measured from TP{tp}, not TP{wanted}"
            timing = TransferTiming(curve.transfer_ms(np.maximum(nodes, 1.0)), step, source)
            post = profile.post_from(tp)
            return timing if post is None else replace(timing, post_ms=post.ms(np.maximum(nodes, 1.0)))
    for profile in profiles:
        if profile.meta.model.shape is not None:
            per_token_ms = kv_bytes_per_token(profile.meta.model.shape) / (ASSUMED_TRANSFER_GB_PER_S * 1e6)
            note = f"assumed: {ASSUMED_TRANSFER_GB_PER_S:g} GB/s and {ASSUMED_TRANSFER_BASE_MS:g} ms"
            return TransferTiming(ASSUMED_TRANSFER_BASE_MS + per_token_ms * nodes, step, note)
    note = f"assumed: {ASSUMED_TRANSFER_BASE_MS:g} ms, the model's shape is not known"
    return TransferTiming(np.full(2, ASSUMED_TRANSFER_BASE_MS), DEFAULT_MAX_MODEL_LEN, note)
