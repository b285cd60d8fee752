"""Dynamo 1.6's GPU ceiling on figures worked out by hand, and what holds for all."""

from hypothesis import given
from hypothesis import strategies as st

from planner.whatif.policies.dynamo_budget import (
    Ceiling,
    clamp_pair,
    clamp_single,
    fit_directional,
    fit_throughput,
    guard_pair,
    guard_single,
)


def ceiling(max_gpus, gpus=(1, 1), least=(1, 1)):
    return Ceiling(gpus, least, max_gpus)


class TestClamp:
    def test_prefill_is_scaled_and_decode_gets_the_rest(self):
        # 12 of 8 GPUs: floor(6 * 8/12) = 4, then 8 - 4
        assert clamp_pair((6, 6), ceiling(8)) == (4, 4)
        # floor(7 * 5/14) = 2; the rest is 3
        assert clamp_pair((7, 7), ceiling(5)) == (2, 3)

    def test_decode_may_grow(self):
        # 3 x 4 + 2 x 1 = 14 of 12 GPUs: floor(3 * 12/14) = 2, and the 4 GPUs that are left make 4 decode workers of 2
        assert clamp_pair((3, 2), ceiling(12, gpus=(4, 1))) == (2, 4)

    def test_a_minimum_that_does_not_fit_takes_everything_away(self):
        assert clamp_pair((1, 1), ceiling(8, gpus=(8, 8))) == (0, 0)
        assert clamp_single(3, 4, 2, 7) == 0
        assert clamp_single(3, 2, 1, 5) == 2

    def test_within_the_ceiling_nothing_changes(self):
        assert clamp_pair((0, 8), ceiling(8)) == (0, 8)


class TestDirectional:
    def test_what_is_nearest_to_the_proposal(self):
        # 4 more than fit: 3 and 3 is in proportion, 2 and 4 as near
        assert fit_directional((2, 2), (5, 5), ceiling(6)) == (3, 3)

    def test_a_rebalance_is_done_by_both_or_by_none(self):
        # one prefill worker of 4 GPUs goes for two decode workers of 2
        assert fit_directional((2, 2), (1, 5), ceiling(12, gpus=(4, 2))) == (1, 4)
        # a prefill worker of 1 GPU makes no room for a decode worker of 4
        assert fit_directional((2, 2), (1, 3), ceiling(10, gpus=(1, 4))) == (2, 2)

    def test_a_pool_below_its_least_is_mended_whatever_the_direction(self):
        assert fit_throughput((1, 7), (1, 7), ceiling(8, least=(2, 1))) == (2, 6)
        assert fit_throughput((2, 6), (4, 6), ceiling(8)) == (2, 6)


class TestGuard:
    def test_at_the_ceiling_nothing_is_added(self):
        assert guard_pair((4, 4), (5, 4), ceiling(8)) == (4, 4)
        assert guard_pair((4, 4), (5, 3), ceiling(8)) == (5, 3)
        assert guard_pair((4, 4), (3, 4), ceiling(8)) == (3, 4)
        assert guard_single(4, 5, 2, 1, 8) == 4

    def test_a_clamp_that_enlarges_a_pool_is_no_move_at_all(self):
        # clamp_pair would give 2 and 4, more decode than is there or wanted
        assert guard_pair((2, 2), (3, 2), ceiling(12, gpus=(4, 1))) == (2, 2)

    def test_above_the_ceiling_the_proposal_does_not_matter(self):
        assert guard_pair((6, 6), (9, 1), ceiling(8)) == (4, 4)
        assert guard_single(6, 9, 2, 1, 8) == 4


counts = st.tuples(st.integers(1, 9), st.integers(1, 9))
ceilings = st.builds(
    ceiling, st.integers(8, 60), gpus=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
)


@given(counts, counts, ceilings)
def test_no_proposal_ends_above_the_ceiling_or_beyond_what_was_wanted(current, wanted, bound):
    for fit in (guard_pair, fit_directional, fit_throughput):
        ended = fit(current, wanted, bound)
        if bound.total(current) <= bound.max_gpus:
            assert bound.total(ended) <= bound.max_gpus
            for now, then, end in zip(current, wanted, ended, strict=True):
                assert min(now, then) <= end <= max(now, then)
    assert bound.total(guard_pair(current, wanted, bound)) <= bound.max_gpus
