"""Dynamo 1.6's model of an engine: features of a pass, the plane through passes, and which passes stay."""

import pytest

from planner.whatif.policies.dynamo_regression import Pass, Regression, fit_plane


class TestPass:
    def test_attention_counts_pairs_of_tokens_and_kv_read(self):
        # a lone prompt of 100: 100^2 / 2 + 100 / 2 pairs, itself included
        assert Pass(1, 100).features == (5050.0, 100.0)
        # two prompts of 50: half the square
        assert Pass(2, 100).features == (2550.0, 100.0)
        assert Pass(0, 0, 8, 12_000).features == (12_000.0, 8.0)
        assert Pass(1, 100, 8, 12_000).features == (17_050.0, 108.0)

    def test_cached_prompts_alone_are_no_work(self):
        assert Pass(3, 0).empty
        assert not Pass(0, 0, 1, 0).empty


class TestPlane:
    def test_exact_on_a_plane(self):
        samples = [((float(a), float(t)), 5.0 + 0.002 * a + 0.03 * t) for a in (0, 100, 900) for t in (1, 40, 70)]
        plane = fit_plane(samples)
        assert plane.intercept == pytest.approx(5.0)
        assert plane.slopes == pytest.approx((0.002, 0.03))

    def test_a_slope_that_would_be_negative_is_refitted_at_zero(self):
        # y = 20 - 2 a + 3 t on the grid {0, 1, 2}^2: without a, the mean of -2 a stays in the intercept, 18 + 3 t
        samples = [((float(a), float(t)), 20.0 - 2.0 * a + 3.0 * t) for a in range(3) for t in range(3)]
        plane = fit_plane(samples)
        assert plane.slopes == pytest.approx((0.0, 3.0))
        assert plane.at((100.0, 4.0)) == pytest.approx(30.0)

    def test_nothing_that_lengthens_a_pass_is_no_model(self):
        assert fit_plane([((1.0, 1.0), 5.0)] * 6) is None
        assert fit_plane([((float(k), 1.0), 9.0 - k) for k in range(6)]) is None


class TestRegression:
    def test_it_needs_five_passes(self):
        regression = Regression()
        for k in range(1, 5):
            regression.add(Pass(0, 0, k, 0), 4.0 + k)
        assert regression.time_ms(Pass(0, 0, 2, 0)) is None
        assert regression.time_ms(Pass()) == 0.0
        regression.add(Pass(0, 0, 5, 0), 9.0)
        assert regression.time_ms(Pass(0, 0, 10, 0)) == pytest.approx(14.0)

    def test_idle_passes_count_for_nothing(self):
        regression = Regression()
        for held, time_ms in ((Pass(), 5.0), (Pass(0, 0, 1, 9), 0.0), (Pass(0, 0, 1, 9), float("nan"))):
            regression.add(held, time_ms)
        assert len(regression) == 0

    def test_the_fullest_cell_loses_its_oldest_pass(self):
        regression = Regression(most=4)
        # ln(1 + x) of 0, 1, 3, 1023 decodes: two octaves of ten in the first cell of each axis
        for decodes, time_ms in ((1023, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)):
            regression.add(Pass(0, 0, decodes, 0), time_ms)
        regression.add(Pass(0, 0, 1, 0), 5.0)
        # not the lone pass of 1,023, which is older
        assert [time_ms for _, time_ms in regression.samples] == [1.0, 3.0, 4.0, 5.0]

    def test_live_passes_never_drive_the_profile_out_of_the_rest_of_the_grid(self):
        regression = Regression()
        for batch in (1, 8, 64, 512):
            regression.add(Pass(0, 0, batch, batch * 1000), 4.0 + batch / 100)
        for _ in range(500):
            regression.add(Pass(0, 0, 30, 30_000), 4.3)
        held = {features[1] for features, _ in regression.samples}
        assert len(regression) == 64
        assert {1.0, 8.0, 512.0} <= held
