"""Scraping targets that answer, hang, fail and lie."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiohttp import ClientSession

from planner.connectors.base import Supply
from planner.core.types import PoolState
from planner.observe.base import Series, SourceError
from planner.observe.scrape import UP_KEY, Key, ScrapeSource, parse
from tests.servers import free_port, wait_until
from tests.unit.observe.graphs import worker

PAGE = """# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a \\"b\\" {c} d"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 1.0
vllm:kv_cache_usage_perc{engine="0"} NaN
broken{ 1
vllm:other 2
"""

NAMES = frozenset({"vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "up"})


class Target:
    """A server that answers `/metrics`."""

    def __init__(self) -> None:
        self.status, self.page, self.delay_s, self.scrapes = 200, PAGE.encode(), 0.0, 0
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.scrapes += 1
                time.sleep(target.delay_s)
                self.send_response(target.status if self.path == "/metrics" else 404)
                self.send_header("Content-Length", str(len(target.page)))
                self.end_headers()
                self.wfile.write(target.page)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def targets() -> Iterator[list[Target]]:
    made = [Target(), Target()]
    yield made
    for one in made:
        one.stop()


@pytest.fixture
def source() -> Iterator[ScrapeSource]:
    made = ScrapeSource(period_s=0.05, timeout_s=0.5)
    yield made
    made.close()


def graph(*addresses: str) -> Supply:
    n = len(addresses)
    return Supply({"decode": PoolState(n, n)}, tuple(worker(address, "decode") for address in addresses))


def read(source: ScrapeSource, supply: Supply) -> list[Series]:
    return list(source.read(sorted(NAMES), supply, 30.0, time.time()))


def named(series: list[Series], name: str, address: str) -> Series:
    (found,) = [one for one in series if one.name == name and one.labels["instance"] == address]
    return found


def test_only_wanted_lines_are_parsed() -> None:
    labels = (("engine", "0"), ("model_name", 'a "b" {c} d'))
    samples = parse(PAGE, NAMES)
    assert samples["vllm:num_requests_waiting", labels] == 3.0
    assert len(samples) == 2
    with pytest.raises(ValueError, match="float"):
        parse(PAGE, NAMES | {"broken"})


def test_samples_of_every_target_with_its_labels(source: ScrapeSource, targets: list[Target]) -> None:
    supply = graph(*(one.address for one in targets))
    series = read(source, supply)
    for one in targets:
        waiting = named(series, "vllm:num_requests_waiting", one.address)
        assert waiting.values[0] == 3.0
        assert waiting.labels["pool"] == "decode"
        assert waiting.labels["worker"] == f"decode-{one.address}"
        assert abs(waiting.at_s[0] - time.time()) < 30
    wait_until(lambda: len(named(read(source, supply), "up", targets[0].address).at_s) >= 3, "three scrapes")
    seen = named(read(source, supply), "up", targets[0].address)
    assert list(seen.at_s) == sorted(set(seen.at_s))


def test_a_target_that_fails_is_missing_and_comes_back(source: ScrapeSource, targets: list[Target]) -> None:
    supply = graph(*(one.address for one in targets))
    targets[0].status = 500
    targets[1].delay_s = 0.0
    series = read(source, supply)
    assert named(series, "up", targets[0].address).values[0] == 0.0
    assert not [one for one in series if one.name != "up" and one.labels["instance"] == targets[0].address]
    assert named(series, "vllm:num_requests_waiting", targets[1].address)
    targets[0].status = 200
    wait_until(lambda: 1.0 in named(read(source, supply), "up", targets[0].address).values, "it is back")


@pytest.mark.parametrize(
    ("page", "status", "delay_s", "said"),
    [
        (PAGE, 503, 0.0, "answered 503"),
        ("vllm:num_requests_waiting{ 1\n", 200, 0.0, "not in Prometheus' text format"),
        ("vllm:num_requests_waiting abc\n", 200, 0.0, "not in Prometheus' text format"),
        (PAGE, 200, 1.5, "no answer within 0.5 s"),
    ],
)
def test_no_target_at_all(
    source: ScrapeSource, targets: list[Target], page: str, status: int, delay_s: float, said: str
) -> None:
    for one in targets:
        one.page, one.status, one.delay_s = page.encode(), status, delay_s
    with pytest.raises(SourceError, match=r"none of 2 targets could be scraped: 127.0.0.1:\d+: " + said):
        read(source, graph(*(one.address for one in targets)))


class Deaf(ScrapeSource):
    """Takes every cancellation for a timeout, as an HTTP client may that has its own at the same moment."""

    async def _scrape(self, session: ClientSession, address: str) -> tuple[float, dict[Key, float], str]:  # noqa: ARG002
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            return time.time(), {UP_KEY: 0.0}, "no answer"
        return time.time(), {UP_KEY: 1.0}, ""


def test_it_ends_though_a_cancellation_is_lost() -> None:
    source = Deaf(period_s=0.01, timeout_s=0.5)
    supply = graph("127.0.0.1:1", "127.0.0.1:2")
    read(source, supply)
    closing = threading.Thread(target=source.close, daemon=True)
    closing.start()
    closing.join(30.0)
    assert not closing.is_alive()


def test_nobody_listens(source: ScrapeSource) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(SourceError, match=f"none of 1 targets could be scraped: {address}: .*"):
        read(source, graph(address))


def test_targets_come_and_go(source: ScrapeSource, targets: list[Target]) -> None:
    first, second = targets
    read(source, graph(first.address))
    assert second.scrapes == 0
    read(source, graph(second.address))
    wait_until(lambda: second.scrapes > 0, "the new one is scraped")
    wait_until(lambda: any(one.labels["instance"] == second.address for one in read(source, graph(second.address))), "")
    # What was read of the one that went is still told, and it is not asked any more.
    before = first.scrapes
    assert named(read(source, graph(second.address)), "vllm:num_requests_waiting", first.address).values
    wait_until(lambda: second.scrapes > 8, "more scrapes")
    assert first.scrapes <= before + 1


def test_closing_ends_the_thread(targets: list[Target]) -> None:
    made = ScrapeSource(period_s=0.05, timeout_s=0.5)
    read(made, graph(targets[0].address))
    made.close()
    assert "scrape" not in [thread.name for thread in threading.enumerate()]
    made.close()
    assert read(made, graph(targets[0].address))
    made.close()


def test_an_empty_graph_is_no_failure(source: ScrapeSource) -> None:
    assert read(source, graph()) == []
