"""The drain hook, run for real against the simulated engine, and the time that a pod is given."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from profiler.errors import InputError
from tests.unit.worker_graph.kubernetes.rendered import deployed, graph, main_of, manifest
from tests.unit.worker_graph.simulated.test_server import TIMING, Client, running
from worker_graph.kubernetes import drain
from worker_graph.kubernetes.options import Target
from worker_graph.kubernetes.render import render_with_notes
from worker_graph.simulated.server import Server
from worker_graph.spec import load_graph

LONG = {"model": "tiny", "prompt": [1] * 100, "max_tokens": 3000, "ignore_eos": True}


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(limited())


async def start(url: str, limit_s: float = 1e6, settle_s: float = 0.0) -> asyncio.subprocess.Process:
    """The hook exactly as it is put into a pod, but looking more often."""
    command = drain.hook(1)["exec"]["command"]
    assert command[:2] == ["python3", "-c"]
    words = [sys.executable, "-c", command[2], url, str(settle_s), str(limit_s)]
    env = {**os.environ, "PLIMSOLL_DRAIN_EVERY_S": "0.02", "http_proxy": "http://127.0.0.1:9"}
    return await asyncio.create_subprocess_exec(*words, env=env, stderr=asyncio.subprocess.PIPE)


async def busy(server: Server) -> None:
    """Wait until the engine works."""
    while server.engine.scheduler.next_event_ms() == math.inf:
        await asyncio.sleep(0.005)


def metrics(client: Client) -> str:
    return str(client.make_url("/metrics"))


def test_an_idle_worker_is_done_at_once() -> None:
    async def scenario() -> None:
        async with running() as (client, _):
            hook = await start(metrics(client))
            assert await hook.wait() == 0

    run(scenario)


def test_it_waits_for_a_stream_and_for_one_that_waits_behind_it() -> None:
    async def scenario() -> None:
        # One at a time, so that the second waits; slow enough for the hook to look many times.
        timing = replace(TIMING, max_num_seqs=1)
        async with running(timing=timing, speed_up=20.0) as (client, server):
            first = asyncio.create_task(client.post("/v1/completions", json={**LONG, "max_tokens": 1500}))
            second = asyncio.create_task(client.post("/v1/completions", json={**LONG, "max_tokens": 1500}))
            await busy(server)
            hook = await start(metrics(client))
            await first
            assert hook.returncode is None
            await second
            assert await hook.wait() == 0

    run(scenario)


def test_a_prefill_worker_stays_until_its_kv_is_fetched() -> None:
    async def scenario() -> None:
        async with running("prefill", hold_ms=1e12) as (client, server):
            params = {"do_remote_decode": True, "do_remote_prefill": False}
            body = {**LONG, "max_tokens": 1, "kv_transfer_params": params}
            answer = await (await client.post("/v1/completions", json=body)).json()
            assert server.engine.scheduler.blocks == 7
            hook = await start(metrics(client))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(hook.wait()), 1.5)
            held = answer["kv_transfer_params"]
            taken = {"engine_id": held["remote_engine_id"], "request_id": held["remote_request_id"]}
            await client.post("/simulated/release", json=taken)
            assert await hook.wait() == 0

    run(scenario)


def test_it_gives_up_at_its_limit_and_says_so() -> None:
    async def scenario() -> None:
        async with running(speed_up=1.0) as (client, server):
            stream = asyncio.create_task(client.post("/v1/completions", json=LONG))
            await busy(server)
            hook = await start(metrics(client), limit_s=0.5)
            _, said = await hook.communicate()
            assert hook.returncode == 1
            assert b"still busy after 0.5 s" in said
            stream.cancel()

    run(scenario)


def test_a_worker_that_does_not_serve_yet_has_nothing_to_lose() -> None:
    async def scenario() -> None:
        hook = await start(f"http://127.0.0.1:{unused_port()}/metrics")
        assert await hook.wait() == 0

    run(scenario)


def test_a_server_that_does_not_say_is_busy() -> None:
    async def scenario() -> None:
        answers = iter([500, 200] + [200] * 1000)

        async def silent(_: web.Request) -> web.Response:
            return web.Response(status=next(answers), text="other_metric 0\n")

        app = web.Application()
        app.router.add_get("/metrics", silent)
        async with TestServer(app) as server:
            hook = await start(str(server.make_url("/metrics")), limit_s=0.6)
            assert await hook.wait() == 1

    run(scenario)


def test_a_leader_is_named_by_variables_of_the_container() -> None:
    async def scenario() -> None:
        async with running() as (client, _):
            command = drain.hook(60, "${LEADER}")["exec"]["command"]
            assert command[3] == "http://${LEADER}:8000/metrics"
            address = f"127.0.0.1:{client.port}"
            words = [sys.executable, "-c", command[2], "http://${LEADER}/metrics", "0", "60"]
            env = {**os.environ, "PLIMSOLL_DRAIN_EVERY_S": "0.02", "LEADER": address}
            hook = await asyncio.create_subprocess_exec(*words, env=env)
            assert await hook.wait() == 0

    run(scenario)


def grace(tmp_path: Path, args: list[str], **options: float) -> int:
    pod = deployed(graph(tmp_path, args, gpus="1"), "-w", **options)
    hook = main_of(pod)["lifecycle"]["preStop"]["exec"]["command"]
    total = int(pod["spec"]["terminationGracePeriodSeconds"])
    assert int(hook[-1]) == total - drain.STOP_S
    return total


def test_time_for_the_longest_answer(tmp_path: Path) -> None:
    rest = drain.SETTLE_S + drain.STOP_S
    assert grace(tmp_path, ["--max-model-len", "8192"], itl_ms=25.0) == 205 + rest
    assert grace(tmp_path, ["--max-model-len", "8k"], itl_ms=25.0) == 200 + rest
    assert grace(tmp_path, ["--max-model-len", "8K"], itl_ms=25.0) == 205 + rest
    assert grace(tmp_path, ["--max-model-len", "131072"], max_output_tokens=1000) == 50 + rest
    assert grace(tmp_path, ["--max-model-len", "131072"], longest_decode_s=12.5) == 13 + rest
    assert grace(tmp_path, []) == 820 + rest


def test_a_prefill_worker_has_time_until_its_blocks_are_fetched() -> None:
    pod = deployed(manifest("disagg.yaml"), "prefillworker")
    assert (
        pod["spec"]["terminationGracePeriodSeconds"] == drain.SETTLE_S + drain.PREFILL_S + drain.HOLD_S + drain.STOP_S
    )


def test_the_files_own_grace_period_counts_and_a_short_one_is_said(tmp_path: Path) -> None:
    extra = {
        "mainContainer": {"args": ["--model", "m"], "command": ["vllm", "serve"]},
        "terminationGracePeriodSeconds": 60,
    }
    spec = graph(tmp_path, [], gpus="1", extraPodSpec=extra)
    pod = deployed(spec, "-w")
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60
    assert main_of(pod)["lifecycle"]["preStop"]["exec"]["command"][-1] == "30"
    notes = render_with_notes(spec, Target.KUBERNETES).notes
    assert any("terminationGracePeriodSeconds is 60" in note for note in notes)


def test_a_hold_time_that_is_none(tmp_path: Path) -> None:
    spec = manifest("disagg.yaml")
    text = (
        (spec.source)
        .read_text()
        .replace(
            "      envFromSecret: hf-token-secret\n",
            "      envFromSecret: hf-token-secret\n      envs: [{name: " + drain.HOLD_VARIABLE + ", value: soon}]\n",
            1,
        )
    )
    path = tmp_path / "graph.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="whole number of seconds"):
        deployed(load_graph(path), "prefillworker")
