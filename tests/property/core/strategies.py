"""Random engines, lengths, SLAs, loads and observations."""

from __future__ import annotations

from hypothesis import strategies as st

from planner.core.closed_form import ClosedForm
from planner.core.types import Known, LengthSample, PoolState, Sla, Unknown
from tests.engines import engine, transfer
from tests.unit.core.cases import AGGREGATED, DECODE, PREFILL, h200, h200_aggregated

#: What tables of engines that schedule ahead tell of prompts beside decodes, and of the front end.
BESIDE = (
    {"ahead": True, "behind_ms": 5.0, "stream_ms": 0.1},
    {"ahead": True, "behind_ms": 0.0, "mixed_request_ms": 0.05, "exposed": False},
    {"shared_ms": 2.0, "behind_ms": 5.0, "mixed_request_ms": 1.0},
)


@st.composite
def hand_made(draw: st.DrawFn) -> ClosedForm:
    """A graph on engines whose tables are straight lines, of either shape."""
    engines = [
        engine(
            fixed_ms=draw(st.floats(0.5, 50.0)),
            token_ms=draw(st.floats(1e-4, 0.05)),
            attention=draw(st.sampled_from([0.0, 1e-7, 1e-6])),
            step_ms=draw(st.floats(0.5, 30.0)),
            request_ms=draw(st.floats(0.0, 0.5)),
            kv_ms=draw(st.floats(0.0, 1e-3)),
            capacity=draw(st.sampled_from([20_000, 160_000, 900_000])),
            seqs=draw(st.sampled_from([8, 64, 256])),
            **draw(st.sampled_from([{}, {}, *BESIDE])),
        )
        for _ in range(2)
    ]
    handoff = transfer(draw(st.floats(0.0, 20.0)), draw(st.floats(0.0, 0.01)))
    if draw(st.booleans()):
        return ClosedForm({AGGREGATED: engines[0]}, handoff)
    return ClosedForm({PREFILL: engines[0], DECODE: engines[1]}, handoff)


#: Shipped and hand-made, of either shape.
models = st.one_of(st.builds(h200), st.builds(h200_aggregated), hand_made())

request = st.integers(1, 12_000).flatmap(
    lambda isl: st.tuples(st.just(isl), st.integers(1, 2_000), st.integers(0, isl - 1))
)

lengths = st.lists(request, min_size=1, max_size=8).map(
    lambda rows: LengthSample(*(tuple(column) for column in zip(*rows, strict=True)))
)

slas = st.builds(
    Sla,
    ttft_ms=st.floats(20.0, 20_000.0),
    itl_ms=st.floats(2.0, 300.0),
    attainment=st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)

dispersions = st.floats(1.0, 10.0)

#: Requests a second and worker: from idle over everything that an engine can do to far too much.
rates = st.one_of(st.floats(0.0, 5.0), st.floats(1e-3, 1e3), st.floats(1.0, 100.0))

#: No reading, in every way that JSON can say, and that the type of a count allows.
absent = st.sampled_from([Unknown("missing"), Known(0, 61.0), Known(0, 3600.0), Known(-1)])

#: No reading, in every way.
gone = st.one_of(
    absent,
    st.sampled_from(
        [Known(float("nan")), Known(float("inf")), Known(float("-inf")), Known(-0.5), Known(0.0, float("nan"))]
    ),
)


@st.composite
def pool_states(
    draw: st.DrawFn, least: int, most: int, missing: st.SearchStrategy[Unknown | Known[float]]
) -> PoolState:
    """A pool in any state, every reading of which may be there or not."""
    # Often none at all: only then is there nothing to react to.
    readings = missing if draw(st.booleans()) else st.one_of(missing, st.floats(0.0, 1e4).map(Known))
    usage = missing if draw(st.booleans()) else st.one_of(missing, st.floats(0.0, 1.0).map(Known))
    desired = draw(st.integers(least, most))
    ready = draw(st.integers(0, desired))
    return PoolState(
        desired=desired,
        ready=ready,
        starting=desired - ready,
        terminating=draw(st.integers(0, 4)),
        waiting_requests=draw(readings),
        running_requests=draw(readings),
        kv_usage=draw(usage),
    )


def supplies(
    least: int = 0, most: int = 20, missing: st.SearchStrategy[Unknown | Known[float]] = gone
) -> st.SearchStrategy[dict[str, PoolState]]:
    """A prefill and a decode pool in any state."""
    pool = pool_states(least, most, missing)
    return st.fixed_dictionaries({"prefill": pool, "decode": pool})
