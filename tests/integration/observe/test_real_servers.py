"""A real Prometheus and a real gateway in front of engines that are told how long to take.

What the observation says is compared with what the client did and saw.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import aiohttp
import pytest

from planner.connectors.base import Supply, Worker, WorkerStatus
from planner.core.types import Known, Observation, Pool, PoolState, Role, Sla, Unknown
from planner.observe.base import Source
from planner.observe.dialects import engine_dialect, gateway_dialect
from planner.observe.observer import Observer
from planner.observe.prometheus import PrometheusSource
from planner.observe.scrape import ScrapeSource
from tests.integration.observe.engines import SECONDS, Engine
from tests.servers import (
    Gateway,
    Server,
    get,
    needs_prometheus,
    needs_smg,
    start_prometheus,
    start_smg,
    wait_until,
    write_targets,
)

pytestmark = [needs_prometheus, needs_smg]

#: The limit lies between the two kinds of requests, far from both for a busy machine's sake, and inside a bucket.
SLA = Sla(ttft_ms=350.0, itl_ms=100.0, attainment=0.5)
SLOW_SHARE = 0.25


@dataclass
class Graph:
    """The gateway, its engines, and the Prometheus that scrapes them."""

    gateway: Gateway
    prometheus: Server
    engines: dict[str, list[Engine]]
    targets: Path

    @property
    def supply(self) -> Supply:
        workers = [
            Worker(f"{pool}-{k}", pool, WorkerStatus.READY, engine.address)
            for pool, engines in self.engines.items()
            for k, engine in enumerate(engines)
        ]
        pools = {pool: PoolState(len(engines), len(engines)) for pool, engines in self.engines.items()}
        return Supply(pools, tuple(workers), (self.gateway.metrics,))

    def observer(self, source: Source) -> Observer:
        roles = {pool: Role(pool) for pool in self.engines}
        pools = [Pool(name, role, 1) for name, role in roles.items()]
        return Observer(source, engine_dialect("vllm"), gateway_dialect("smg"), SLA, pools, stale_after_s=20.0)

    def scraped(self, address: str) -> bool:
        return f'"instance":"{address}"' in get(f"{self.prometheus.url}/api/v1/query?query=up==1")


def graph_of(folder: Path, engines: dict[str, list[Engine]]) -> Iterator[Graph]:
    targets = folder / "targets.json"
    with ExitStack() as stack:
        for one in [engine for group in engines.values() for engine in group]:
            stack.callback(one.stop)
        disaggregated = "decode" in engines
        gateway = stack.enter_context(start_smg(folder, disaggregated=disaggregated, buckets_s=SECONDS))
        for pool, group in engines.items():
            for one in group:
                gateway.add(one.url, pool if disaggregated else "regular")
        addresses = {pool: [one.address for one in group] for pool, group in engines.items()}
        write_targets(targets, {**addresses, "gateway": [gateway.metrics]})
        prometheus = stack.enter_context(start_prometheus(folder, targets))
        graph = Graph(gateway, prometheus, engines, targets)
        for address in [gateway.metrics, *chain.from_iterable(addresses.values())]:
            wait_until(lambda address=address: graph.scraped(address), f"{address} is scraped")
        yield graph


@pytest.fixture(scope="module")
def disaggregated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """Every fourth prompt takes 600 ms, the others 100 ms; the first token of decode 50 ms more."""
    engines = {
        "prefill": [Engine(lambda number: 0.6 if number % 4 == 3 else 0.1)],
        "decode": [Engine(lambda _: 0.05), Engine(lambda _: 0.05)],
    }
    yield from graph_of(tmp_path_factory.mktemp("disaggregated"), engines)


@pytest.fixture(scope="module")
def aggregated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    engines = {"aggregated": [Engine(lambda number: 0.6 if number % 4 == 3 else 0.1)]}
    yield from graph_of(tmp_path_factory.mktemp("aggregated"), engines)


async def _send(url: str, count: int, rate: float) -> list[tuple[float, int]]:
    """Requests at a steady rate: seconds to the first token, and the status, of each."""

    async def one(session: aiohttp.ClientSession, k: int) -> tuple[float, int]:
        await asyncio.sleep(k / rate)
        body = {"model": "m", "prompt": "word " * 40, "max_tokens": 4, "stream": True}
        sent = time.monotonic()
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            first = math.nan
            async for line in answer.content:
                if line.startswith(b"data: {") and math.isnan(first):
                    first = time.monotonic() - sent
            return first, answer.status

    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*(one(session, k) for k in range(count))))


def send(url: str, count: int = 80, rate: float = 20.0) -> list[tuple[float, int]]:
    return asyncio.run(_send(url, count, rate))


def value(reading: object) -> float:
    assert isinstance(reading, Known), reading
    return reading.value  # type: ignore[no-any-return]


def around(graph: Graph, source: Source, count: int = 80) -> tuple[Observation, list[tuple[float, int]]]:
    """The observation of a span with these requests in it, and what the client saw."""
    made = graph.observer(source)
    supply = graph.supply
    made.observe(supply, 3.0, time.time())
    time.sleep(2.5)
    before = time.time()
    made.observe(supply, 3.0, before)
    answers = send(graph.gateway.url, count)
    time.sleep(2.5)
    now = time.time()
    return made.observe(supply, now - before, now), answers


def sources(graph: Graph) -> dict[str, Source]:
    return {"prometheus": PrometheusSource(graph.prometheus.url), "scrape": ScrapeSource(period_s=0.5)}


@pytest.mark.parametrize("kind", ["prometheus", "scrape"])
def test_a_disaggregated_graph(disaggregated: Graph, kind: str) -> None:
    source = sources(disaggregated)[kind]
    try:
        seen, answers = around(disaggregated, source)
    finally:
        source.close()
    assert {status for _, status in answers} == {200}
    ttfts = [1000 * first for first, _ in answers]
    # The window's ends are scrapes, up to a period away from the ticks on either side.
    assert value(seen.arrivals) == pytest.approx(80, rel=0.35)
    assert value(seen.mean_ttft_ms) == pytest.approx(sum(ttfts) / 80, rel=0.15)
    truth = sum(ttft <= SLA.ttft_ms for ttft in ttfts) / 80
    assert truth == pytest.approx(1 - SLOW_SHARE, abs=0.2), "both kinds are there"
    assert value(seen.attainment) == pytest.approx(truth, abs=0.08)
    assert value(seen.ttft_ms) == pytest.approx(sorted(ttfts)[40], rel=0.3)
    assert 5 <= value(seen.mean_itl_ms) <= 30
    assert isinstance(seen.lengths, Known)
    sample = seen.lengths.value
    # All of them, each once, though two engines saw every one.
    assert len(sample) == 80
    assert sum(sample.isl) / len(sample) == pytest.approx(40, rel=0.02)
    assert sum(sample.osl) / len(sample) == pytest.approx(4, rel=0.1)
    assert sum(sample.prefix_hit_tokens) / len(sample) == pytest.approx(20, rel=0.05)
    assert isinstance(seen.pools, Known)
    assert isinstance(seen.pools.value["decode"].kv_usage, Known)
    assert seen.gaps == ()


def test_an_aggregated_graph_has_its_ttft_from_the_engines(aggregated: Graph) -> None:
    source = PrometheusSource(aggregated.prometheus.url)
    try:
        seen, answers = around(aggregated, source)
    finally:
        source.close()
    ttfts = [1000 * first for first, _ in answers]
    assert value(seen.arrivals) == pytest.approx(80, rel=0.35)
    assert value(seen.mean_ttft_ms) == pytest.approx(sum(ttfts) / 80, rel=0.15)
    assert value(seen.attainment) == pytest.approx(1 - SLOW_SHARE, abs=0.08)


def test_failed_requests_arrive_and_do_not_attain(disaggregated: Graph) -> None:
    source = PrometheusSource(disaggregated.prometheus.url)
    for engine in disaggregated.engines["prefill"]:
        engine.failing = True
    try:
        seen, answers = around(disaggregated, source, count=8)
    finally:
        source.close()
        for engine in disaggregated.engines["prefill"]:
            engine.failing = False
    assert all(status >= 500 for _, status in answers)
    # Counted though they failed. The span between two scrapes is short here: one that is late on a busy machine makes
    # a rate, and with it the count, half as large again.
    assert 4 <= value(seen.arrivals) <= 16
    assert seen.attainment == Known(0.0, pytest.approx(value_age(seen)))
    assert isinstance(seen.ttft_ms, Unknown)


def value_age(seen: Observation) -> float:
    assert isinstance(seen.arrivals, Known)
    return seen.arrivals.age_s


def test_a_metric_that_is_no_number_and_a_worker_that_goes(aggregated: Graph) -> None:
    source = PrometheusSource(aggregated.prometheus.url)
    engine = aggregated.engines["aggregated"][0]
    supply = aggregated.supply
    try:
        engine.metrics.kv_usage.set(math.nan)
        looks: list[Observation] = []

        def scraped() -> bool:
            looks.append(aggregated.observer(source).observe(supply, 3.0, time.time()))
            pools = looks[-1].pools
            return isinstance(pools, Known) and isinstance(pools.value["aggregated"].kv_usage, Unknown)

        wait_until(scraped, "it is scraped")
        seen = looks[-1]
        assert isinstance(seen.pools, Known)
        usage = seen.pools.value["aggregated"].kv_usage
        assert usage == Unknown(f"vllm:kv_cache_usage_perc of {engine.address} is nan", usage.age_s)
        assert seen.gaps == ("1 of 1 aggregated workers have unusable metrics",)
        engine.metrics.kv_usage.set(0.5)
        other = Worker("new", "aggregated", WorkerStatus.READY, "127.0.0.1:1")
        more = Supply(supply.pools, (*supply.workers, other), supply.gateways)
        seen = aggregated.observer(source).observe(more, 3.0, time.time())
        assert seen.gaps == ("1 of 2 aggregated workers have no metrics",)
        # No traffic is a number.
        time.sleep(1.0)
        assert seen.arrivals == Known(0, value_age(seen))
    finally:
        engine.metrics.kv_usage.set(0.0)
        source.close()


def test_prometheus_hangs_and_dies(tmp_path: Path) -> None:
    """What it had is back as soon as it is."""
    targets = tmp_path / "targets.json"
    engine = Engine(lambda _: 0.0)
    try:
        supply = Supply(
            {"aggregated": PoolState(1, 1)}, (Worker("a", "aggregated", WorkerStatus.READY, engine.address),), ()
        )
        write_targets(targets, {"aggregated": [engine.address]})
        with start_prometheus(tmp_path, targets) as server:
            graph = Graph(None, server, {"aggregated": [engine]}, targets)  # type: ignore[arg-type]
            wait_until(lambda: graph.scraped(engine.address), "the engine is scraped")
            source = PrometheusSource(server.url, timeout_s=0.5)
            made = graph.observer(source)

            def usage() -> Known[float] | Unknown:
                seen = made.observe(supply, 3.0, time.time())
                assert isinstance(seen.pools, Known)
                assert seen.pools.value["aggregated"].ready == 1
                return seen.pools.value["aggregated"].kv_usage

            looks: list[Known[float] | Unknown] = []

            def answered() -> bool:
                looks.append(usage())
                return isinstance(looks[-1], Known)

            wait_until(answered, "it answers in time, as it does on a machine that is not busy at once")
            assert looks[-1] == Known(0.0, pytest.approx(0.5, abs=1.5))
            server.pause()
            assert usage() == Unknown(f"Prometheus at {server.url} did not answer within 0.5 s")
            server.resume()
            wait_until(lambda: isinstance(usage(), Known), "it answers again")
            server.kill()
            gone = usage()
            assert isinstance(gone, Unknown)
            assert "cannot be reached" in gone.reason
            assert "refused" in gone.reason
            source.close()
    finally:
        engine.stop()
