"""Whatever the engine: sampling ends, stays within it, keeps to its budget, and goes on where it was after a kill."""

import itertools
import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.measure.base import Point, Sample
from profiler.sampling import Domain, Sampling, Target
from tests.unit.profiler.sampling.truth import sample

_all = ("prefill", "decode", "mixed", "transfer")


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    limits: dict[str, Any] = {
        "tables": tuple(draw(st.lists(st.sampled_from(_all), min_size=1, unique=True))),
        "max_model_len": draw(st.sampled_from([16, 512, 4096, 131_072]) | st.integers(1, 200_000)),
        "kv_capacity_tokens": draw(st.sampled_from([2000, 450_000]) | st.integers(1, 2_000_000)),
        "max_num_seqs": draw(st.sampled_from([1, 4, 256]) | st.integers(1, 2048)),
        "max_num_batched_tokens": draw(st.sampled_from([512, 2048, 8192]) | st.integers(1, 65536)),
        "block_size": draw(st.sampled_from([1, 16, 32, 64, 784])),
        "prefix_caching": draw(st.booleans()),
        "shortest_isl": draw(st.integers(1, 64)),
        "longest_isl": draw(st.none() | st.integers(1, 100_000)),
    }
    return Domain(**limits)


def _within(domain: Domain, point: Point) -> bool:
    """The engine's limits, said once more and apart from the code under test."""
    if point.table == "transfer":
        longest, batch, held = point.at[0], 1.0, point.at[0]
    elif point.table == "prefill":
        isl, batch, hit = point.at
        if hit and (not domain.prefix_caching or hit % domain.block_size or hit >= isl):
            return False
        longest, held = isl, isl * batch
    else:
        batch, held = point.at[-2:]
        if (held / batch) % domain.block_size:
            return False
        # Requests grow while a sample is taken: half of its steps decode, all of them beside prompts.
        grown = 456 if point.table == "mixed" else 48
        longest, held = held / batch + grown, held + batch * grown
    if point.table == "mixed":
        if point.at[0] + batch > domain.max_num_batched_tokens:
            return False
        batch, held = batch + 1, held + max(point.at[0], longest)
        longest = max(longest, point.at[0])
    if point.table in {"prefill", "transfer"} and domain.longest_isl is not None and longest > domain.longest_isl:
        return False
    whole = all(float(x).is_integer() and x >= 0 for x in point.at)
    fits = longest <= domain.max_model_len and held <= domain.kv_capacity_tokens
    return whole and fits and 1 <= batch <= domain.max_num_seqs


@given(domain=domains(), noise=st.sampled_from([0.0, 0.02, 0.1, 0.5]), seed=st.integers(0, 9))
@settings(max_examples=60)
def test_it_ends_and_never_leaves_the_engine(domain: Domain, noise: float, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    sampling = Sampling(domain, Target(max_repeats=4))
    samples: list[Sample] = []
    for _ in range(1500):
        point = sampling.next(samples)
        if point is None:
            break
        assert _within(domain, point), point
        samples.append(sample(point, rng.lognormvariate(0, noise)))
    else:
        raise AssertionError("does not end")
    assert sampling.progress(samples).done
    assert max(Counter(s.point for s in samples).values(), default=0) <= 4


@given(domain=domains(), seed=st.integers(0, 9), cut=st.integers(0, 300))
@settings(max_examples=25)
def test_a_new_process_goes_on_where_the_last_one_was(domain: Domain, seed: int, cut: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    samples: list[Sample] = []
    first = Sampling(domain, Target())
    for _ in range(cut):
        point = first.next(samples)
        if point is None:
            break
        samples.append(sample(point, rng.lognormvariate(0, 0.04)))
    second = Sampling(domain, Target())
    for _ in range(5):
        point = second.next(list(samples))
        assert point == first.next(samples)
        if point is None:
            break
        samples.append(sample(point, rng.lognormvariate(0, 0.04)))


@given(domain=domains(), seconds=st.floats(0.1, 100))
@settings(max_examples=25)
def test_the_budget_is_exceeded_by_less_than_a_sample(domain: Domain, seconds: float) -> None:
    sampling = Sampling(domain, Target(seconds=seconds))
    samples: list[Sample] = []
    while (point := sampling.next(samples)) is not None:
        samples.append(sample(point))
    assert sum(s.wall_s for s in samples[:-1]) < seconds


@given(domain=domains(), limit=st.integers(1, 50_000))
@settings(max_examples=25)
def test_an_engine_that_holds_less_than_it_says(domain: Domain, limit: int) -> None:
    """Points beyond an unknown end fail; each is tried twice, and the rest is measured."""
    sampling = Sampling(domain, Target(max_repeats=3))
    samples: list[Sample] = []
    failed: Counter[Point] = Counter()
    for _ in itertools.count():
        point = sampling.next(samples, failed)
        if point is None:
            break
        if max(point.at) > limit:
            failed[point] += 1
        else:
            samples.append(sample(point))
        assert len(samples) + failed.total() < 1500
    assert max(failed.values(), default=0) <= 2
    assert sampling.progress(samples, failed).done
