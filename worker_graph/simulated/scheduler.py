"""vLLM's V1 scheduler on one simulated worker: no clock, no I/O; time comes in, events at exact times go out.

Running decodes first, then prompts in progress, then the waiting queue in order of arrival, within
max_num_batched_tokens, max_num_seqs and free KV blocks; prompts in chunks; when blocks run out, the request admitted
last is preempted and recomputed. A hand-off reserves its blocks on the decode worker before its KV is fetched and stays
on the prefill worker until then. The rules are those of the offline simulator, its simplifications included: a prompt's
blocks are reserved whole at admission.
"""

from __future__ import annotations

import heapq
import math

from worker_graph.simulated.batch import Segment
from worker_graph.simulated.queues import Queues
from worker_graph.simulated.request import Event, Iterations, Kind, Request, State
from worker_graph.simulated.timing import WorkerTiming

#: How long a prefill worker keeps blocks for a decode worker: VLLM_NIXL_ABORT_REQUEST_TIMEOUT's default.
HOLD_MS = 480_000.0

#: Whole iterations for which an engine that schedules ahead lets a prompt and a hand-off wait, beside the running one:
#: the next is decided already; finished transfers are looked for when one is launched and known when it has ended.
PROMPT_LAG, HAND_OFF_LAG = 1, 3


