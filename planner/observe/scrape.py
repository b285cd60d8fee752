"""Samples scraped by the planner itself, for graphs without a Prometheus."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from planner.connectors.base import Supply
from planner.observe.base import Series, Source, SourceError
from planner.observe.series import UP

#: A metric's name at the start of its line.
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

Labels = tuple[tuple[str, str], ...]

#: A series: its name and its labels in their order.
Key = tuple[str, Labels]

#: Of the series that says whether a scrape worked.
UP_KEY: Key = (UP, ())

#: More than any engine exports; a target that sends more is not one.
MOST_BYTES = 16 * 1024 * 1024


def parse(text: str, names: frozenset[str]) -> dict[Key, float]:
    """The wanted samples of an exposition in Prometheus' text format.

    Lines of other names are dropped unparsed: a vLLM worker exports 540 samples of which a fifth is wanted, and parsing
    all takes six times as long (20 ms).

    Raises:
        ValueError: a wanted line is not in the format.
    """
    lines = [line for line in text.splitlines() if (match := NAME.match(line)) and match.group() in names]
    try:
        return {
            (sample.name, tuple(sample.labels.items())): float(sample.value)
            for family in text_string_to_metric_families("\n".join(lines) + "\n")
            for sample in family.samples
        }
    except IndexError as error:  # what the parser makes of some lines that break off
        raise ValueError(f"a line breaks off: {error}") from None


@dataclass
class _Target:
    """One address: its scrapes, oldest first, its last error, and the task that scrapes it."""

    labels: Labels
    scrapes: deque[tuple[float, dict[Key, float]]] = field(default_factory=deque)
    error: str = "not scraped yet"
    gone_s: float | None = None


class ScrapeSource(Source):
    """Scrapes every worker and gateway of the supply that it was last asked for, in a thread of its own.

    Series carry the labels `instance` (the address), `pool` and `worker`, and every target has a series `up`, as with
    Prometheus. A target that fails is missing from then on. The first `read` starts the scraping and waits for its
    first round.
    """

    def __init__(self, *, period_s: float = 1.0, timeout_s: float = 1.0, path: str = "/metrics") -> None:
        """Set up; nothing is scraped yet.

        Args:
            period_s: between scrapes of a target.
            timeout_s: for one scrape.
            path: of the metrics.
        """
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._path = path
        self._lock = threading.Lock()
        self._targets: dict[str, _Target] = {}
        self._names: frozenset[str] = frozenset()
        self._span_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._changed: asyncio.Event | None = None
        self._closing = False
        self._ready = threading.Event()

    def read(self, names: Sequence[str], supply: Supply, span_s: float, now_s: float) -> Sequence[Series]:
        """As `Source.read`."""
        addresses: dict[str, Labels] = dict.fromkeys(supply.gateways, ())
        addresses.update({one.address: (("pool", one.pool), ("worker", one.name)) for one in supply.workers})
        with self._lock:
            self._names = frozenset(names)
            self._span_s = max(self._span_s, span_s)
            self._retarget(addresses, now_s, span_s)
        if self._thread is None or not self._thread.is_alive():
            self._start()
            self._ready.wait(self._timeout_s + 1.0)
        elif self._loop is not None and self._changed is not None:
            self._loop.call_soon_threadsafe(self._changed.set)
        with self._lock:
            series = [one for target in self._targets.items() for one in _series(*target, now_s - span_s)]
            errors = {address: target.error for address, target in self._targets.items() if target.gone_s is None}
        if addresses and not any(one.name == UP and 1.0 in one.values for one in series):
            detail = "; ".join(f"{address}: {error}" for address, error in list(errors.items())[:3])
            raise SourceError(f"none of {len(addresses)} targets could be scraped: {detail}")
        return series

    def close(self) -> None:
        """End the thread."""
        if self._loop is not None and self._thread is not None and self._changed is not None:
            self._closing = True
            self._loop.call_soon_threadsafe(self._changed.set)
            self._thread.join()
            self._thread = None

    def _retarget(self, addresses: Mapping[str, Labels], now_s: float, span_s: float) -> None:
        for address, labels in addresses.items():
            target = self._targets.setdefault(address, _Target(labels))
            target.labels, target.gone_s = labels, None
        for address, target in list(self._targets.items()):
            if address not in addresses:
                target.gone_s = now_s if target.gone_s is None else target.gone_s
                if target.gone_s < now_s - span_s:
                    del self._targets[address]

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._closing = False
        self._ready.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="scrape", daemon=True)
        self._thread.start()

    async def _run(self) -> None:
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        tasks: dict[str, asyncio.Task[None]] = {}
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not self._closing:
                with self._lock:
                    wanted = {address for address, target in self._targets.items() if target.gone_s is None}
                for address in wanted - set(tasks):
                    tasks[address] = asyncio.create_task(self._follow(session, address, tasks))
                for address in set(tasks) - wanted:
                    tasks.pop(address).cancel()
                if not self._ready.is_set():
                    await asyncio.sleep(0)
                    await self._first_round(wanted)
                    self._ready.set()
                await self._changed.wait()
                self._changed.clear()
            left = list(tasks.values())
            tasks.clear()
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _first_round(self, wanted: set[str]) -> None:
        """Until every target was tried once."""
        while not self._closing:
            with self._lock:
                if all(self._targets[one].scrapes for one in wanted if one in self._targets):
                    return
            await asyncio.sleep(0.01)

    async def _follow(
        self, session: aiohttp.ClientSession, address: str, tasks: Mapping[str, asyncio.Task[None]]
    ) -> None:
        """Scrape one target, period by period, while this task is its own among `tasks`."""
        due = time.monotonic()
        # A cancellation that comes with the client's own timeout may be taken for that and be lost: to be cancelled is
        # not enough to end.
        while tasks.get(address) is asyncio.current_task():
            at_s, samples, error = await self._scrape(session, address)
            with self._lock:
                target = self._targets.get(address)
                if target is not None:
                    target.error = error
                    target.scrapes.append((at_s, samples))
                    while target.scrapes[0][0] < at_s - 1.5 * self._span_s:
                        target.scrapes.popleft()
            # A scrape that takes longer than the period skips what it missed.
            due = max(due + self._period_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _scrape(self, session: aiohttp.ClientSession, address: str) -> tuple[float, dict[Key, float], str]:
        """When it answered, its samples with `up`, and why there are none."""
        at_s, down = time.time(), {UP_KEY: 0.0}
        try:
            async with session.get(f"http://{address}{self._path}") as response:
                at_s = time.time()
                if response.status != 200:
                    return at_s, down, f"answered {response.status}"
                body = await response.content.read(MOST_BYTES + 1)
                while len(body) <= MOST_BYTES and not response.content.at_eof():
                    body += await response.content.read(MOST_BYTES + 1 - len(body))
        except TimeoutError:
            return at_s, down, f"no answer within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return at_s, down, str(error) or type(error).__name__
        if len(body) > MOST_BYTES:
            return at_s, down, f"answered more than {MOST_BYTES} bytes"
        try:
            samples = parse(body.decode("utf-8", errors="replace"), self._names)
        except ValueError as error:
            return at_s, down, f"not in Prometheus' text format: {error}"
        return at_s, {**samples, UP_KEY: 1.0}, ""


def _series(address: str, target: _Target, from_s: float) -> list[Series]:
    """A target's samples since then, series by series."""
    at_s: dict[Key, list[float]] = {}
    values: dict[Key, list[float]] = {}
    for at, samples in target.scrapes:
        if at >= from_s:
            for key, value in samples.items():
                at_s.setdefault(key, []).append(at)
                values.setdefault(key, []).append(value)
    own = {"instance": address, **dict(target.labels)}
    return [
        Series(name, {**dict(labels), **own}, tuple(at_s[name, labels]), tuple(values[name, labels]))
        for name, labels in at_s
    ]
