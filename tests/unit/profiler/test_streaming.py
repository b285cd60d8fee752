"""Where the front end falls behind the engine, the table keeps both apart."""

from __future__ import annotations

import numpy as np
import pytest

from profiler.streaming import engine_itl_ms, streaming_limit
from profiler.surface import DecodeSurface

LIMIT = 15.0  # tokens per ms


def engine(batch: np.ndarray, kv: np.ndarray) -> np.ndarray:
    return 5.0 + 0.02 * batch + 1e-5 * kv


def rows(*, clock: bool = True) -> dict[str, np.ndarray]:
    batch = np.tile([1.0, 16.0, 64.0, 128.0, 256.0, 512.0], 3)
    kv = batch * np.repeat([256.0, 512.0, 1024.0], 6)
    own = engine(batch, kv)
    made = {"batch": batch, "kv_tokens": kv, "context_tokens": kv / batch, "itl_ms": np.maximum(own, batch / LIMIT)}
    return made | ({"server_itl_ms": 0.98 * own} if clock else {})


def test_the_limit_is_what_clients_get_where_the_engine_is_faster() -> None:
    table = rows()
    assert streaming_limit(table) == pytest.approx(LIMIT)
    own = engine_itl_ms(table, LIMIT)
    behind = table["itl_ms"] > 1.2 * engine(table["batch"], table["kv_tokens"])
    assert behind.any()
    assert own[behind] == pytest.approx(0.98 * engine(table["batch"], table["kv_tokens"])[behind])
    assert (own[~behind] == table["itl_ms"][~behind]).all()


def test_without_the_engine_s_clock_nothing_is_told_apart() -> None:
    table = rows(clock=False)
    assert streaming_limit(table) is None
    assert (engine_itl_ms(table, None) == table["itl_ms"]).all()


def test_clocks_of_another_time_tell_nothing() -> None:
    table = rows()
    table["server_itl_ms"] = table["server_itl_ms"] / 4.0  # an engine that is simulated four times as slowly
    assert streaming_limit(table) is None
    assert (engine_itl_ms(table, None) == table["itl_ms"]).all()


def test_rows_near_the_limit_without_a_clock_are_left_out() -> None:
    table = rows()
    table["server_itl_ms"] = table["server_itl_ms"].copy()
    table["server_itl_ms"][[4, 0]] = np.nan
    own = engine_itl_ms(table, streaming_limit(table))
    assert np.isnan(own[4])
    assert own[0] == table["itl_ms"][0]


def test_the_surface_is_the_engine_s_and_never_below_the_limit() -> None:
    table = rows()
    limit = streaming_limit(table)
    assert limit is not None
    surface = DecodeSurface(table["batch"], table["kv_tokens"], engine_itl_ms(table, limit), stream_ms=1.0 / limit)
    assert surface.itl_ms(512, 512 * 256) == pytest.approx(512 / LIMIT)
    assert surface.itl_ms(64, 64 * 512) == pytest.approx(engine(np.array(64.0), np.array(64.0 * 512)), rel=1e-6)
    # With much in the cache the engine is slower than the front end again.
    assert surface.itl_ms(512, 512 * 8000) > 1.2 * 512 / LIMIT
    error = surface.leave_one_out.summary
    assert error is not None
    assert error.mean < 0.05
