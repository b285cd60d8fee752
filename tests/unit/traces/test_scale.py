from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from planner.whatif.traces import (
    GeneratedTrace,
    GeneratorSpec,
    Trace,
    TraceChunk,
    collect,
    open_trace,
    scaled,
    summarize,
)
from planner.whatif.traces.scale import quantum_s
from planner.whatif.traces.trace import rechunk
from profiler.errors import InputError


class Rechunked(Trace):
    """The same requests in chunks of another size."""

    def __init__(self, original: Trace, size: int) -> None:
        self.original, self.size = original, size

    @property
    def name(self) -> str:
        return "rechunked"

    def chunks(self) -> Iterator[TraceChunk]:
        return rechunk(self.original.chunks(), self.size)


def same(a: TraceChunk, b: TraceChunk) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("arrival_s", "isl", "osl", "prefix_hit_tokens"))


ORIGINAL = GeneratedTrace(GeneratorSpec(rps=50, duration_s=600, prefix_hit_share=0.4, dispersion=2))


def test_scale_one_changes_nothing() -> None:
    assert scaled(ORIGINAL, rate_scale=1, time_scale=1, seed=5) is ORIGINAL


@pytest.mark.parametrize("scale", [2, 10, 300])
def test_whole_scales_are_exact(scale: int) -> None:
    assert summarize(scaled(ORIGINAL, rate_scale=scale, seed=1)).requests == scale * len(collect(ORIGINAL))


@pytest.mark.parametrize("scale", [0.1, 0.9, 1.5, 3.3])
def test_fractions_are_right_on_average(scale: float) -> None:
    expected = scale * len(collect(ORIGINAL))
    assert len(collect(scaled(ORIGINAL, rate_scale=scale, seed=1))) == pytest.approx(expected, rel=0.03)


def test_thinning_keeps_times_and_lengths() -> None:
    original, got = collect(ORIGINAL), collect(scaled(ORIGINAL, rate_scale=0.5, seed=1))
    where = np.searchsorted(original.arrival_s, got.arrival_s)
    assert same(original.take(where), got)


def test_requests_stay_whole_and_come_from_nearby() -> None:
    original, got = collect(ORIGINAL), collect(scaled(ORIGINAL, rate_scale=4, seed=1))
    known = set(zip(original.isl.tolist(), original.osl.tolist(), original.prefix_hit_tokens.tolist(), strict=True))
    assert set(zip(got.isl.tolist(), got.osl.tolist(), got.prefix_hit_tokens.tolist(), strict=True)) <= known
    assert got.arrival_s.min() >= 0
    assert got.arrival_s.max() <= original.arrival_s.max()
    assert len(np.unique(got.arrival_s)) > 0.999 * len(got)


def test_copies_move_less_than_the_kernel() -> None:
    # Three lonely requests, far apart: their copies stay around them.
    class Lonely(Trace):
        @property
        def name(self) -> str:
            return "lonely"

        def chunks(self) -> Iterator[TraceChunk]:
            lengths = np.array([1, 2, 3], dtype=np.int32)
            yield TraceChunk(np.array([0.0, 100.0, 200.0]), lengths, lengths, lengths - 1)

    got = collect(scaled(Lonely(), rate_scale=100, seed=1)).arrival_s
    assert [int(((got >= t - 1) & (got <= t + 1)).sum()) for t in (0, 100, 200)] == [100, 100, 100]
    middle = got[(got > 50) & (got < 150)]
    assert middle.mean() == pytest.approx(100, abs=0.2)
    assert middle.std() == pytest.approx(1 / np.sqrt(3), rel=0.2)


def test_bursts_are_not_copied_verbatim() -> None:
    steady = GeneratedTrace(GeneratorSpec(rps=20, duration_s=2000))
    dispersion = summarize(scaled(steady, rate_scale=10, seed=2)).dispersion_per_second
    # Ten copies at one instant would give 10; a uniform kernel of +-1 s gives 1 + 9 * 5/12.
    assert dispersion == pytest.approx(4.75, rel=0.15)
    wide = summarize(scaled(steady, rate_scale=10, seed=2, kernel_s=10)).dispersion_per_second
    assert wide < 2


def test_the_same_whatever_the_chunks() -> None:
    for scale in (0.5, 7.5):
        assert same(
            collect(scaled(ORIGINAL, rate_scale=scale, seed=9)),
            collect(scaled(Rechunked(ORIGINAL, 777), rate_scale=scale, seed=9)),
        )


def test_the_seed_decides() -> None:
    first, again, other = (collect(scaled(ORIGINAL, rate_scale=2.5, seed=s)) for s in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_time_is_compressed_after_the_rate() -> None:
    slow = collect(scaled(ORIGINAL, rate_scale=3, seed=4))
    fast = collect(scaled(ORIGINAL, rate_scale=3, time_scale=2, seed=4))
    assert np.array_equal(slow.arrival_s / 2, fast.arrival_s)
    assert np.array_equal(slow.isl, fast.isl)


def test_quantum() -> None:
    exact = np.repeat(np.arange(100) * 3.0, 10)
    assert quantum_s(exact) == 3.0
    assert quantum_s(np.sort(np.random.default_rng(0).random(1000))) == 0.0
    assert quantum_s(np.zeros(5)) == 0.0


@pytest.mark.parametrize(
    "bad",
    [
        {"rate_scale": 0},
        {"rate_scale": -1},
        {"rate_scale": float("nan")},
        {"rate_scale": 1e9},
        {"time_scale": 0},
        {"time_scale": float("inf")},
        {"seed": -1},
        {"kernel_s": -1},
    ],
)
def test_senseless_scales_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError):
        scaled(ORIGINAL, **bad)  # type: ignore[arg-type]


def test_names_say_what_was_done() -> None:
    trace = scaled(open_trace("generate:code"), rate_scale=10, time_scale=2, seed=0)
    assert trace.name == "code (rate x10) (time x2)"
