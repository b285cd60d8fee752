"""A request on one simulated worker, and what the scheduler tells about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple


class State(Enum):
    """Where a request is."""

    NEW = auto()
    WAITING = auto()  # in the queue; holds nothing
    MOVING = auto()  # holds blocks while its KV comes from the prefill worker
    JOINING = auto()  # its KV is here; runs as soon as its next block fits
    FILLING = auto()  # its prompt is being computed
    RUNNING = auto()  # one token an iteration
    HELD = auto()  # answered; its blocks wait for the decode worker
    GONE = auto()


@dataclass(eq=False, slots=True)
class Request:
    """One request; times in simulated ms, lengths in tokens.

    Attributes:
        isl: prompt tokens.
        osl: output tokens; it runs to exactly that many.
        name: what the other engine calls it in a hand-off.
        hand_off: keep the prompt's blocks after the answer, for a decode worker to fetch.
        remote: the prompt's KV is on a prefill worker.
        confirmed: that worker was seen to hold it; until then the request does not join.
        arrival_ms: submitted.
        scheduled_ms: when it was first decided to be in an iteration; a hand-off's transfer is over by then.
        ready: iteration from which it may be scheduled.
        first_ms: first token.
        streamed_ms: that it waits in the front end for those of the decodes beside it.
        end_ms: last token.
        generated: tokens that are booked; `Scheduler.tokens` adds those of the running segment.
        computed: prompt tokens computed; `chunk` more in the running iteration.
        blocks: KV blocks at admission; the running batch's growth comes on top.
        context: KV tokens when it joined the batch, at iteration `joined`.
        sequence: order of admission.
        preempted_ms: when it lost its blocks; its next token's gap begins there.
        transfer_ms: duration of its hand-off.
        preemptions: how often it lost its blocks.
        fetched: its prompt came from a prefill worker and was not computed here.
    """

    isl: int
    osl: int
    name: str = ""
    hand_off: bool = False
    remote: bool = False
    confirmed: bool = True
    state: State = State.NEW
    arrival_ms: float = math.nan
    scheduled_ms: float = math.nan
    first_ms: float = math.nan
    streamed_ms: float = 0.0
    end_ms: float = math.nan
    generated: int = 0
    computed: int = 0
    chunk: int = 0
    blocks: int = 0
    context: int = 0
    joined: int = 0
    sequence: int = -1
    ready: int = 0
    preempted_ms: float = math.nan
    transfer_ms: float = 0.0
    preemptions: int = 0
    fetched: bool = False
    arrived: bool = False
    turn: tuple[int, int, Request] | None = None

    @property
    def prompt(self) -> int:
        """Tokens to prefill: all that a preemption threw away is prefilled again."""
        return self.isl + self.generated


class Kind(Enum):
    """What happened to a request."""

    TRANSFER = auto()  # its blocks are reserved and the hand-off began; `confirmed` may be awaited
    ARRIVED = auto()  # the hand-off ended: the prefill worker may free its blocks
    FIRST = auto()  # first token
    FINISHED = auto()  # last token
    EXPIRED = auto()  # nobody fetched the blocks that were held for a decode worker
    PREEMPTED = auto()


class Event(NamedTuple):
    """Something happened to a request at an exact simulated time."""

    kind: Kind
    at_ms: float
    request: Request


class Iterations(NamedTuple):
    """Iterations over one unchanged batch; iteration j (from 0) took `first_ms + j * growth_ms`.

    Attributes:
        steps: iterations.
        first_ms: the first one's time.
        growth_ms: each further one's additional time.
        running: requests that gained a token in each.
        fresh: of these, requests whose first token it was: no inter-token latency.
        prompt_tokens: computed in each (only where `steps` is 1).
        prompts: requests whose prompt ended, and that gained a token with it.
        gaps_ms: time since the last token of those that had been preempted.
    """

    steps: int
    first_ms: float
    growth_ms: float
    running: int
    fresh: int
    prompt_tokens: int
    prompts: int
    gaps_ms: tuple[float, ...]
