"""A slow and obvious simulator of one worker: every iteration is stepped, every count is summed anew.

It states the scheduling rules once more, in plain lists and without counters that are kept up to date, so that the
kernel's event skipping and bookkeeping can be held against it. Requests of one workload need distinct lengths and
arrivals: at exact ties the order of events is the kernel's own affair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.timing import EngineTiming, TransferTiming


@dataclass(eq=False)
class Request:
    """One request. `at_ms`: when it reaches this worker; `kv`: tokens in the cache; `remote`: prefilled elsewhere;
    `here_ms`: when what a hand-off brings is here."""

    at_ms: float
    isl: int
    osl: int
    hit: int = 0
    remote: bool = False
    generated: int = 0
    computed: int = 0
    kv: int = 0
    blocks: int = 0
    sequence: int = -1
    here_ms: float = math.nan
    first_ms: float = math.nan
    streamed_ms: float = 0.0
    end_ms: float = math.nan

    @property
    def prompt(self) -> int:
        """Tokens to prefill: all that a preemption threw away is prefilled again."""
        return self.isl + self.generated

    @property
    def cached(self) -> int:
        return self.hit if self.generated == 0 else 0


class Stepwise:
    """One worker: aggregated, decode (with `transfer`) or prefill (`decodes` false: a request ends with its prompt)."""

    def __init__(self, timing: EngineTiming, transfer: TransferTiming | None = None, *, decodes: bool = True) -> None:
        self.timing, self.transfer, self.decodes = timing, transfer, decodes
        self.capacity = timing.kv_capacity_tokens // timing.block_size
        self.now = 0.0
        #: when the last three iterations began, the latest last.
        self.began = [-math.inf] * 3
        self.idle = True
        #: what posting the hand-offs that begin now adds to the iteration that begins now.
        self.posting = 0.0
        self.sequence = 0
        self.iterations = 0
        self.preempted = 0
        self.waiting: list[Request] = []
        self.filling: list[Request] = []
        self.moving: list[tuple[float, Request]] = []
        self.joining: list[Request] = []
        self.running: list[Request] = []

    def run(self, requests: Sequence[Request]) -> None:
        """Serve all requests to their ends."""
        coming = sorted(requests, key=lambda r: r.at_ms)
        while True:
            while coming and coming[0].at_ms <= self.now:
                request = coming.pop(0)
                request.computed = request.hit
                self.waiting.append(request)
            self.moving.sort(key=lambda move: move[0])
            while self.moving and self.moving[0][0] <= self.now:
                end, request = self.moving.pop(0)
                request.here_ms = end
                self.joining.append(request)
            if not self._step(take_all=self.idle or not self.timing.ahead) and not self._step(take_all=True):
                self.idle, self.posting = True, 0.0
                events = [r.at_ms for r in coming[:1]] + [end for end, _ in self.moving]
                if not events:
                    return
                self.now = min(events)

    def _blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.timing.block_size)

    def _held(self) -> list[Request]:
        return [*self.filling, *self.joining, *self.running, *(request for _, request in self.moving)]

    def _used(self) -> int:
        return sum(request.blocks for request in self._held())

    def _growth(self) -> int:
        """Blocks that the running batch takes in the next iteration."""
        return sum(self._blocks(r.kv + 1) - r.blocks for r in self.running)

    def _admit(self, request: Request, tokens: int) -> bool:
        need = self._blocks(tokens)
        if len(self._held()) >= self.timing.max_num_seqs or self._used() + self._growth() + need > self.capacity:
            return False
        request.blocks, request.sequence = need, self.sequence
        self.sequence += 1
        self.waiting.remove(request)
        return True

    def _preempt(self, request: Request, home: list[Request]) -> None:
        home.remove(request)
        request.blocks, request.kv, request.remote = 0, 0, False
        request.computed = request.cached
        self.waiting.insert(0, request)
        self.preempted += 1

    def _free(self) -> None:
        while self.running and self._used() + self._growth() > self.capacity:
            last = max(self.running, key=lambda r: r.sequence)
            if self.filling and (len(self.running) == 1 or self.filling[0].sequence > last.sequence):
                self._preempt(self.filling[0], self.filling)
            elif len(self.running) == 1 and self.joining:
                self._preempt(self.joining[0], self.joining)
            else:
                self._preempt(last, self.running)

    def _join(self, take_all: bool) -> None:
        while self.joining:
            request = self.joining[0]
            # A transfer that ends while iteration k runs is seen by the next one to be launched, k + 2, with whose end
            # k + 4 is decided.
            if not take_all and request.here_ms > self.began[-3]:
                return
            own = self._blocks(request.isl + 1) - request.blocks
            if self._used() + self._growth() + own <= self.capacity:
                self.joining.remove(request)
                request.kv = request.isl
                self.running.append(request)
            elif self.running:
                return
            else:
                self._preempt(request, self.joining)

    def _schedule(self, take_all: bool) -> list[tuple[Request, int]]:
        """The iteration's prompt chunks."""
        budget = self.timing.max_num_batched_tokens - len(self.running)
        chunks: list[tuple[Request, int]] = []
        for request in self.filling:
            if budget > 0:
                chunks.append((request, min(budget, request.prompt - request.computed)))
                budget -= chunks[-1][1]
        while (
            budget > 0
            and self.waiting
            and not self.waiting[0].remote
            # This iteration was decided when the last one began.
            and (take_all or self.waiting[0].at_ms <= self.began[-1])
            and self._admit(request := self.waiting[0], request.prompt)
        ):
            self.filling.append(request)
            chunks.append((request, min(budget, request.prompt - request.computed)))
            budget -= chunks[-1][1]
        return chunks

    def _duration(self, chunks: list[tuple[Request, int]]) -> float:
        timing = self.timing
        decode = 0.0
        if self.running:
            decode = float(timing.iteration_ms(len(self.running), sum(r.kv for r in self.running)))
        if not chunks:
            return decode
        first = chunks[0][0]
        before = first.computed - first.cached
        upto = before + sum(tokens for _, tokens in chunks)

        def part(hidden: bool) -> float:
            start = float(timing.linear_ms(before, hidden=hidden)) if before > 0 else 0.0
            return float(timing.linear_ms(upto, hidden=hidden)) - start

        linear = part(hidden=False)
        if self.running:
            hidden = part(hidden=True)
            linear = max(hidden, linear - (self.now - self.began[-1])) if timing.exposed else hidden
        square = sum((r.computed + tokens) ** 2 - r.computed**2 for r, tokens in chunks)
        prompts = max(linear + timing.attention_ms_per_token2 * square, timing.floor_ms)
        beside = timing.mixed_ms_per_request * len(self.running)
        return max(prompts + beside + decode - timing.shared_ms, decode) if self.running else prompts

    def _step(self, *, take_all: bool) -> bool:
        """One iteration; false when nothing was decided."""
        self._free()
        self._join(take_all)
        while (
            self.transfer is not None
            and self.waiting
            and self.waiting[0].remote
            and self._admit(request := self.waiting[0], request.isl)
        ):
            self.moving.append((self.now + float(self.transfer.at(request.isl)), request))
            self.posting += float(self.transfer.post_at(request.isl))
        chunks = self._schedule(take_all)
        if not chunks and not self.running:
            return False
        self.idle = False
        duration = self._duration(chunks) + self.posting
        self.posting = 0.0
        self.began = [*self.began[1:], self.now]
        self.now += duration
        self.iterations += 1
        assert self._used() + self._growth() <= self.capacity
        decoded = len(self.running)
        for request in list(self.running):
            request.kv += 1
            request.blocks = self._blocks(request.kv)
            self._token(request, decoded)
        for request, tokens in chunks:
            request.computed += tokens
            if request.computed == request.prompt:
                self.filling.remove(request)
                request.kv = request.prompt
                self.running.append(request)
                self._token(request, decoded)
        return True

    def _token(self, request: Request, decoded: int) -> None:
        request.generated += 1
        if request.generated == 1:
            request.first_ms = self.now
            # Of the tokens of one iteration that of a new request passes the front end last.
            request.streamed_ms = self.timing.stream_ms * decoded
        if request.generated == request.osl or not self.decodes:
            request.end_ms = self.now
            self.running.remove(request)
