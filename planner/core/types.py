"""The words of the core: what was observed, what is asked for, what is decided.

Every type here is frozen, holds plain values and survives a round trip through JSON, so that a decision record can
carry them and be replayed. A measurement is `Known` or `Unknown`; nothing in the core reads a missing value as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


class Role(StrEnum):
    """What a worker does with a request."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A measured value and its age."""

    value: T
    age_s: float = 0.0
    state: Literal["known"] = "known"


@dataclass(frozen=True, slots=True)
class Unknown:
    """No trustworthy value: missing, stale, not a number or partial. `reason` says which, for people."""

    reason: str
    age_s: float | None = None
    state: Literal["unknown"] = "unknown"


@dataclass(frozen=True, slots=True)
class LengthSample:
    """Requests drawn from the joint distribution of lengths, one per position.

    Three means would hide that long prompts with short answers and short prompts with long answers load the two pools
    differently; the joint sample keeps it.
    """

    isl: tuple[int, ...]
    osl: tuple[int, ...]
    prefix_hit_tokens: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.isl)


@dataclass(frozen=True, slots=True)
class PoolState:
    """The supply of one pool as the connector reads it, in workers.

    `desired` is what the target object asks for; `ready` serve; `starting` will (asked for, not yet serving);
    `terminating` drain and still hold their GPUs. `waiting_requests` is the pool's queue, its engines' together.
    Of the starting ones, `unschedulable` found no node and `failing` crash, hang or cannot load their image; `trouble`
    says what the cluster says of these.
    """

    desired: int
    ready: int
    starting: int = 0
    terminating: int = 0
    unschedulable: int = 0
    failing: int = 0
    trouble: str = ""
    waiting_requests: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))
    running_requests: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))
    kv_usage: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen since the last tick.

    Attributes:
        interval_s: span that the counts cover.
        arrivals: requests offered to the gateway in the interval (offered, not completed: completions cap at capacity).
        dispersion: variance over mean of the arrivals per second, 1 for Poisson; the burstiness that queues feel.
        lengths: requests that completed in the interval (an OSL is known only then), possibly sampled.
        ttft_ms, itl_ms: at the SLA's percentile, over the requests that completed in the interval.
        attainment: share of the requests completed in the interval that attained.
        mean_ttft_ms: mean over the requests that completed in the interval.
        mean_itl_ms: mean over the time between any two output tokens of these, as engines and gateways export it.
        pools: supply by pool name; Unknown when the connector could not read it.
        gaps: what could not be seen of the graph, for people; with any, no pool is lowered below what is asked for now.
    """

    interval_s: float
    arrivals: Known[int] | Unknown
    dispersion: Known[float] | Unknown
    lengths: Known[LengthSample] | Unknown
    pools: Known[Mapping[str, PoolState]] | Unknown
    ttft_ms: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))
    itl_ms: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))
    attainment: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))
    mean_ttft_ms: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))
    mean_itl_ms: Known[float] | Unknown = field(default_factory=lambda: Unknown("not measured"))
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sla:
    """A request attains when its TTFT and its ITL are within these; `attainment` is the wanted share that does."""

    ttft_ms: float
    itl_ms: float
    attainment: float = 0.95


@dataclass(frozen=True, slots=True)
class Pool:
    """One (role, layout) that can be scaled: its name, the GPUs of one worker, and its bounds in workers."""

    name: str
    role: Role
    gpus_per_worker: int
    min_workers: int = 1
    max_workers: int = 64


#: Workers by pool name.
Plan = Mapping[str, int]


class Level(StrEnum):
    """How much of the planner still works, best first; a decision says which level made it."""

    MODEL = "model"
    REACTIVE = "reactive"
    HOLD = "hold"
    LAST_GOOD = "last_good"
