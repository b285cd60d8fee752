"""The means that a replay shows to a policy: TTFT over requests, ITL over tokens."""

from dataclasses import replace

import numpy as np
import pytest

from planner.core.types import Known
from planner.whatif.policies.base import Policy
from planner.whatif.replay import replay
from planner.whatif.traces import Trace, TraceChunk


class Few(Trace):
    name = "few"

    def chunks(self):
        arrival_s = np.array([0.0, 0.1, 0.2, 0.3])
        isl = np.array([100, 3000, 500, 4000], dtype=np.int32)
        osl = np.array([2, 400, 1, 100], dtype=np.int32)
        yield TraceChunk(arrival_s, isl, osl, np.zeros(4, dtype=np.int32))


class Recorder(Policy):
    interval_s = 60.0

    def __init__(self):
        self.seen = []

    def decide(self, observation, now_s):  # noqa: ARG002 - it only looks
        self.seen.append(observation)
        return {"p": 1, "d": 1}


def test_means_of_an_interval(make_setting):
    finished, policy = [], Recorder()
    replay(replace(make_setting(), trace=Few()), policy, "recorder", on_finished=finished.append)
    column = {name: np.concatenate([getattr(f, name) for f in finished]) for name in ("ttft_ms", "itl_ms", "osl")}
    first = policy.seen[0]
    assert len(column["osl"]) == 4
    assert first.mean_ttft_ms == Known(pytest.approx(column["ttft_ms"].mean()))
    # 1 gap of the first request, 399 of the second, 99 of the last; the third has none
    gaps = column["osl"] - 1.0
    assert first.mean_itl_ms == Known(pytest.approx(np.nansum(column["itl_ms"] * gaps) / 499.0))
    assert first.mean_itl_ms.value != pytest.approx(np.nanmean(column["itl_ms"]))
