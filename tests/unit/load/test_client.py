import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from profiler.errors import InputError
from profiler.load import Counting, Kind, Load, Outcome, Result, ScheduledRequest
from tests.unit.load.servers import DONE, Handler, answer, chunk, engine, line, serving, usage


def run(handler: Handler, schedule: list[ScheduledRequest], **keywords: Any) -> list[Result]:
    async def inside() -> list[Result]:
        async with serving(handler) as url:
            return await Load(url, "m", **keywords).run_open(schedule)

    return asyncio.run(inside())


def one(handler: Handler, osl: int = 3, **keywords: Any) -> Result:
    (result,) = run(handler, [ScheduledRequest(0.0, 8, osl)], **keywords)
    return result


def test_a_whole_stream_is_counted_twice() -> None:
    result = one(engine(), osl=5, counting=Counting.WORDS)
    assert (result.outcome, result.error) == (Outcome.COMPLETED, "")
    assert (result.prompt_tokens, result.completion_tokens, result.counted_tokens) == (8, 5, 5)
    assert result.ttft_ms is not None
    assert result.itl_ms is not None
    assert result.e2e_ms is not None
    assert result.e2e_ms >= result.ttft_ms + 4 * result.itl_ms - 1e-6


def test_the_body_is_what_the_api_asks_for() -> None:
    bodies: list[dict[str, Any]] = []
    one(engine(bodies), osl=7, extra={"priority": 3})
    (body,) = bodies
    assert len(body.pop("prompt").split()) == 8
    assert body == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "priority": 3,
    }


def test_token_ids_on_both_sides() -> None:
    bodies: list[dict[str, Any]] = []
    result = one(engine(bodies), prompt=Kind.IDS, counting=Counting.IDS)
    assert len(bodies[0]["prompt"]) == 8
    assert all(isinstance(token, int) for token in bodies[0]["prompt"])
    assert bodies[0]["return_token_ids"] is True
    assert (result.outcome, result.counted_tokens) == (Outcome.COMPLETED, 3)


def test_a_given_prompt_is_sent_as_it_is() -> None:
    bodies: list[dict[str, Any]] = []
    run(engine(bodies), [ScheduledRequest(0.0, 2, 1, prompt='say "hi"\n')])
    assert bodies[0]["prompt"] == 'say "hi"\n'


WORDS = [chunk(" a"), chunk(" b"), chunk(" c")]


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        pytest.param([DONE], Outcome.EMPTY, id="vllm-while-it-drains"),
        pytest.param([], Outcome.CUT, id="nothing-at-all"),
        pytest.param([*WORDS, usage(8, 3)], Outcome.CUT, id="without-done"),
        pytest.param([*WORDS, usage(8, 3), DONE[:-3]], Outcome.CUT, id="half-a-done"),
        pytest.param([chunk("", "abort"), usage(8, 0), DONE], Outcome.ABORTED, id="abort-without-a-token"),
        pytest.param([*WORDS, chunk("", "abort"), usage(8, 3), DONE], Outcome.ABORTED, id="abort-after-tokens"),
        pytest.param([*WORDS[:2], usage(8, 2), DONE], Outcome.SHORT, id="fewer-than-asked"),
        pytest.param([*WORDS[:2], usage(8, 3), DONE], Outcome.SHORT, id="fewer-arrived-than-made"),
        pytest.param([*WORDS[:2], DONE], Outcome.SHORT, id="fewer-and-no-usage"),
        pytest.param([WORDS[0], line({"error": {"message": "boom"}}), DONE], Outcome.ERROR, id="error-in-the-stream"),
        pytest.param([*WORDS, line(b"{nonsense"), usage(8, 3), DONE], Outcome.ERROR, id="not-json"),
        pytest.param([*WORDS, line([1]), usage(8, 3), DONE], Outcome.ERROR, id="not-an-object"),
        pytest.param([*WORDS, DONE], Outcome.COMPLETED, id="all-words-without-usage"),
        pytest.param([chunk(" a b c"), usage(8, 3), DONE], Outcome.COMPLETED, id="merged-into-one-chunk"),
        pytest.param([b": ping\n\n", *WORDS, usage(8, 3), DONE], Outcome.COMPLETED, id="keep-alives"),
    ],
)
def test_streams_that_end(pieces: list[bytes], outcome: Outcome) -> None:
    result = one(answer(pieces), counting=Counting.WORDS)
    assert (result.outcome, bool(result.error)) == (outcome, outcome is not Outcome.COMPLETED)


