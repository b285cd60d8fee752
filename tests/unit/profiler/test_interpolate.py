"""Each rule of interpolation, worked out by hand."""

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from profiler.affine import fit_cost
from profiler.interpolate import Curve, DecodeSurface, MixedTable, PrefillCurve, TransferCurve, Where
from profiler.monotone import isotonic, isotonic_partial


def square(tokens: ArrayLike) -> NDArray[np.float64]:
    """A speed of light that is easy to count: n squared plus one."""
    return np.asarray(tokens, dtype=np.float64) ** 2 + 1


class TestMonotone:
    def test_consistent_data_is_returned_as_it_is(self) -> None:
        values = [0.1, 0.1, 0.3, 7.7]
        assert isotonic(values).tolist() == values

    def test_a_fall_is_met_halfway(self) -> None:
        assert isotonic([1.0, 5.0, 3.0, 6.0]).tolist() == [1.0, 4.0, 4.0, 6.0]

    def test_only_comparable_points_are_tied(self) -> None:
        points = [[1, 1], [1, 2], [2, 1], [2, 2]]
        # (1,2) and (2,1) are not comparable; (2,1) above (2,2) is a fall of 2.
        assert isotonic_partial(points, [1.0, 2.0, 6.0, 4.0]).tolist() == [1.0, 2.0, 5.0, 5.0]

    def test_what_is_not_finite_is_refused(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            isotonic([1.0, float("nan")])
        with pytest.raises(ValueError, match="shape"):
            isotonic_partial([[1.0]], [1.0, 2.0])


class TestCurve:
    def test_points_are_exact_and_a_midpoint_is_the_mean(self) -> None:
        curve = PrefillCurve([100, 200, 400], [10.0, 20.0, 60.0])
        assert curve.ttft_ms([100, 200, 400]).tolist() == [10.0, 20.0, 60.0]
        assert float(curve.ttft_ms(300)) == 40.0

    def test_repeats_are_reduced_to_their_median(self) -> None:
        assert float(PrefillCurve([100, 100, 100], [9.0, 50.0, 10.0]).ttft_ms(100)) == 10.0

    def test_noise_is_made_monotone(self) -> None:
        curve = PrefillCurve([1, 2, 3], [10.0, 30.0, 20.0])
        assert curve.ttft_ms([1, 2, 2.5, 3]).tolist() == [10.0, 25.0, 25.0, 25.0]

    def test_beyond_the_ends_it_follows_the_speed_of_light(self) -> None:
        curve = Curve([2, 4], [10.0, 34.0], square)
        assert float(curve.ms(1)) == pytest.approx(10 * 2 / 5)
        assert float(curve.ms(8)) == pytest.approx(34 * 65 / 17)

    def test_without_a_speed_of_light(self) -> None:
        curve = TransferCurve([100, 200], [10.0, 12.0])
        assert float(curve.transfer_ms(1)) == 10.0
        assert float(curve.transfer_ms(400)) == 24.0

    def test_where(self) -> None:
        curve = PrefillCurve([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
        assert [curve.where(x) for x in (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5)] == [
            Where.OUTSIDE, Where.EDGE, Where.EDGE, Where.INSIDE, Where.INSIDE, Where.INSIDE, Where.EDGE,
            Where.EDGE, Where.OUTSIDE,
        ]  # fmt: skip

    def test_leave_one_out_by_hand(self) -> None:
        curve = PrefillCurve([100, 200, 300, 400], [10.0, 25.0, 30.0, 40.0])
        # 200 between 10 and 30: 20 against 25. 300 between 25 and 40: 32.5 against 30.
        left = curve.leave_one_out
        assert left.relative[1:3] == pytest.approx([0.2, 2.5 / 30])
        # 100 is held at 25; 400 keeps 300's tokens per second: 40.
        assert left.relative[[0, 3]] == pytest.approx([1.5, 0.0])
        assert left.interior.tolist() == [False, True, True, False]
        summary = left.summary
        assert summary is not None
        assert (summary.mean, summary.worst, summary.points) == pytest.approx(((0.2 + 1 / 12) / 2, 0.2, 2))

    def test_estimates_carry_place_and_error(self) -> None:
        curve = PrefillCurve([100, 200, 300, 400], [10.0, 25.0, 30.0, 40.0])
        inside = curve.at(250)
        assert (inside.value, inside.where) == (27.5, Where.INSIDE)
        assert inside.error == pytest.approx((0.2 + 1 / 12) / 2)
        assert curve.at(5).where is Where.OUTSIDE
        assert curve.at(5).error == pytest.approx(1.5)
        assert PrefillCurve([100], [10.0]).at(100).error is None

    def test_repeats_count_in_the_error(self) -> None:
        curve = PrefillCurve([1, 2, 2, 3], [10.0, 18.0, 22.0, 30.0])
        assert curve.leave_one_out.relative[1] == pytest.approx((2 / 18 + 2 / 22) / 2)

    @pytest.mark.parametrize("bad", [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [float("nan")])])
    def test_bad_points_are_refused(self, bad: tuple[list[float], list[float]]) -> None:
        with pytest.raises(ValueError, match=r"lengths|curve"):
            PrefillCurve(*bad)


# Contexts 100 and 1000, three batches each; ITL = 4 + 0.01 batch + 0.001 kv, which every rule must give back.
BATCH = np.array([1, 50, 100, 1, 5, 10], dtype=np.float64)
KV = BATCH * np.array([100, 100, 100, 1000, 1000, 1000])
ITL = 4 + 0.01 * BATCH + 0.001 * KV


class TestSurface:
    def test_points_are_exact(self) -> None:
        assert DecodeSurface(BATCH, KV, ITL).itl_ms(BATCH, KV) == pytest.approx(ITL, rel=0, abs=0)

    def test_an_affine_step_is_reproduced_inside_and_outside(self) -> None:
        surface = DecodeSurface(BATCH, KV, ITL)
        for batch, kv in ((25, 2500), (10, 4000), (200, 20000), (20, 20000), (3, 300), (60, 0), (1, 50000)):
            assert float(surface.itl_ms(batch, kv)) == pytest.approx(4 + 0.01 * batch + 0.001 * kv, rel=1e-6)

    def test_broadcasts(self) -> None:
        surface = DecodeSurface(BATCH, KV, ITL, kv_capacity_tokens=20000)
        assert surface.itl_ms([[1], [2]], [100, 200, 300]).shape == (2, 3)
        assert surface.itl_ms(1, 100).shape == ()
        assert np.isnan(surface.itl_ms(float("nan"), 100))

    def test_noise_is_met_halfway(self) -> None:
        surface = DecodeSurface([1, 2, 3], [100, 200, 300], [5.0, 9.0, 7.0])
        assert surface.itl_ms([1, 2, 3], [100, 200, 300]).tolist() == [5.0, 8.0, 8.0]

    def test_one_point(self) -> None:
        surface = DecodeSurface([1], [100], [5.0])
        assert float(surface.itl_ms(1, 100)) == 5.0
        assert surface.at(1, 100).error is None
        assert surface.leave_one_out.summary is None

    def test_where(self) -> None:
        contexts = np.repeat([100, 200, 400, 800], 4)
        batch = np.tile([1, 10, 20, 30], 4)
        surface = DecodeSurface(batch, batch * contexts, 4 + 0.01 * batch)
        assert surface.where(15, 15 * 300) is Where.INSIDE
        assert surface.where(15, 15 * 150) is Where.EDGE  # between the first two contexts
        assert surface.where(5, 5 * 200) is Where.EDGE  # between the first two batches of a row
        assert surface.where(15, 15 * 200) is Where.INSIDE
        assert surface.where(15, 15 * 50) is Where.OUTSIDE
        assert surface.where(15, 15 * 900) is Where.OUTSIDE
        assert surface.where(40, 40 * 200) is Where.OUTSIDE
        assert surface.where(0, 100) is Where.OUTSIDE

    def test_leave_one_out_by_hand(self) -> None:
        surface = DecodeSurface([1, 2, 3], [100, 200, 300], [10.0, 25.0, 30.0])
        assert surface.leave_one_out.relative[1] == pytest.approx(5 / 25)
        assert surface.leave_one_out.interior.tolist() == [False, True, False]

    @pytest.mark.parametrize("bad", [([], [], []), ([1.0], [1.0], [0.0]), ([1.0], [1.0, 2.0], [1.0])])
    def test_bad_points_are_refused(self, bad: tuple[list[float], list[float], list[float]]) -> None:
        with pytest.raises(ValueError, match=r"positive|equally"):
            DecodeSurface(*bad)


def test_cost_is_found_and_floors_hold() -> None:
    columns = np.array([[1.0, 10.0], [2.0, 10.0], [1.0, 30.0], [5.0, 5.0]])
    values = 3 + 2 * columns[:, 0] + 0.5 * columns[:, 1]
    assert fit_cost(columns, values) == pytest.approx([3, 2, 0.5])
    assert fit_cost(columns, values, [0, 0, 0.7])[2] == pytest.approx(0.7)
    falling = fit_cost(np.array([[1.0], [2.0], [3.0]]), np.array([3.0, 2.0, 1.0]))
    assert falling[1] == 0.0


def test_mixed_is_exact_and_between_its_bounds() -> None:
    table = MixedTable([0, 512, 512], [1, 1, 8], [100, 100, 900], [5.0, 20.0, 24.0])
    assert table.iteration_ms([0, 512, 512], [1, 1, 8], [100, 100, 900]).tolist() == [5.0, 20.0, 24.0]
    assert 5.0 <= float(table.iteration_ms(256, 1, 100)) <= 20.0
