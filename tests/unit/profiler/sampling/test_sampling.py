"""Sampling of an engine that is known exactly: what it asks for, how good the tables get, and when it stops."""

import math
import random
from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import pytest

from profiler.curve import PrefillCurve
from profiler.hardware import find_gpu
from profiler.measure.base import Point, Sample
from profiler.roofline import Roofline
from profiler.sampling import Choice, Reason, Sampling, Target, Verdict
from profiler.sampling.noise import spread
from profiler.schema import ModelShape
from profiler.surface import DecodeSurface
from tests.unit.profiler.sampling.truth import ITERATION_TOKENS, KNEE, decode_ms, domain, prefill_ms, run, sample

DOMAIN = domain()


def _is_lone(point: Point) -> bool:
    return point.table == "prefill" and point.at[1:] == (1.0, 0.0)


def _curve(samples: list[Sample]) -> PrefillCurve:
    lone = [s for s in samples if _is_lone(s.point)]
    return PrefillCurve([s.point.at[0] for s in lone], [s.values["ttft_ms"] for s in lone])


def _surface(samples: list[Sample]) -> DecodeSurface:
    rows = [s for s in samples if s.point.table == "decode"]
    batch, kv = np.array([s.point.at for s in rows]).T
    return DecodeSurface(batch, kv, [s.values["itl_ms"] for s in rows], None, DOMAIN.kv_capacity_tokens)


def _prefill_errors(curve: PrefillCurve) -> np.ndarray:
    lengths = np.exp(np.random.default_rng(9).uniform(math.log(32), math.log(DOMAIN.longest), 300)).round()
    return np.abs(curve.ttft_ms(lengths) / [prefill_ms(n) for n in lengths] - 1)


def _decode_errors(surface: DecodeSurface) -> np.ndarray:
    rng = np.random.default_rng(9)
    context = np.exp(rng.uniform(math.log(256), math.log(16384), 1500)).round()
    batch = np.exp(rng.uniform(0, math.log(DOMAIN.max_num_seqs), 1500)).round()
    fits = batch * context <= DOMAIN.held
    batch, kv = batch[fits], (batch * context)[fits]
    return np.abs(surface.itl_ms(batch, kv) / [decode_ms(b, k) for b, k in zip(batch, kv, strict=True)] - 1)


@pytest.mark.parametrize(("noise", "most"), [(0.01, 165), (0.03, 195)])
def test_tables_reach_their_target_and_say_their_error(noise: float, most: int) -> None:
    sampling = Sampling(DOMAIN, Target())
    samples, _ = run(sampling, noise)
    progress = sampling.progress(samples)
    assert {t.verdict for t in progress.tables.values()} == {Verdict.TARGET}
    assert len(samples) <= most
    curve, surface = _curve(samples), _surface(samples)
    for table, errors in ((curve, _prefill_errors(curve)), (surface, _decode_errors(surface))):
        stated = table.leave_one_out.summary
        assert stated is not None
        assert stated.mean <= 0.05
        # On places not measured the table is no worse than it says, but for twice the worst.
        assert errors.mean() <= stated.mean
        assert errors.max() <= 2 * stated.worst


@pytest.mark.parametrize("max_error", [0.05, 0.02])
def test_stated_errors_are_those_of_the_tables(max_error: float) -> None:
    sampling = Sampling(DOMAIN, Target(max_error=max_error))
    samples, _ = run(sampling, 0.01)
    progress = sampling.progress(samples)
    exact = _curve(samples).leave_one_out.summary
    stated = progress.tables["prefill"].error
    assert exact is not None
    assert stated is not None
    assert (stated.mean, stated.worst) == pytest.approx((exact.mean, exact.worst))
    exact, stated = _surface(samples).leave_one_out.summary, progress.tables["decode"].error
    assert exact is not None
    assert stated is not None
    # Rows beside a row may clip it: that is left out of the quick figure.
    assert stated.mean == pytest.approx(exact.mean, rel=0.15)
    assert stated.points == exact.points


