"""What a dialect says: under which names an engine or a gateway exports what an observation needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: What a histogram exports beside its name.
HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def histogram_names(name: str) -> tuple[str, ...]:
    """The series of a histogram, as exported."""
    return tuple(name + part for part in HISTOGRAM_PARTS)


@dataclass(frozen=True, slots=True)
class Selector:
    """Series of one name; every label named in `where` has one of the given values."""

    name: str
    where: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels is meant."""
        return all(labels.get(label, "") in values for label, values in self.where.items())


@dataclass(frozen=True, slots=True)
class EngineDialect:
    """An engine's metrics.

    Attributes:
        name: how users name the dialect.
        waiting, running, kv_usage: gauges; requests, requests, and the share of KV blocks in use from 0 to 1.
        started: gauge, unix time at which the process started.
        isl, osl: histograms of tokens per completed request.
        ttft: histogram of seconds from the request's arrival at this engine to its first token.
        request_itl: histogram of seconds, one value per request: the mean time between its output tokens.
        token_itl: histogram of seconds, one value per pair of successive output tokens.
        prefix_queries: counter of prompt tokens looked up in the prefix cache.
        prefix_hits: counters of prompt tokens found in it or in a cache behind it; their sum counts.
    """

    name: str
    waiting: str
    running: str
    kv_usage: str
    started: str
    isl: str
    osl: str
    ttft: str
    request_itl: str
    token_itl: str
    prefix_queries: str
    prefix_hits: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """Every series to read."""
        gauges = (self.waiting, self.running, self.kv_usage, self.started, self.prefix_queries, *self.prefix_hits)
        histograms = (self.isl, self.osl, self.ttft, self.request_itl, self.token_itl)
        return gauges + tuple(part for name in histograms for part in histogram_names(name))


class TtftSpan(StrEnum):
    """What a gateway's latency histogram covers."""

    WHOLE = "whole"
    """From arrival at the gateway to the first token: the TTFT itself."""

    PREFILL = "prefill"
    """Until prefill has answered; the decode engine's own TTFT follows."""


@dataclass(frozen=True, slots=True)
class GatewayDialect:
    """A gateway's metrics.

    Attributes:
        name: how users name the dialect.
        arrivals: counters of offered requests, the best first; the first that a gateway exports is used.
        signs: metrics that show that it is this gateway before it has counted any request; a gateway that exports
            neither these nor a counter of arrivals is taken for another program, not for an idle one.
        ttft: histogram of seconds, or None where only the engines know.
        ttft_span: what it covers.
        answers: counter of answered requests by status, or None.
        failed_statuses: its values of `status_label` that mean a failure of the service rather than of the request.
        status_label, error_label: its labels; a non-empty error on a status of 200 is a stream that broke.
    """

    name: str
    arrivals: tuple[Selector, ...]
    signs: tuple[str, ...] = ()
    ttft: str | None = None
    ttft_span: TtftSpan = TtftSpan.WHOLE
    answers: Selector | None = None
    failed_statuses: frozenset[str] = frozenset()
    status_label: str = "status_code"
    error_label: str = "error_code"

    def names(self) -> tuple[str, ...]:
        """Every series to read."""
        found = (*(selector.name for selector in self.arrivals), *self.signs)
        if self.ttft is not None:
            found += histogram_names(self.ttft)
        if self.answers is not None:
            found += (self.answers.name,)
        return found
