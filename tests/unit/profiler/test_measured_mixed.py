"""The fit of mixed iterations on the tables that were measured on GPUs, against points that it has not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from profiler.tables import Profile, load_profile
from profiler.timing import engine_timing

RESULTS = Path(__file__).parents[3] / "profiling_results"
TABLES = sorted(RESULTS.rglob("mixed.csv"))


def _left_out(profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Of each point its prompt tokens, and the relative error of the timing without it, to the mean of its repeats."""
    rows = profile.samples["mixed"]
    at = np.column_stack([rows[name] for name in ("prefill_tokens", "batch", "kv_tokens")])
    points, index = np.unique(at, axis=0, return_inverse=True)
    errors = []
    for place, (tokens, batch, kv) in enumerate(points):
        out = index.ravel() == place
        others = {name: column[~out] for name, column in rows.items()}
        less = replace(profile, samples={**profile.samples, "mixed": others})
        timing = engine_timing(less, less, limits_of=less)
        decode = timing.iteration_ms(batch, kv)
        prompt = timing.linear_behind_ms(tokens, decode) + timing.attention_ms_per_token2 * tokens**2
        errors.append(float(timing.mixed_ms(prompt, decode, batch)) / rows["iteration_ms"][out].mean() - 1.0)
    return points[:, 0], np.array(errors)


def test_points_left_out_are_told_without_bias() -> None:
    assert len(TABLES) > 5
    found = [_left_out(load_profile(path.parent)) for path in TABLES]
    tokens, error = (np.concatenate(part) for part in zip(*found, strict=True))
    graphs = tokens <= 512
    # Repeats of a point differ by this much themselves where kernels are launched one by one.
    assert np.abs(error).mean() < 0.075
    assert np.abs(error[graphs]).mean() < 0.12
    for part in (graphs, ~graphs):
        assert error[part].mean() == pytest.approx(0.0, abs=0.03)
