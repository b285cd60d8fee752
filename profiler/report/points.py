"""Measured points with the spread of their repeats, beside what the engine model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.csvfile import Samples
from profiler.tables import Profile
from profiler.timing import EngineTiming, engine_timing

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a table, repeats taken together.

    Attributes:
        at: coordinates, shape (n, columns).
        median, low, high: of the repeats, ms, shape (n,).
        repeats: how many, shape (n,).
    """

    at: Array
    median: Array
    low: Array
    high: Array
    repeats: NDArray[np.int64]

    def where(self, kept: NDArray[np.bool_]) -> Points:
        """The chosen points."""
        return Points(self.at[kept], self.median[kept], self.low[kept], self.high[kept], self.repeats[kept])

    def __len__(self) -> int:
        return len(self.median)


def points(rows: Samples, columns: Sequence[str], value: str) -> Points:
    """Repeats of each point taken together; suspect rows are left out."""
    good = rows["suspect"] == 0 if "suspect" in rows else np.ones(len(rows[value]), dtype=np.bool_)
    defaults = {"batch": 1.0, "prefix_hit_tokens": 0.0}
    table = [rows[name] if name in rows else np.full(len(good), defaults[name]) for name in columns]
    at, index = np.unique(np.column_stack(table)[good], axis=0, return_inverse=True)
    index, values = index.ravel(), rows[value][good]
    groups = [values[index == i] for i in range(len(at))]
    return Points(
        at,
        np.array([float(np.median(group)) for group in groups]),
        np.array([float(group.min()) for group in groups]),
        np.array([float(group.max()) for group in groups]),
        np.array([len(group) for group in groups], dtype=np.int64),
    )


def timing_of(profile: Profile) -> EngineTiming:
    """The engine model that simulation and sizing make of a profile alone."""
    return engine_timing(
        profile if "prefill" in profile.samples else None,
        profile if "decode" in profile.samples else None,
        limits_of=profile,
    )


def predicted_prompts(timing: EngineTiming, isl: Array, batch: Array, hit: Array) -> Array:
    """When the last of equal prompts that come at once has its first token, ms; shape of `isl`.

    What exceeds the token budget of an iteration runs in further ones, each but the last of them full.
    """
    new = batch * (isl - hit)
    budget = float(timing.max_num_batched_tokens)
    # A lone prompt's time is as it was measured, its chunks included.
    whole = np.where(batch > 1, np.floor(new / budget), 0.0)
    rest = new - whole * budget
    linear = whole * timing.linear_ms(budget) + np.where(rest > 0, timing.linear_ms(rest), 0.0)
    attention = timing.attention_ms_per_token2 * batch * (isl**2 - hit**2)
    return np.asarray(linear + attention + timing.front_end_ms(isl))


def predicted_mixed(timing: EngineTiming, tokens: Array, batch: Array, kv: Array) -> Array:
    """An iteration of a prompt's chunk and running requests, ms, as timing has it."""
    alone = np.where(batch > 0, timing.iteration_ms(batch, kv), 0.0)
    attention = timing.attention_ms_per_token2 * tokens**2
    together = timing.mixed_ms(timing.linear_behind_ms(tokens, alone) + attention, alone, batch)
    prompts = np.maximum(timing.prompt_ms(tokens), timing.floor_ms)
    return np.asarray(np.where(tokens > 0, np.where(batch > 0, together, prompts), alone))
