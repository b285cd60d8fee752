"""The closed form's formulas against textbook values, their limits and their order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.queueing import average_of_process, busy_share, erlang_c, gated_cycle


@pytest.mark.parametrize(
    ("servers", "offered", "expected"),
    [
        (1, 0.4, 0.4),  # M/M/1: the load
        (2, 1.0, 1 / 3),
        (3, 2.0, 4 / 9),
        (5, 4.0, 0.554113),  # Gross and Harris, tables of M/M/c
    ],
)
def test_erlang_c_of_the_textbook(servers: int, offered: float, expected: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_erlang_c_by_its_definition(servers: int, load: float) -> None:
    offered = load * servers
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    assert erlang_c(servers, offered) == pytest.approx(last / (sum(terms) + last), rel=1e-9)


def test_erlang_c_at_its_limits() -> None:
    assert erlang_c(4, 0.0) == 0.0
    assert erlang_c(4, -1.0) == 0.0
    assert erlang_c(4, 4.0) == 1.0
    assert erlang_c(4, 9.0) == 1.0
    assert erlang_c(4, 4.0 - 1e-9) == pytest.approx(1.0, abs=1e-8)
    # Far beyond where factorials would overflow.
    assert 0.0 < erlang_c(2000, 1950.0) < 1.0


@settings(deadline=None)
@given(st.integers(1, 40), st.floats(0.01, 0.98), st.floats(0.001, 0.5))
def test_erlang_c_rises_with_load_and_falls_with_servers(servers: int, load: float, more: float) -> None:
    offered = load * servers
    assert erlang_c(servers, offered + more) >= erlang_c(servers, offered)
    assert erlang_c(servers + 1, offered) < erlang_c(servers, offered)


#: A batch after an empty cycle is one request, so a batch is max(1, Poisson) and its mean m + e^-m. The mean of a
#: Poisson count that is known not to be zero, m / (1 - e^-m), is larger at every load.


def test_gated_cycle_by_hand() -> None:
    # m = 0.05 x 12.3118 = 0.6156; m + e^-m = 1.1559; 10 + 2 x 1.1559 = 12.3118. Simulated: 1.1566 requests a batch.
    cycle, batch = gated_cycle(0.05, 10.0, 2.0)
    assert cycle == pytest.approx(12.3118, abs=1e-3)
    assert batch == pytest.approx(1.1559, abs=1e-3)


@settings(deadline=None)
@given(st.floats(1e-4, 1.0), st.floats(0.0, 50.0), st.floats(0.01, 0.99))
def test_gated_cycle_is_its_own_fixed_point(rate: float, fixed: float, load: float) -> None:
    marginal = load / rate
    cycle, batch = gated_cycle(rate, fixed, marginal)
    assert cycle == pytest.approx(fixed + marginal * batch, rel=1e-6)
    assert batch >= 1.0
    assert batch >= rate * cycle


def test_gated_cycle_at_its_limits() -> None:
    assert gated_cycle(0.0, 10.0, 2.0) == (12.0, 1.0)
    cycle, batch = gated_cycle(1e-9, 10.0, 2.0)
    assert cycle == pytest.approx(12.0, rel=1e-6)
    assert batch == pytest.approx(1.0, rel=1e-6)
    assert gated_cycle(0.5, 10.0, 2.0) == (math.inf, math.inf)
    assert gated_cycle(0.6, 10.0, 2.0) == (math.inf, math.inf)
    # Close to saturation no cycle is empty, and the batch is the fluid one: C = fixed / (1 - rate marginal).
    cycle, _ = gated_cycle(0.49, 10.0, 2.0)
    assert cycle == pytest.approx(10.0 / (1 - 0.98), rel=1e-3)


@settings(deadline=None)
@given(st.floats(0.0, 0.9), st.floats(0.001, 0.09), st.floats(0.1, 50.0))
def test_gated_cycle_rises_with_rate(load: float, more: float, fixed: float) -> None:
    marginal = 2.0
    low, high = gated_cycle(load / marginal, fixed, marginal), gated_cycle((load + more) / marginal, fixed, marginal)
    assert high[0] >= low[0] * (1 - 1e-9)
    assert high[1] >= low[1] * (1 - 1e-9)


def test_busy_share() -> None:
    assert busy_share(0.0, 10.0) == 0.0
    assert busy_share(0.5, math.inf) == 1.0
    # A cycle of 10 ms after which, with e^-1, 10 ms of idling follow.
    assert busy_share(0.1, 10.0) == pytest.approx(1 / (1 + math.exp(-1)))


@settings(deadline=None)
@given(st.floats(1e-4, 1.0), st.floats(0.1, 50.0), st.floats(0.01, 0.95))
def test_a_gated_server_serves_what_comes(rate: float, fixed: float, load: float) -> None:
    """Batches of n, one a cycle, during the busy share of the time: that is the rate again."""
    cycle, batch = gated_cycle(rate, fixed, load / rate)
    assert busy_share(rate, cycle) * batch / cycle == pytest.approx(rate, rel=1e-5)


def test_average_of_process_at_its_limits() -> None:
    shares = average_of_process(np.array([0.0, 1e-3, 1.0, 1e3]))
    assert shares[0] == pytest.approx(1.0, abs=1e-4)
    assert shares[1] == pytest.approx(1.0, abs=1e-3)
    assert shares[2] == pytest.approx(2 / math.e)
    assert shares[3] == pytest.approx(2 / 1e3, rel=2e-3)


def test_average_of_process_falls_with_the_window() -> None:
    shares = average_of_process(np.geomspace(1e-2, 1e4, 200))
    assert (np.diff(shares) < 0).all()
    assert ((shares > 0) & (shares <= 1)).all()


def test_average_of_process_against_a_sampled_process() -> None:
    """20,000 windows of two correlation times of an Ornstein-Uhlenbeck process of variance 1; within 3 %."""
    rng, steps, span = np.random.default_rng(8), 100, 2.0
    keep = math.exp(-span / steps)
    level = rng.normal(size=20_000)
    total = np.zeros_like(level)
    for _ in range(steps):
        following = level * keep + math.sqrt(1 - keep**2) * rng.normal(size=level.size)
        total += 0.5 * (level + following)
        level = following
    assert (total / steps).var() == pytest.approx(float(average_of_process(np.array([span]))[0]), rel=0.03)