def test_fewer_samples_than_a_uniform_grid_needs() -> None:
    samples, _ = run(Sampling(DOMAIN, Target(max_error=0.02)), 0.01)
    rng = np.random.default_rng(1)
    # As many points on a grid of equal steps, each as often.
    lengths = np.repeat(np.linspace(32, DOMAIN.longest, len(_curve(samples).tokens)).round(), 2)
    curve = PrefillCurve(lengths, [prefill_ms(n) * math.exp(rng.normal(0, 0.01)) for n in lengths])
    assert _prefill_errors(_curve(samples)).mean() < _prefill_errors(curve).mean() / 5
    side = round(math.sqrt(len(_surface(samples).points)))
    grid = [
        (b, b * c)
        for c in np.linspace(256, 16384, side).round()
        for b in np.linspace(1, DOMAIN.largest_batch(int(c)), side).round()
    ] * 2
    batch, kv = np.array(grid).T
    itl = [decode_ms(b, k) * math.exp(rng.normal(0, 0.01)) for b, k in grid]
    uniform = DecodeSurface(batch, kv, itl, None, DOMAIN.kv_capacity_tokens)
    assert _decode_errors(_surface(samples)).mean() < _decode_errors(uniform).mean() / 2


def test_knees_are_bracketed_closely() -> None:
    samples, choices = run(Sampling(DOMAIN, Target(max_error=0.02)), 0.01)
    batches = sorted(
        {s.point.at[0] for s in samples if s.point.table == "decode" and s.point.at[1] == 256 * s.point.at[0]}
    )
    assert any(low <= KNEE <= high <= 2 * low for low, high in pairwise(batches))
    lengths = sorted({s.point.at[0] for s in samples if _is_lone(s.point)})
    assert any(low <= 267 <= high <= 1.5 * low for low, high in pairwise(lengths))
    assert any(c.why is Reason.KNEE for c in choices if c.point.table == "decode")


def test_known_knees_are_on_the_grid() -> None:
    shape = ModelShape(
        hidden_size=4096, layers=32, heads=32, kv_heads=8, head_dim=128, intermediate_size=14336, vocab_size=128256,
        weight_bytes_per_param=2.0, kv_bytes_per_element=2.0,
    )  # fmt: skip
    gpu = find_gpu("h100-sxm")
    assert gpu is not None
    light = Roofline(shape, gpu, gpu.peak_for("bfloat16"))
    _, choices = run(Sampling(domain(max_num_seqs=1024), Target(min_repeats=1, max_repeats=1), light), 0.0)
    knees = {(c.point.table, c.point.at[0]) for c in choices if c.why is Reason.KNEE}
    assert ("prefill", ITERATION_TOKENS) in knees
    # Peak over bandwidth for weights of two bytes: 989e12 / 3.35e12.
    assert any(table == "prefill" and 250 < at < 350 for table, at in knees)


