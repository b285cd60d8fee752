"""The scheduler in real time: a clock that may run faster, one timer for the next event, and the calls that wait."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from uuid import uuid4

from worker_graph.simulated.handoff import HandOffError, Peers, Source
from worker_graph.simulated.metrics import EngineMetrics
from worker_graph.simulated.request import Event, Iterations, Kind, Request, State
from worker_graph.simulated.scheduler import HOLD_MS, Scheduler
from worker_graph.simulated.timing import WorkerTiming

log = logging.getLogger(__name__)


class Clock:
    """Simulated milliseconds since the engine's start; `speed_up` of them pass in a real one."""

    def __init__(self, speed_up: float) -> None:
        self._zero = time.monotonic()
        self._per_s = 1000.0 * speed_up

    def now_ms(self) -> float:
        """Simulated time."""
        return (time.monotonic() - self._zero) * self._per_s

    def at_s(self, simulated_ms: float) -> float:
        """When that time comes, on the event loop's clock."""
        return self._zero + simulated_ms / self._per_s


class Call:
    """One request as its HTTP handler sees it.

    Attributes:
        request: the scheduler's side of it.
        stream: wake the handler for tokens on the way, not only at the end.
        source: where its prompt's KV is fetched from.
        ended: the last token is there, or `error` is.
        error: why there will be no more tokens.
    """

    def __init__(self, request: Request, *, stream: bool, source: Source | None) -> None:
        self.request, self.stream, self.source = request, stream, source
        self.ended = False
        self.error = ""
        self._news = False
        self._waiter: asyncio.Future[None] | None = None

    async def news(self) -> None:
        """Wait until there are tokens, the end or an error."""
        if not self._news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._news = False

    def wake(self) -> None:
        """There is news."""
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Engine:
    """One simulated engine.

    Late timers make no iteration longer: the scheduler's times are absolute, and what is due is carried out at its own
    time, whenever the loop gets to it.

    Args:
        timing: its speed and limits.
        model: the model's name.
        speed_up: simulated seconds in a real one.
        flush_ms: real time between two chunks of one stream.
        hold_ms: simulated time that a prefill worker keeps blocks for a decode worker.
        peers: the way to prefill engines.
    """

    def __init__(
        self,
        timing: WorkerTiming,
        model: str,
        *,
        speed_up: float = 1.0,
        flush_ms: float = 20.0,
        hold_ms: float = HOLD_MS,
        peers: Peers | None = None,
    ) -> None:
        self.scheduler = Scheduler(timing, hold_ms=hold_ms)
        self.metrics = EngineMetrics(model, self.scheduler)
        self.model = model
        self.engine_id = str(uuid4())
        self.clock = Clock(speed_up)
        self.peers = peers or Peers()
        self._flush_s = flush_ms / 1000.0
        self._now_ms = 0.0
        self._calls: dict[Request, Call] = {}
        self._flowing: dict[Call, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def load(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    async def idle(self) -> None:
        """Wait until no call is open."""
        await self._idle.wait()

    # Calls.

    def submit(self, request: Request, *, stream: bool = False, source: Source | None = None) -> Call:
        """A request comes; it was read from the socket now.

        Raises:
            ValueError: the worker could never hold it.
        """
        call = Call(request, stream=stream, source=source)
        request.remote, request.confirmed = source is not None, source is None
        self._calls[request] = call
        try:
            self.scheduler.submit(request, self._tick())
        except ValueError:
            del self._calls[request]
            raise
        self._idle.clear()
        self._advance()
        return call

    def tokens(self, call: Call) -> int:
        """Output tokens that the call has by now."""
        return self.scheduler.tokens(call.request, self._now_ms)

    def leave(self, call: Call) -> None:
        """The handler is done with a call; one that has not ended is aborted."""
        if call.request.state in (State.HELD, State.GONE):
            self._end(call)  # the loop is done with it, too
        elif not call.ended:
            self._abort(call, "abort")

    def release(self, name: str) -> bool:
        """A decode engine has fetched a hand-off."""
        known = self.scheduler.release(name, self._tick())
        if not known:
            self.metrics.count("nixl_num_notifications_after_expiry")
        self._advance()
        return known

    def settle(self) -> None:
        """Bring every counter up to now."""
        self._handle(self.scheduler.settle(self._tick()))
        self._arm()

    async def close(self) -> None:
        """Stop the timers and the talk with other engines."""
        for handle in (self._timer, self._flush):
            if handle is not None:
                handle.cancel()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.peers.close()

    # Time.

    def _tick(self) -> float:
        self._now_ms = max(self._now_ms, self.clock.now_ms())
        return self._now_ms

    def _advance(self) -> None:
        self._handle(self.scheduler.advance(self._tick()))
        self._arm()

    def _arm(self) -> None:
        """One timer for whatever comes next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.scheduler.next_event_ms()
        if due < math.inf:
            self._timer = asyncio.get_running_loop().call_at(self.clock.at_s(due), self._advance)

    def _flush_now(self) -> None:
        self._flush = None
        self._advance()
        for call in self._flowing:
            call.wake()
        self._arm_flush()

    def _arm_flush(self) -> None:
        if self._flowing and self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(self._flush_s, self._flush_now)

    # Events.

    def _handle(self, events: Iterable[Event | Iterations]) -> None:
        events = list(events)
        self.metrics.note(events)
        for event in events:
            if isinstance(event, Iterations):
                continue
            call = self._calls.get(event.request)
            if call is None:
                continue  # its client went away while it was in an iteration
            if event.kind is Kind.FIRST and call.stream:
                self._after_front_end(event, self._flow, call)
            elif event.kind is Kind.FINISHED:
                self._after_front_end(event, self._end, call)
            elif event.kind is Kind.TRANSFER and call.source is not None:
                self._spawn(self._pull(call, call.source))
            elif event.kind is Kind.ARRIVED:
                self._fetched(call)

    def _after_front_end(self, event: Event, act: Callable[[Call], None], call: Call) -> None:
        """What the loop has made reaches the client once it has passed the front end, which delays no one else."""
        front_ms = self.scheduler.front_end_ms(event.request)
        if front_ms > 0.0:
            asyncio.get_running_loop().call_at(self.clock.at_s(event.at_ms + front_ms), act, call)
        else:
            act(call)

    def _flow(self, call: Call) -> None:
        if not call.ended:
            self._flowing[call] = None
            call.wake()
            self._arm_flush()

    def _end(self, call: Call) -> None:
        if call.ended:
            return
        call.ended = True
        self._flowing.pop(call, None)
        del self._calls[call.request]
        if not self._calls:
            self._idle.set()
        call.wake()

    def _abort(self, call: Call, reason: str) -> None:
        self.metrics.count("request_success", label=reason)
        self._end(call)
        if reason == "abort":
            self._fetched(call)  # vLLM, too, lets go of what it will not fetch
        self.scheduler.abort(call.request, self._tick())
        self._advance()

    # Hand-offs.

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pull(self, call: Call, source: Source) -> None:
        try:
            await self.peers.pull(source)
        except HandOffError as error:
            # kv_load_failure_policy=fail, vLLM's default.
            self.metrics.count("nixl_num_failed_transfers")
            log.warning("KV of %s cannot be fetched: %s", source.request_id, error)
            if not call.ended:
                call.error = "KV cache load failed"
                self._abort(call, "error")
            return
        if not call.ended:
            self.scheduler.confirm(call.request, self._tick())
            self._advance()

    def _fetched(self, call: Call) -> None:
        """Nothing more is wanted from the prefill engine."""
        if call.source is not None:
            self._spawn(self._release(call.source))
            call.source = None

    async def _release(self, source: Source) -> None:
        try:
            await self.peers.release(source)
        except HandOffError as error:
            self.metrics.count("nixl_num_failed_notifications")
            self.metrics.count("nixl_num_failed_transfers")
            log.warning("blocks of %s are left to expire: %s", source.request_id, error)