class Scheduler:
    """One worker.

    Every method that takes `now_ms` first carries out what is due by then; times must not go back. What happened is
    returned by the next `advance`.
    """

    def __init__(self, timing: WorkerTiming, *, hold_ms: float = HOLD_MS) -> None:
        self.timing = timing
        self.limits = timing.limits
        self.queues = Queues(timing, hold_ms)
        self.moving = 0
        self._segment = Segment()
        #: when the next iteration is decided ahead: the last one's beginning.
        self._decided_ms = -math.inf
        #: how long the last one took.
        self._last_ms = 0.0
        #: what posting the hand-offs that begin now adds to the iteration that begins now.
        self._posted_ms = 0.0
        self._transfers: list[tuple[float, int, Request]] = []

    @property
    def blocks(self) -> int:
        """KV blocks taken."""
        return self.queues.blocks

    @property
    def running(self) -> int:
        """Requests in iterations: prompts in progress and decodes."""
        return len(self.queues.filling) + len(self.queues.batch)

    @property
    def held(self) -> int:
        """Requests whose blocks wait for a decode worker."""
        return len(self.queues.held)

    def next_event_ms(self) -> float:
        """When something happens by itself; infinite when nothing will."""
        transfer = self._transfers[0][0] if self._transfers else math.inf
        expiry = next(iter(self.queues.held.values()))[0] if self.queues.held else math.inf
        return min(self._segment.end_ms, transfer, expiry)

    def advance(self, now_ms: float) -> list[Event | Iterations]:
        """Carry out everything up to and including `now_ms`; returns what happened since the last call, in order."""
        self._run(now_ms)
        events, self.queues.events = self.queues.events, []
        return events

    def settle(self, now_ms: float) -> list[Event | Iterations]:
        """`advance`, and the iterations of the running segment that are over are booked too."""
        self._run(now_ms)
        steps = self._segment.done(now_ms)
        if steps > 0:
            first, growth = self._segment.first_ms, self._segment.growth_ms
            self.queues.events.append(Iterations(steps, first, growth, len(self.queues.batch), 0, 0, 0, ()))
            self._segment.book(steps)
            self.queues.grow(steps)
        return self.advance(now_ms)

    def tokens(self, request: Request, now_ms: float) -> int:
        """Output tokens of a request at `now_ms`, to which the scheduler was advanced."""
        if request.state is not State.RUNNING:
            return request.generated
        return request.generated + self.queues.batch.iteration - request.joined + self._segment.done(now_ms)

    def submit(self, request: Request, now_ms: float) -> None:
        """A request comes.

        Raises:
            ValueError: the worker could never hold it.
        """
        tokens = request.isl if request.hand_off else request.isl + request.osl
        if self.queues.batch.blocks_for(tokens) > self.limits.capacity_blocks:
            raise ValueError(f"{tokens} tokens do not fit {self.limits.capacity_blocks} blocks")
        self._run(now_ms)
        request.arrival_ms, request.state = now_ms, State.WAITING
        self.queues.waiting.append(request)
        self._come(request, PROMPT_LAG, now_ms)

    def confirm(self, request: Request, now_ms: float) -> None:
        """The prefill worker was seen to hold the KV of this hand-off."""
        self._run(now_ms)
        request.confirmed = True
        if request.state is State.MOVING and request.arrived:
            self._arrive(request, now_ms)

    def release(self, name: str, now_ms: float) -> bool:
        """The decode worker has fetched a hand-off: its blocks are free. False when none of that name is held."""
        self._run(now_ms)
        return self._release(name, now_ms)

    def front_end_ms(self, request: Request) -> float:
        """Time of a request outside the loop; what is handed over has passed the prefill worker's front end."""
        own_ms = 0.0 if request.remote or request.fetched else self.timing.front_end_ms(request.isl)
        return own_ms + request.streamed_ms

    def holds(self, name: str) -> bool:
        """Whether a hand-off of that name waits here."""
        return name in self.queues.held

    def abort(self, request: Request, now_ms: float) -> None:
        """The client went away; what is in an iteration leaves at its end, as in vLLM."""
        self._run(now_ms)
        if request.state in (State.FILLING, State.RUNNING):
            self.queues.dropped.append(request)
            self._cut(now_ms)
        elif request.state is State.HELD:
            self._release(request.name, now_ms)
        elif request.state is not State.GONE:
            if request.state is State.WAITING:
                self.queues.waiting.remove(request)
            else:
                if request.state is State.JOINING:
                    self.queues.joining.remove(request)
                else:
                    self.moving -= 1
                self.queues.give_back(request, request.blocks)
            request.state = State.GONE
            if self.queues.waiting or self.queues.joining:
                self._cut(now_ms)

    # What is due.

    def _run(self, until_ms: float) -> None:
        while True:
            now = self.next_event_ms()
            if now > until_ms or now == math.inf:
                return
            if self._segment.end_ms <= now:
                segment, steps = self._segment, self._segment.steps
                self._decided_ms = segment.start_ms + segment.elapsed_ms(steps - 1)
                self._last_ms = now - self._decided_ms
                segment.steps = 0
                self.queues.end(steps, segment.first_ms, segment.growth_ms, now)
                self._begin_segment(now)
            elif self._transfers and self._transfers[0][0] <= now:
                request = heapq.heappop(self._transfers)[2]
                if request.state is State.MOVING:
                    request.arrived = True
                    if request.confirmed:
                        self._arrive(request, now)
            else:
                name, (_, request) = next(iter(self.queues.held.items()))
                self.queues.tell(Kind.EXPIRED, now, request)
                self._release(name, now)

    def _cut(self, now_ms: float) -> None:
        """Something changed: end the segment at the first iteration boundary from now on; an idle worker begins."""
        if self._segment.steps == 0:
            self._begin_segment(now_ms)
        elif self._segment.steps > 1:
            self._segment.steps = self._segment.boundary_after(now_ms)

    def _come(self, request: Request, lag: int, now_ms: float) -> None:
        """A request can be scheduled; on an idle worker at once."""
        idle = self._segment.steps == 0
        request.ready = self.queues.batch.iteration
        self._cut(now_ms)
        if self.limits.ahead and not idle:
            request.ready += self._segment.steps + lag

    def _release(self, name: str, now_ms: float) -> bool:
        if name not in self.queues.held:
            return False
        _, request = self.queues.held.pop(name)
        request.state = State.GONE
        self.queues.blocks -= request.blocks
        if self.queues.waiting:
            self._cut(now_ms)
        return True

    def _arrive(self, request: Request, now_ms: float) -> None:
        request.state = State.JOINING
        self.moving -= 1
        self.queues.joining.append(request)
        self.queues.tell(Kind.ARRIVED, now_ms, request)
        self._come(request, HAND_OFF_LAG, now_ms)

    # One segment.

    def _begin_segment(self, now_ms: float) -> None:
        """Choose what runs from now on; without work the worker idles."""
        segment = self._segment
        self._posted_ms = 0.0
        if self.limits.ahead:
            prompts = self._choose(now_ms, self._decided_ms, self.queues.batch.iteration)
            if prompts == 0.0 and not self.queues.batch:
                # Nothing was decided, so nothing runs by which what waits could be missed.
                prompts = self._choose(now_ms, now_ms, math.inf)
        else:
            prompts = self._choose(now_ms, now_ms, math.inf)
        running = len(self.queues.batch)
        segment.start_ms = now_ms
        if prompts > 0.0:
            decode = self.timing.decode_ms(running, self.queues.batch.kv_tokens) if running else 0.0
            segment.first_ms = self.timing.mixed_ms(prompts, decode, running) if running else prompts
            segment.first_ms += self._posted_ms
            segment.steps, segment.growth_ms = 1, 0.0
        elif running:
            segment.first_ms = self.timing.decode_ms(running, self.queues.batch.kv_tokens) + self._posted_ms
            segment.growth_ms = self.timing.decode_rise_ms(running, self.queues.batch.kv_tokens) * running
            segment.steps = 1 if self.queues.fresh or self._posted_ms else self._segment_length()
        else:
            segment.steps = 0

    def _choose(self, now_ms: float, decided_ms: float, limit: float) -> float:
        """Choose the next iteration from what is ready by iteration `limit`; returns the time of its prompts, or 0."""
        self.queues.free_blocks(now_ms)
        self.queues.join_arrived(now_ms, decided_ms, limit)
        self._start_transfers(now_ms)
        if not (self.queues.filling or self.queues.waiting):
            return 0.0
        return self.queues.plan_prompts(decided_ms, limit, self._last_ms)

    def _segment_length(self) -> int:
        """Iterations until a request ends or is ready, a KV node is crossed or blocks might run out; at least 1."""
        running = len(self.queues.batch)
        steps = float(self.queues.batch.next_end()[0])
        if self.limits.ahead:
            for queue in (self.queues.waiting, self.queues.joining):
                if queue and queue[0].ready > self.queues.batch.iteration:
                    steps = min(steps, queue[0].ready - self.queues.batch.iteration)
        steps = min(steps, self.timing.tokens_to_node(self.queues.batch.kv_tokens) // running + 1)
        # Every running request takes at most one block in `block_size` iterations.
        spare = (self.limits.capacity_blocks - self.queues.blocks) // running
        return max(1, int(min(steps, spare * self.limits.block_size)))

    def _start_transfers(self, now_ms: float) -> None:
        """Reserve blocks for waiting hand-offs and start their transfers, in order."""
        while self.queues.waiting and self.queues.waiting[0].remote and (request := self.queues.admit()) is not None:
            request.state, request.transfer_ms = State.MOVING, self.timing.transfer_ms(request.isl)
            self._posted_ms += self.timing.post_ms(request.isl)
            self.moving += 1
            heapq.heappush(self._transfers, (now_ms + request.transfer_ms, request.sequence, request))
            self.queues.tell(Kind.TRANSFER, now_ms, request)