def test_whole_tables_first_then_repeats() -> None:
    _, choices = run(Sampling(DOMAIN, Target()), 0.03)
    # What fills a good part of the KV cache is repeated while it is there, and not in the second pass.
    costly = [
        c.point
        for c in choices
        if c.point.table in {"decode", "mixed"} and c.point.at[-1] >= 0.25 * DOMAIN.kv_capacity_tokens
    ]
    for point in set(costly):
        places = [i for i, c in enumerate(choices) if c.point == point]
        assert places[1] == places[0] + 1
    choices = [c for c in choices if c.point not in costly]
    grid = [c for c in choices if c.why in {Reason.GRID, Reason.CHECK}]
    assert choices[: len(grid) + 1].count(Choice(Point("prefill", (8192.0, 1.0, 0.0)), Reason.KNEE)) == 1
    first = choices[: len({c.point for c in choices[: len(grid) + 1]})]
    assert len({c.point for c in first}) == len(first)
    # No table runs ahead: halfway through the first pass each is between a quarter and all of the way.
    total, half = Counter(c.point.table for c in first), Counter(c.point.table for c in first[: len(first) // 2])
    assert all(half[table] >= total[table] / 4 for table in total)
    # Lone prompts have repeats of their own over the whole run, between which the second pass goes on.
    once = [c for c in first if not _is_lone(c.point)]
    second = [c for c in choices[len(first) :] if not _is_lone(c.point)][: len(once)]
    assert {c.point for c in second} == {c.point for c in once}
    # One context after the other, so that the KV cache holds what is measured.
    for taken in (first, second):
        decode = [c.point.at for c in taken if c.point.table == "decode"]
        rows = [(context, [at[0] for at in row]) for context, row in groupby(decode, key=lambda at: at[1] / at[0])]
        assert sorted(context for context, _ in rows) == [256, 1024, 4096, 16384]
        for _, batches in rows:
            assert batches == sorted(batches, reverse=True)


def test_checks_of_the_batching_model() -> None:
    samples, _ = run(Sampling(DOMAIN, Target()), 0.05)
    counts = Counter(s.point.at for s in samples if s.point.table == "prefill")
    batched = [at for at in counts if at[1] > 1]
    sums = [isl * batch for isl, batch, _ in batched]
    assert min(sums) < ITERATION_TOKENS < max(sums)
    hits = [at for at in counts if at[2] > 0]
    assert {round(hit / isl, 1) for isl, _, hit in hits} >= {0.2, 0.5, 0.8, 0.9}
    assert {counts[at] for at in [*batched, *hits]} == {2}


def test_the_order_of_samples_changes_no_figure() -> None:
    sampling = Sampling(DOMAIN, Target())
    samples, _ = run(sampling, 0.03)
    shuffled = samples[:]
    random.Random(1).shuffle(shuffled)  # noqa: S311
    ours, theirs = sampling.progress(samples), sampling.progress(shuffled)
    assert (ours.tables, ours.spent_s) == (theirs.tables, theirs.spent_s)


def test_repeats_go_where_the_noise_is() -> None:
    noisy = Point("decode", (16.0, 16.0 * 1024))
    sampling = Sampling(DOMAIN, Target(max_repeats=6))
    rng, samples = np.random.default_rng(3), []
    scattered = (0.85, 1.15, 1.0, 0.8, 1.2, 1.05)
    counts: Counter[Point] = Counter()
    while (point := sampling.next(samples)) is not None:
        factor = scattered[counts[point]] if point == noisy else math.exp(rng.normal(0, 0.002))
        samples.append(sample(point, factor))
        counts[point] += 1
    assert counts[noisy] == 6
    assert sum(counts[p] for p in counts if p != noisy) / (len(counts) - 1) < 2.3


def test_noise_that_hides_the_rest_ends_a_table() -> None:
    sampling = Sampling(domain(tables=("transfer",)), Target(max_error=0.02))
    samples, _ = run(sampling, 0.1)
    progress = sampling.progress(samples)
    assert progress.tables["transfer"].verdict is Verdict.NOISE
    assert progress.done
    assert len(samples) < 200


def test_a_budget_ends_it() -> None:
    sampling = Sampling(DOMAIN, Target(seconds=30.0))
    samples, _ = run(sampling, 0.01)
    progress = sampling.progress(samples)
    assert 30.0 <= progress.spent_s < 30.0 + samples[-1].wall_s
    assert progress.seconds_left == 0.0
    assert {t.verdict for t in progress.tables.values()} == {Verdict.BUDGET}


def test_time_left_is_about_right_and_reasons_are_told() -> None:
    sampling = Sampling(DOMAIN, Target())
    samples, choices = run(sampling, 0.01)
    assert sampling.progress([]).seconds_left is None
    for share in (0.3, 0.7):
        begun = samples[: int(share * len(samples))]
        progress = sampling.progress(begun)
        assert progress.last is choices[len(begun) - 1].why
        assert progress.seconds_left is not None
        assert progress.seconds_left == pytest.approx(sum(s.wall_s for s in samples[len(begun) :]), rel=0.4)
    assert sampling.progress(samples).seconds_left == 0.0
    assert sampling.progress([sample(Point("decode", (7.0, 700.0)))]).last is None


def test_a_point_that_fails_twice_is_the_end_that_way() -> None:
    sampling = Sampling(domain(tables=("decode",)), Target())
    first = sampling.next([])
    assert first == Point("decode", (256.0, 256.0 * 256))
    assert sampling.next([], {first: 1}) == first
    samples, failed = [], {first: 2}
    while (point := sampling.next(samples, failed)) is not None:
        assert not (point.at[0] >= first.at[0] and point.at[1] >= first.at[1])
        samples.append(sample(point))
    assert {s.point.at[1] / s.point.at[0] for s in samples} == {256, 1024, 4096, 16384}


def test_a_failure_below_what_was_measured_is_no_end() -> None:
    sampling = Sampling(domain(tables=("transfer",)), Target())
    longest, shortest = Point("transfer", (float(DOMAIN.longest),)), Point("transfer", (32.0,))
    asked = sampling.next([sample(longest)], {shortest: 2})
    assert asked is not None
    assert 32 < asked.at[0] < DOMAIN.longest
    # With nothing measured beyond it, it may be the end of the engine.
    assert sampling.next([], {shortest: 2}) is None
    assert sampling.progress([], {shortest: 2}).tables["transfer"].verdict is Verdict.FAILED


def test_few_prompt_tokens_lost_in_noise_are_no_end() -> None:
    sampling = Sampling(domain(tables=("mixed",)), Target())
    samples: list[Sample] = []
    failed: Counter[Point] = Counter()
    while (point := sampling.next(samples, failed)) is not None:
        if point.at[0] == 256:
            failed[point] += 1
        else:
            samples.append(sample(point))
    assert set(failed.values()) == {2}
    assert {s.point.at[1] for s in samples} == {8, 32, 128}
    assert {s.point.at[0] for s in samples} >= {640, 1024, 4096}
    assert len({s.point for s in samples}) == 12


def test_an_engine_too_small_for_a_table() -> None:
    tiny = domain(kv_capacity_tokens=2000, max_num_seqs=4, max_model_len=512, max_num_batched_tokens=512)
    sampling = Sampling(tiny, Target())
    samples, _ = run(sampling, 0.01)
    progress = sampling.progress(samples)
    assert progress.done
    # Requests would outgrow the model while prompts come.
    assert {name for name, table in progress.tables.items() if table.points == 0} == {"mixed"}
    longer = domain(kv_capacity_tokens=4000, max_num_seqs=4, max_model_len=1024, max_num_batched_tokens=512)
    assert any(s.point.table == "mixed" for s in run(Sampling(longer, Target()), 0.01)[0])
    nothing = Sampling(domain(max_model_len=8), Target()).progress([])
    assert {t.verdict for t in nothing.tables.values()} == {Verdict.IMPOSSIBLE}


def test_suspect_samples_count_and_are_not_believed() -> None:
    sampling = Sampling(domain(tables=("decode",)), Target())
    clean, _ = run(sampling, 0.0)
    spoilt = clean[0].point
    samples = []
    while (point := sampling.next(samples)) is not None:
        value = sample(point, 50.0 if point == spoilt else 1.0)
        flags = {"suspect": 1.0} if point == spoilt else {}
        samples.append(Sample(point, {**value.values, **flags}, value.wall_s))
    assert Counter(s.point for s in samples)[spoilt] == 2
    assert len(samples) <= len(clean) + 4


def test_spread_of_normal_repeats() -> None:
    rng = np.random.default_rng(2)
    for repeats in range(2, 13):
        found = [spread(100 * np.exp(rng.normal(0, 0.02, repeats))) for _ in range(3000)]
        assert np.mean(found) == pytest.approx(0.02, rel=0.06), repeats
    # Far fewer than half of the repeats cannot carry it off.
    assert spread([99, 100, 100, 101, 5000]) < 0.03


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_values_that_cannot_be(value: float) -> None:
    with pytest.raises(ValueError, match=r"transfer at \(64.0,\) has transfer_ms"):
        Sampling(DOMAIN, Target()).next([Sample(Point("transfer", (64.0,)), {"transfer_ms": value}, 1.0)])


def test_limits_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="max_num_seqs is 0"):
        domain(max_num_seqs=0)
    with pytest.raises(ValueError, match="max_error"):
        Target(max_error=0.0)
    with pytest.raises(ValueError, match="repeats from 3 to 2"):
        Target(min_repeats=3, max_repeats=2)
    with pytest.raises(ValueError, match="seconds"):
        Target(seconds=0.0)
