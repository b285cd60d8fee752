"""What a simulated worker holds: its queues, its KV blocks and its seats, and who gets them in the next iteration."""

from __future__ import annotations

import math
from collections import deque
from itertools import count

from worker_graph.simulated.batch import Batch
from worker_graph.simulated.request import Event, Iterations, Kind, Request, State
from worker_graph.simulated.timing import WorkerTiming


class Queues:
    """Requests by what they wait for, with the blocks and the seats (of max_num_seqs) that they have taken.

    Attributes:
        waiting: hold nothing; in order of arrival, the preempted in front.
        joining: their KV was handed over; wait for the next block.
        filling: prompts in progress.
        batch: decodes.
        fresh: decodes that have been handed over and have no token yet.
        blocks: KV blocks taken, those of hand-offs under way and of held prompts included.
        held: prompts that are done and wait for a decode worker, by name, with when they expire; soonest first.
        dropped: their clients went away; they leave at the iteration's end.
        prompt_tokens: of the iteration that was planned last.
        events: what happened, for the scheduler's caller.
    """

    def __init__(self, timing: WorkerTiming, hold_ms: float) -> None:
        self.timing = timing
        self.limits = timing.limits
        self.waiting: deque[Request] = deque()
        self.joining: deque[Request] = deque()
        self.filling: deque[Request] = deque()
        self.batch = Batch(timing.limits.block_size)
        self.fresh: list[Request] = []
        self.held: dict[str, tuple[float, Request]] = {}
        self.dropped: list[Request] = []
        self.blocks = 0
        self.prompt_tokens = 0
        self.events: list[Event | Iterations] = []
        self._hold_ms = hold_ms
        self._seats = 0
        self._sequence = count()

    def tell(self, kind: Kind, at_ms: float, request: Request) -> None:
        """Note what happened to a request."""
        self.events.append(Event(kind, at_ms, request))

    def grow(self, steps: int) -> None:
        """The running batch gains `steps` tokens each, and their blocks."""
        self.blocks += self.batch.new_blocks(steps)
        self.batch.advance(steps)

    def admit(self) -> Request | None:
        """Give the first waiting request its blocks and its seat; None when there are none."""
        request = self.waiting[0]
        need = self.batch.blocks_for(request.prompt)
        # What the running batch takes in this very iteration is no longer free.
        free = self.limits.capacity_blocks - self.blocks - self.batch.new_blocks(1)
        if self._seats >= self.limits.max_num_seqs or need > free:
            return None
        self.waiting.popleft()
        request.blocks, request.sequence = need, next(self._sequence)
        self.blocks += need
        self._seats += 1
        return request

    def give_back(self, request: Request, blocks: int) -> None:
        """Free a request's blocks and its seat."""
        self.blocks -= blocks
        self._seats -= 1
        request.blocks = 0

    def leave(self, request: Request) -> None:
        """Take a request out of the running batch, its blocks and its seat with it."""
        self.give_back(request, self.batch.leave(request))

    def _preempt(self, request: Request, now_ms: float) -> None:
        """Back to the queue's front; what it had is recomputed."""
        if request.state is State.RUNNING:
            self.leave(request)
        else:
            self.give_back(request, request.blocks)
        request.state, request.remote, request.computed = State.WAITING, False, 0
        request.preemptions += 1
        # The worker knows of it, whatever its hand-off still had to wait for.
        request.ready = self.batch.iteration
        if request.generated and math.isnan(request.preempted_ms):
            request.preempted_ms = now_ms
        self.waiting.appendleft(request)
        self.tell(Kind.PREEMPTED, now_ms, request)

    def free_blocks(self, now_ms: float) -> None:
        """Preempt until the next iteration's new blocks fit, the last admitted first."""
        while self.batch and self.blocks + self.batch.new_blocks(1) > self.limits.capacity_blocks:
            last, alone = self.batch.last_admitted(), len(self.batch) == 1
            if self.filling and (alone or self.filling[0].sequence > last.sequence):
                self._preempt(self.filling.popleft(), now_ms)
            elif alone and self.joining:
                self._preempt(self.joining.popleft(), now_ms)
            else:
                # The last one goes too where only hand-offs under way hold the rest: it comes again when they run.
                self._preempt(last, now_ms)

    def join_arrived(self, now_ms: float, decided_ms: float, limit: float) -> None:
        """Take what has been handed over, and is ready by iteration `limit`, as far as its next block fits."""
        while self.joining and self.joining[0].ready <= limit:
            request = self.joining[0]
            need = self.batch.new_blocks(1) + (1 if request.isl % self.limits.block_size == 0 else 0)
            fits = self.blocks + need <= self.limits.capacity_blocks
            if not fits and self.batch:
                return
            self.joining.popleft()
            if fits:
                request.state, request.scheduled_ms, request.fetched = State.RUNNING, decided_ms, True
                self.batch.join(request, request.isl)
                self.fresh.append(request)
            else:
                self._preempt(request, now_ms)

    def plan_prompts(self, decided_ms: float, limit: float, last_ms: float) -> float:
        """Fill the iteration's token budget with prompts that are ready by iteration `limit`; returns their time, or 0.

        `decided_ms` is when the iteration's content is settled, `last_ms` the time of the one before it.
        """
        budget = self.limits.max_num_batched_tokens - len(self.batch)
        tokens, square = 0, 0.0
        # Only the first prompt can be in its second chunk or later; it goes on along its own curve.
        before = self.filling[0].computed if self.filling else 0
        in_progress = iter(tuple(self.filling))
        while budget > 0:
            request = next(in_progress, None)
            if request is None:
                if not self.waiting or self.waiting[0].remote or self.waiting[0].ready > limit:
                    break
                if (request := self.admit()) is None:
                    break
                request.state = State.FILLING
                if math.isnan(request.scheduled_ms):
                    request.scheduled_ms = max(decided_ms, request.arrival_ms)
                self.filling.append(request)
            request.chunk = min(request.prompt - request.computed, budget)
            end = request.computed + request.chunk
            square += float(end) ** 2 - float(request.computed) ** 2
            tokens += request.chunk
            budget -= request.chunk
        self.prompt_tokens = tokens
        if tokens == 0:
            return 0.0
        if self.batch:
            linear = self.timing.linear_behind_ms(tokens, before, last_ms)
        else:
            linear = self.timing.linear_ms(tokens, before)
        return max(linear + self.limits.attention_ms_per_token2 * square, self.limits.floor_ms)

    def end(self, steps: int, first_ms: float, growth_ms: float, now_ms: float) -> None:
        """Book iterations that have just ended, whatever ended with them."""
        running, fresh = len(self.batch), len(self.fresh)
        self.grow(steps)
        self._drop()
        for request in self.fresh:
            self._first(request, now_ms, running)
        self.fresh.clear()
        while self.batch:
            left, request = self.batch.next_end()
            if left > 0:
                break
            self.leave(request)
            self._finish(request, now_ms)
        prompts, gaps = self._end_prompts(now_ms, running)
        tokens, self.prompt_tokens = self.prompt_tokens, 0
        self.events.append(Iterations(steps, first_ms, growth_ms, running, fresh, tokens, prompts, gaps))

    def _drop(self) -> None:
        for request in self.dropped:
            if request.state is State.RUNNING:
                self.leave(request)
                if request in self.fresh:
                    self.fresh.remove(request)
            elif request.state is State.FILLING:
                self.filling.remove(request)
                self.give_back(request, request.blocks)
            request.state = State.GONE
        self.dropped.clear()

    def _end_prompts(self, now_ms: float, decoded: int) -> tuple[int, tuple[float, ...]]:
        """Book the chunks that ran beside so many decodes; move on the prompts that are whole.

        Returns:
            Their number, and the gaps of preempted ones.
        """
        whole = 0
        gaps: list[float] = []
        while self.filling:
            request = self.filling[0]
            request.computed += request.chunk
            request.chunk = 0
            if request.computed < request.prompt:
                break  # the budget ended here: those behind it have not begun
            self.filling.popleft()
            whole += 1
            context = request.prompt
            request.generated += 1
            if not math.isnan(request.preempted_ms):
                gaps.append(now_ms - request.preempted_ms)
                request.preempted_ms = math.nan
            if request.generated == 1:
                self._first(request, now_ms, decoded)
            if request.hand_off:
                # Its seat is free; its blocks stay until the decode worker has fetched them.
                self._seats -= 1
                self.held[request.name] = (now_ms + self._hold_ms, request)
                self._finish(request, now_ms)
                request.state = State.HELD
            elif request.generated == request.osl:
                self.give_back(request, request.blocks)
                self._finish(request, now_ms)
            else:
                request.state = State.RUNNING
                self.batch.join(request, context)
        return whole, tuple(gaps)

    def _first(self, request: Request, now_ms: float, decoded: int) -> None:
        request.first_ms, request.streamed_ms = now_ms, self.limits.stream_ms * decoded
        self.tell(Kind.FIRST, now_ms, request)

    def _finish(self, request: Request, now_ms: float) -> None:
        request.end_ms, request.state = now_ms, State.GONE
        self.tell(Kind.FINISHED, now_ms, request)
