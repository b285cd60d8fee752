"""No test of a run asks this machine's own GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither clocks nor memory of GPUs are read."""

    async def free(_: Sequence[int]) -> None:
        pass

    monkeypatch.setattr("profiler.job.unit.wait_until_free", free)
    monkeypatch.setattr("profiler.engines.machine.query", lambda *_: [])
