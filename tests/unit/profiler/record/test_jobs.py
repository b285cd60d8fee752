"""Recording from the simulated engine, in this process and faster than real time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from profiler.errors import DependencyError, InputError
from profiler.load import Counting, Result
from profiler.record.files import read_recording
from profiler.record.jobs import ClientOptions, Done, Target, run_all
from profiler.record.run import idle
from profiler.record.schedule import PoissonSchedule
from tests.engines import engine, transfer
from worker_graph.simulated.engine import Engine
from worker_graph.simulated.server import Server
from worker_graph.simulated.timing import WorkerTiming

FAST = 200.0
TIMING = engine(fixed_ms=10.0, token_ms=0.01, step_ms=5.0, capacity=16_000)
OPTIONS = ClientOptions(counting=Counting.WORDS, speed_up=FAST)
LOW = PoissonSchedule(rate=2, duration_s=20, isl=100, osl=10, seed=1)


async def start(role: str) -> TestServer:
    table = WorkerTiming.of(TIMING, transfer(), role=role, max_model_len=4096, kv_bytes_per_token=1.0)
    one = Server(Engine(table, "tiny", speed_up=FAST, flush_ms=2.0), "127.0.0.1", 0)
    server = TestServer(one.application())
    await server.start_server()
    one.port = server.port or 0
    return server


def served(roles: list[str], use: Callable[[list[str]], Awaitable[list[Done]]]) -> list[Done]:
    async def inside() -> list[Done]:
        servers = [await start(role) for role in roles]
        try:
            async with asyncio.timeout(60):
                return await use([str(server.make_url("")).rstrip("/") for server in servers])
        finally:
            for server in servers:
                await server.close()

    return asyncio.run(inside())


def target(aggregated: list[str], prefill: list[str], decode: list[str]) -> Target:
    return Target(
        tuple(aggregated), tuple(prefill), tuple(decode), "model", "tiny", "NVIDIA H100 80GB HBM3", {"decode": 2}
    )


def test_two_runs_one_after_the_other(tmp_path: Path) -> None:
    schedules = [LOW, LOW.model_copy(update={"name": "more", "rate": 4.0})]
    one, two = served(
        ["aggregated"], lambda urls: run_all(target(urls, [], []), schedules, tmp_path, options=OPTIONS, command="c")
    )
    assert [one.path.name, two.path.name] == ["r1.csv", "more.csv"]
    for done in (one, two):
        back = read_recording(done.path)
        assert back.meta.outcomes == {"completed": len(back.isl)}
        (worker,) = back.meta.workers
        # The second run's counters are its own.
        assert worker.counters["vllm:prompt_tokens_total"] == back.isl.sum()
        assert worker.counters["vllm:generation_tokens_total"] == back.osl.sum()
        assert "vllm:prefix_cache_hits_total" not in worker.counters
        assert (worker.role, worker.tp, worker.kv_capacity_tokens, worker.max_model_len) == (
            "aggregated",
            1,
            16_000,
            4096,
        )
        assert (back.meta.gpu, back.meta.model, back.meta.mode) == ("h100-sxm", "model", "aggregated")
        assert back.meta.command == "c"


def test_a_pair(tmp_path: Path) -> None:
    (done,) = served(
        ["prefill", "decode"],
        lambda urls: run_all(target([], urls[:1], urls[1:]), [LOW], tmp_path / "pair.csv", options=OPTIONS),
    )
    back = read_recording(done.path)
    assert back.completed.all()
    assert back.meta.mode == "disaggregated"
    assert {one.role: one.tp for one in back.meta.workers} == {"prefill": 1, "decode": 2}
    assert (back.prefill_ms > 0).all()
    assert (back.ttft_ms > back.prefill_ms).all()
    decode = back.meta.of("decode")[0].counters
    assert decode["vllm:prompt_tokens_by_source_total{external_kv_transfer}"] == back.isl.sum()


def test_a_run_is_kept_when_its_engine_dies(tmp_path: Path) -> None:
    async def inside() -> None:
        server = await start("aggregated")
        url = str(server.make_url("")).rstrip("/")
        both = [LOW, LOW.model_copy(update={"name": "never"})]
        async with asyncio.timeout(60):
            run = asyncio.create_task(
                run_all(target([url], [], []), both, tmp_path, options=OPTIONS, on_result=seen.append)
            )
            while not seen:
                await asyncio.sleep(0.01)
            await server.close()
            with pytest.raises(DependencyError, match="is kept"):
                await run

    seen: list[Result] = []
    asyncio.run(inside())
    back = read_recording(tmp_path / "r1.csv")
    assert back.completed.any()
    assert not back.completed.all()
    assert back.meta.outcomes["refused"] > 0
    assert back.meta.workers[0].counters == {}
    assert not (tmp_path / "never.csv").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "r1.csv").write_text("kept")
    with pytest.raises(InputError, match="exists"):
        asyncio.run(run_all(target(["http://127.0.0.1:1"], [], []), [LOW], tmp_path))
    assert (tmp_path / "r1.csv").read_text() == "kept"


def test_names_are_of_one_run_each(tmp_path: Path) -> None:
    same = LOW.model_copy(update={"name": "low"})
    with pytest.raises(InputError, match="two runs are called 'low'"):
        asyncio.run(run_all(target(["http://127.0.0.1:1"], [], []), [same, same], tmp_path))
    with pytest.raises(InputError, match="one file for 2 runs"):
        asyncio.run(run_all(target(["http://127.0.0.1:1"], [], []), [LOW, LOW], tmp_path / "x.csv"))


@pytest.mark.parametrize(
    ("urls", "field"),
    [(([], [], []), "--url"), ((["a"], ["b"], []), "--url"), (([], ["b"], []), "--decode-url")],
)
def test_a_target_is_one_worker_or_a_pair(urls: tuple[list[str], list[str], list[str]], field: str) -> None:
    with pytest.raises(InputError, match=field):
        target(*urls)


def test_an_engine_that_stays_busy_is_an_error() -> None:
    async def inside() -> None:
        async def metrics(_: web.Request) -> web.Response:
            return web.Response(text="# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 3.0\n")

        application = web.Application()
        application.router.add_get("/metrics", metrics)
        async with TestServer(application) as server, aiohttp.ClientSession() as session:
            with pytest.raises(DependencyError, match="still has 3 requests"):
                await idle(session, str(server.make_url("")), 0.0)

    asyncio.run(inside())
