"""What property tests of the simulator and of the simulated engine draw from."""

from hypothesis import strategies as st

from profiler.timing import EngineTiming
from tests.engines import engine


@st.composite
def timings(draw: st.DrawFn) -> EngineTiming:
    """Small engines, so that blocks, seats and the token budget all bind at some time."""
    block = draw(st.sampled_from([1, 7, 16]))
    return engine(
        token_ms=0.05,
        attention=draw(st.sampled_from([0.0, 1e-4])),
        kv_ms=draw(st.sampled_from([0.0, 0.003])),
        bend=draw(st.sampled_from([0.0, 1e-5])),
        capacity=block * draw(st.integers(200 // block + 1, 1200 // block)),
        seqs=draw(st.integers(1, 12)),
        batched=draw(st.sampled_from([16, 60, 300])),
        block=block,
        kv_nodes=draw(st.sampled_from([2, 9, 40])),
        shared_ms=draw(st.sampled_from([None, 2.0, 9.0])),
        front_ms=(front := draw(st.sampled_from([0.0, 3.0]))),
        front_token_ms=front / 100.0,
        ahead=(ahead := draw(st.booleans())),
        behind_ms=draw(st.sampled_from([None, 7.0])),
        mixed_request_ms=draw(st.sampled_from([0.0, 0.3])),
        # Launches can only be exposed where the engine schedules ahead, and were measured with the rest or were not.
        exposed=ahead and draw(st.booleans()),
        stream_ms=draw(st.sampled_from([0.0, 0.2])),
    )
