import asyncio
from typing import Any

import pytest
from aiohttp import web

from profiler.errors import InputError
from profiler.load import Counting, Kind, Outcome, PairLoad, Result, ScheduledRequest
from tests.unit.load.servers import Handler, engine, serving

HAND_OFF = {"do_remote_prefill": True, "remote_engine_id": "e", "remote_block_ids": [3, 1], "remote_port": 5}


def prefill(bodies: list[dict[str, Any]], answer: Any = None, status: int = 200, wait_s: float = 0.0) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        await asyncio.sleep(wait_s)
        return web.json_response({"kv_transfer_params": HAND_OFF} if answer is None else answer, status=status)

    return handle


def run(first: Handler, second: Handler, count: int = 1, **keywords: Any) -> list[Result]:
    async def inside() -> list[Result]:
        async with serving(first) as prefill_url, serving(second) as decode_url:
            load = PairLoad([prefill_url], [decode_url], "m", **keywords)
            return await load.run_open([ScheduledRequest(0.0, 8, 3) for _ in range(count)])

    return asyncio.run(inside())


def test_the_decode_worker_gets_what_the_prefill_worker_said() -> None:
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    (result,) = run(prefill(first), engine(second), prompt=Kind.IDS, counting=Counting.IDS, extra={"min_tokens": 3})
    assert (result.outcome, result.error, result.counted_tokens) == (Outcome.COMPLETED, "", 3)
    (asked,), (handed,) = first, second
    assert asked["prompt"] == handed["prompt"]
    assert (asked["max_tokens"], asked["stream"], handed["max_tokens"], handed["stream"]) == (1, False, 3, True)
    assert asked["kv_transfer_params"]["do_remote_decode"] is True
    assert not {"stream_options", "return_token_ids", "min_tokens"} & set(asked)
    assert handed["kv_transfer_params"] == HAND_OFF
    assert handed["return_token_ids"] is True


def test_ttft_holds_the_prefill_request() -> None:
    (result,) = run(prefill([], wait_s=0.05), engine(wait_s=0.02))
    assert result.prefill_ms is not None
    assert result.prefill_ms >= 50.0
    assert result.ttft_ms is not None
    assert result.ttft_ms >= result.prefill_ms + 20.0


@pytest.mark.parametrize(
    ("answer", "status", "outcome", "words"),
    [
        pytest.param({"choices": []}, 200, Outcome.ERROR, "no kv_transfer_params", id="without-hand-off"),
        pytest.param([], 200, Outcome.ERROR, "no kv_transfer_params", id="not-an-object"),
        pytest.param({"error": "full"}, 503, Outcome.STATUS, "prefill: 503", id="status"),
    ],
)
def test_a_prefill_that_hands_nothing_over_is_lost(answer: Any, status: int, outcome: Outcome, words: str) -> None:
    second: list[dict[str, Any]] = []
    (result,) = run(prefill([], answer, status), engine(second))
    assert result.outcome is outcome
    assert words in result.error
    assert second == []


def test_workers_take_turns() -> None:
    counts: list[list[dict[str, Any]]] = [[], [], []]

    async def inside() -> None:
        async with (
            serving(prefill(counts[0])) as one,
            serving(prefill(counts[1])) as two,
            serving(engine(counts[2])) as decode,
        ):
            await PairLoad([one, two], [decode], "m").run_open([ScheduledRequest(0.01 * i, 8, 2) for i in range(6)])

    asyncio.run(inside())
    assert [len(bodies) for bodies in counts] == [3, 3, 6]


def test_a_pair_needs_both() -> None:
    with pytest.raises(InputError, match="decode_urls"):
        PairLoad(["http://127.0.0.1:1"], [], "m")
