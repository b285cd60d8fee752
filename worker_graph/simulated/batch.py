"""The running batch, and segments: runs of iterations over a batch that does not change.

While nothing joins or ends, every iteration adds one token to each running request and the iteration time is linear in
the KV tokens between two nodes of the table. The time of k iterations is an arithmetic series, and a thousand of them
cost as much as one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import count

from worker_graph.simulated.request import Request


class Segment:
    """`steps` iterations from `start_ms` on; the first takes `first_ms`, each further one `growth_ms` more."""

    __slots__ = ("first_ms", "growth_ms", "start_ms", "steps")

    def __init__(self) -> None:
        self.start_ms = self.first_ms = self.growth_ms = 0.0
        self.steps = 0

    def elapsed_ms(self, steps: int) -> float:
        """Time of the first `steps` iterations."""
        return self.first_ms * steps + self.growth_ms * (steps * (steps - 1) * 0.5)

    @property
    def end_ms(self) -> float:
        """When its last iteration ends; infinite without iterations."""
        return self.start_ms + self.elapsed_ms(self.steps) if self.steps else math.inf

    def boundary_after(self, now_ms: float) -> int:
        """Iterations up to the first boundary at or after `now_ms`: 1 to `steps`."""
        target = now_ms - self.start_ms
        guess = max(1, min(self._about(target), self.steps))
        while guess > 1 and self.elapsed_ms(guess - 1) >= target:
            guess -= 1
        while guess < self.steps and self.elapsed_ms(guess) < target:
            guess += 1
        return guess

    def done(self, now_ms: float) -> int:
        """Iterations that ended at or before `now_ms`; the last one is left to the segment's own end."""
        if self.steps < 2:
            return 0
        boundary = self.boundary_after(now_ms)
        return (
            boundary if boundary < self.steps and self.elapsed_ms(boundary) <= now_ms - self.start_ms else boundary - 1
        )

    def book(self, steps: int) -> None:
        """Take the first `steps` iterations, fewer than all, out of the segment."""
        self.start_ms += self.elapsed_ms(steps)
        self.first_ms += self.growth_ms * steps
        self.steps -= steps

    def _about(self, target_ms: float) -> int:
        half = 0.5 * self.growth_ms
        linear = self.first_ms - half
        if half > 0.0:
            return int((math.sqrt(linear * linear + 4.0 * half * max(target_ms, 0.0)) - linear) / (2.0 * half))
        return min(int(target_ms / linear), self.steps) if linear > 0.0 else self.steps


class Batch:
    """The requests that gain a token in every iteration, and the KV that they hold together.

    Requests are not touched by an iteration: each remembers the iteration at which it joined, a heap knows which ends
    next, and `phase` counts by the iteration's residue how many need a new block.
    """

    def __init__(self, block_size: int) -> None:
        self.iteration = 0
        self.kv_tokens = 0
        self._block = block_size
        self._phase = [0] * block_size
        self._ends: list[tuple[int, int, Request]] = []
        self._members: dict[Request, None] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._members)

    def blocks_for(self, tokens: int) -> int:
        """KV blocks that hold this many tokens."""
        return -(-tokens // self._block)

    def new_blocks(self, steps: int) -> int:
        """Blocks that the batch takes in its next `steps` iterations."""
        whole, rest = divmod(steps, self._block)
        need = whole * len(self._members)
        for j in range(self.iteration, self.iteration + rest):
            need += self._phase[j % self._block]
        return need

    def advance(self, steps: int) -> None:
        """Every request gains `steps` tokens."""
        self.kv_tokens += len(self._members) * steps
        self.iteration += steps

    def join(self, request: Request, context: int) -> None:
        """Put a request with `context` KV tokens into the batch."""
        request.context, request.joined = context, self.iteration
        self._phase[(self.iteration - context) % self._block] += 1
        self.kv_tokens += context
        request.turn = (self.iteration + request.osl - request.generated, next(self._order), request)
        heapq.heappush(self._ends, request.turn)
        self._members[request] = None

    def leave(self, request: Request) -> int:
        """Take a request out, its tokens booked; returns the blocks that it held."""
        grown = self.iteration - request.joined
        request.generated += grown
        tokens = request.context + grown
        self._phase[(request.joined - request.context) % self._block] -= 1
        self.kv_tokens -= tokens
        del self._members[request]
        request.turn = None
        return request.blocks + self.blocks_for(tokens) - self.blocks_for(request.context)

    def next_end(self) -> tuple[int, Request]:
        """Iterations until the first request ends, and that request; the batch is not empty."""
        while self._ends[0][2].turn is not self._ends[0]:
            heapq.heappop(self._ends)  # left before its end
        return self._ends[0][0] - self.iteration, self._ends[0][2]

    def last_admitted(self) -> Request:
        """The request that was admitted last; the batch is not empty."""
        return max(self._members, key=lambda request: request.sequence)
