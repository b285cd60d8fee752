"""Whatever was measured: monotone in each argument, exact where the data agrees with that."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.hardware import find_gpu
from profiler.interpolate import DecodeSurface, MixedTable, PrefillCurve
from profiler.monotone import isotonic, isotonic_partial
from profiler.roofline import Roofline
from profiler.schema import ModelShape

_GPU = find_gpu("h200-sxm")
assert _GPU is not None
_ROOF = Roofline(
    ModelShape(
        hidden_size=4096, layers=32, heads=32, kv_heads=8, head_dim=128, intermediate_size=14336,
        vocab_size=128256, weight_bytes_per_param=1.0, kv_bytes_per_element=2.0,
    ),
    _GPU,
    1.9e15,
)  # fmt: skip

_rooflines = st.sampled_from([None, _ROOF])
_samples = st.lists(
    st.tuples(st.integers(1, 2000), st.integers(1, 20000), st.floats(0.5, 500.0)), min_size=1, max_size=25
)


def _columns(samples: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batch, context, itl = (np.array(column, dtype=np.float64) for column in zip(*samples, strict=True))
    return batch, batch * context, itl


@given(samples=_samples, roofline=_rooflines, seed=st.integers(0, 2**16))
@settings(max_examples=150, deadline=None)
def test_surface_never_falls(samples: list[tuple[int, int, float]], roofline: Roofline | None, seed: int) -> None:
    batch, kv, itl = _columns(samples)
    surface = DecodeSurface(batch, kv, itl, roofline, kv_capacity_tokens=1e6)
    rng = np.random.default_rng(seed)
    b = np.sort(np.concatenate([rng.uniform(0, 3000, 20), batch]))
    k = np.sort(np.concatenate([rng.uniform(0, 5e7, 20), rng.uniform(0, 2e6, 20), kv]))
    grid = surface.itl_ms(b[:, None], k[None, :])
    assert np.isfinite(grid).all()
    assert (grid > 0).all()
    slack = 1e-9 * grid.max()
    assert (np.diff(grid, axis=0) >= -slack).all()
    assert (np.diff(grid, axis=1) >= -slack).all()


@given(samples=_samples, roofline=_rooflines)
@settings(max_examples=150, deadline=None)
def test_surface_is_exact_where_data_is_consistent(
    samples: list[tuple[int, int, float]], roofline: Roofline | None
) -> None:
    batch, kv, itl = _columns(samples)
    consistent = isotonic_partial(np.column_stack([batch, kv]), itl)
    surface = DecodeSurface(batch, kv, consistent, roofline)
    assert surface.itl_ms(batch, kv).tolist() == consistent.tolist()


@given(samples=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.5, 1e4)), min_size=1), roofline=_rooflines)
@settings(deadline=None)
def test_curve_never_falls_and_is_exact_where_consistent(
    samples: list[tuple[int, float]], roofline: Roofline | None
) -> None:
    first = dict(samples)
    isl = np.array(sorted(first), dtype=np.float64)
    ttft = isotonic([first[int(n)] for n in isl])
    curve = PrefillCurve(isl, ttft, roofline)
    assert curve.ttft_ms(isl).tolist() == ttft.tolist()
    noisy = PrefillCurve([n for n, _ in samples], [t for _, t in samples], roofline)
    read = noisy.ttft_ms(np.unique(np.concatenate([np.linspace(0, 2e6, 200), isl])))
    assert (np.diff(read) >= -1e-9 * read.max()).all()


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 3, st.floats(0.5, 50)), min_size=1, max_size=15))
@settings(deadline=None)
def test_mixed_never_falls(rows: list[tuple[int, int, int, float]]) -> None:
    columns = [np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)]
    table = MixedTable(*columns)
    axis = np.arange(0, 25, 3.0)
    grid = table.iteration_ms(axis[:, None, None], axis[None, :, None], axis[None, None, :])
    for dimension in range(3):
        assert (np.diff(grid, axis=dimension) >= -1e-9 * grid.max()).all()


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_isotonic_is_the_closest_in_the_largest_change(values: list[float]) -> None:
    fitted = isotonic(values)
    assert (np.diff(fitted) >= 0).all()
    # No order-keeping fit can do better than half the largest fall.
    data = np.array(values)
    fall = (np.maximum.accumulate(data) - data).max()
    assert np.abs(fitted - data).max() <= fall / 2 * (1 + 1e-9) + 1e-9