def test_a_cut_connection_keeps_what_had_come() -> None:
    result = one(answer(WORDS[:2], cut=True, pause_s=0.01), counting=Counting.WORDS)
    assert (result.outcome, result.counted_tokens) == (Outcome.CUT, 2)
    assert result.ttft_ms is not None


def test_merged_chunks_are_a_lower_bound() -> None:
    result = one(answer([chunk(" a"), chunk(" b c"), usage(8, 3), DONE]))
    assert (result.outcome, result.completion_tokens, result.counted_tokens) == (Outcome.COMPLETED, 3, 2)


def test_a_status_is_told_with_its_text() -> None:
    result = one(answer([b"no worker is ready"], status=503))
    assert (result.outcome, result.error) == (Outcome.STATUS, "503: no worker is ready")


def test_nobody_there() -> None:
    async def inside() -> list[Result]:
        async with serving(engine()) as url:
            pass  # gone again
        return await Load(url, "m").run_open([ScheduledRequest(0.0, 4, 2)])

    (result,) = asyncio.run(inside())
    assert result.outcome is Outcome.REFUSED
    assert result.ttft_ms is None


def test_a_timeout_is_in_the_time_of_the_schedule() -> None:
    result = one(engine(wait_s=30.0), timeout_s=5.0, speed_up=50.0)
    assert result.outcome is Outcome.TIMEOUT
    assert result.e2e_ms is not None
    assert result.e2e_ms >= 5000.0


def test_latencies_are_multiplied_back() -> None:
    result = one(engine(wait_s=0.05), speed_up=100.0)
    assert result.ttft_ms is not None
    assert result.ttft_ms >= 5000.0


def test_open_loop_waits_for_no_answer() -> None:
    """The server answers the first request only once it has the last; a closed loop would never get there."""
    release = asyncio.Event()
    seen = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen == 5:
            release.set()
        await release.wait()
        return await engine()(request)

    schedule = [ScheduledRequest(0.01 * index, 4, 2) for index in range(5)]
    results = run(handle, schedule, timeout_s=5.0)
    assert [one.outcome for one in results] == [Outcome.COMPLETED] * 5
    assert [one.arrival_s for one in results] == [request.at_s for request in schedule]


def test_results_come_as_they_end_and_return_in_order() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        osl = json.loads(await request.read())["max_tokens"]
        await asyncio.sleep(0.2 if osl == 1 else 0.0)
        return await engine()(request)

    seen: list[int] = []

    async def inside() -> list[Result]:
        async with serving(handle) as url:
            schedule = [ScheduledRequest(0.0, 4, 1), ScheduledRequest(0.0, 4, 2)]
            return await Load(url, "m").run_open(schedule, on_result=lambda result: seen.append(result.osl))

    assert [result.osl for result in asyncio.run(inside())] == [1, 2]
    assert seen == [2, 1]


def test_a_schedule_does_not_go_back() -> None:
    async def inside() -> None:
        async with serving(engine()) as url:
            await Load(url, "m").run_open([ScheduledRequest(0.1, 4, 2), ScheduledRequest(0.0, 4, 2)])

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(inside())
    assert caught.group_contains(InputError, match="at_s")


def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    running = most = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        response = await engine(wait_s=0.01)(request)
        running -= 1
        return response

    async def inside() -> list[Result]:
        async with serving(handle) as url:
            return await Load(url, "m").run_closed(3, lambda: ScheduledRequest(0.0, 4, 2), total=11)

    results = asyncio.run(inside())
    assert [one.outcome for one in results] == [Outcome.COMPLETED] * 11
    assert most == 3


def test_a_closed_loop_ends_with_its_time_or_its_requests() -> None:
    async def inside() -> tuple[list[Result], list[Result]]:
        async with serving(engine()) as url:
            load = Load(url, "m", speed_up=100.0)
            timed = await load.run_closed(2, lambda: ScheduledRequest(0.0, 4, 2), duration_s=5.0)
            left = iter([ScheduledRequest(0.0, 4, 2)] * 3)
            return timed, await load.run_closed(2, lambda: next(left, None), duration_s=6000.0)

    timed, few = asyncio.run(inside())
    assert timed
    assert all(one.arrival_s < 5.0 for one in timed)
    assert len(few) == 3


def test_wrong_use() -> None:
    with pytest.raises(InputError, match="speed_up"):
        Load("http://localhost", "m", speed_up=0.0)
    with pytest.raises(InputError, match="duration_s or total"):
        asyncio.run(Load("http://localhost", "m").run_closed(1, lambda: None))
