"""More workers never hurt, in the cases in which that is a theorem and not a rule of thumb.

With service times that differ, a gateway that assigns on arrival has anomalies: one more worker may put a request
behind another one. With constant service it has none, as requests then leave in the order in which they came.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.whatif.simulator.simulation import Routing
from tests.engines import Row, aggregated, disaggregated, engine, finish, transfer

QUICK = settings(max_examples=50, deadline=None)


@st.composite
def arrivals(draw: st.DrawFn) -> list[float]:
    """Up to 80 arrivals, ms, at one to ten times the pace of one worker; some at the same moment."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    gaps = rng.exponential(draw(st.sampled_from([1.0, 4.0, 11.0])), draw(st.integers(1, 80)))
    return [float(t) for t in np.round(gaps.cumsum(), draw(st.sampled_from([0, 6])))]


@QUICK
@given(arrivals(), st.integers(1, 6), st.sampled_from(["round_robin", "least_loaded"]))
def test_one_more_worker_delays_no_request_of_constant_service(
    times: list[float], workers: int, routing: Routing
) -> None:
    timing = engine(batched=100)  # one prompt of 100 tokens an iteration
    rows: list[Row] = [(at, 100, 1, 0) for at in times]
    few = finish(aggregated(timing), rows, workers, routing=routing)
    more = finish(aggregated(timing), rows, workers + 1, routing=routing)
    assert (more.ttft <= few.ttft * (1 + 1e-9)).all()
    # And no worker idles while a request waits: with as many workers as requests none waits at all.
    plenty = finish(aggregated(timing), rows, len(rows), routing=routing)
    np.testing.assert_allclose(plenty.ttft, 11.0, rtol=1e-9)


@QUICK
@given(arrivals(), st.integers(1, 4))
def test_one_more_prefill_worker_delays_no_hand_off(times: list[float], workers: int) -> None:
    # Decode workers of one seat each, as many as there are requests: what is prefilled never waits there.
    prefill, decode = engine(batched=100), engine(seqs=1)
    rows: list[Row] = [(at, 100, 3, 0) for at in times]
    engines = disaggregated(prefill, decode, transfer())
    few = finish(engines, rows, {engines.roles[0]: workers, engines.roles[1]: len(rows)})
    more = finish(engines, rows, {engines.roles[0]: workers + 1, engines.roles[1]: len(rows)})
    assert (more.end <= few.end * (1 + 1e-9)).all()
