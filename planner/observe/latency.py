"""TTFT and ITL of the requests that completed, put together from what gateway and engines export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planner.core.types import Known, Sla, Unknown
from planner.observe.dialects.base import EngineDialect, GatewayDialect, TtftSpan
from planner.observe.histogram import Histogram, SumOf, merge
from planner.observe.latency_histogram import LatencyHistogram
from planner.observe.series import Instance, Window

Latencies = LatencyHistogram | SumOf

#: `Known` takes no part in subtyping, so its cases are spelled out.
LatenciesReading = Known[LatencyHistogram] | Known[SumOf] | Unknown


@dataclass(frozen=True)
class Seen:
    """An instance, its window, and how old its newest scrape is in the planner's seconds."""

    instance: Instance
    window: Window
    age_s: float


def pooled(name: str, seen: Sequence[Seen], where: str) -> Known[Histogram] | Unknown:
    """Increases of one histogram over all instances together; its age is that of the oldest of their newest scrapes.

    Args:
        name: the histogram.
        seen: instances that should export it.
        where: what they are, for the reason.
    """
    if not seen:
        return Unknown(f"no metrics of any {where}")
    parts = [part for one in seen if (part := one.instance.histogram(name, one.window)) is not None]
    age = max(one.age_s for one in seen)
    flaws = [flaw for one in seen for flaw in one.instance.flaws if flaw.startswith(name)]
    if flaws:
        return Unknown(flaws[0], age)
    histogram = merge(parts)
    if histogram is None:
        return Unknown(f"no {where} exports {name}", age)
    if histogram.n <= 0:
        return Unknown(f"no request completed ({name} of every {where} stayed the same)", age)
    return Known(histogram, age)


def pooled_latency(name: str, seen: Sequence[Seen], where: str) -> Known[LatencyHistogram] | Unknown:
    """`pooled`, for a histogram of durations."""
    reading = pooled(name, seen, where)
    return reading if isinstance(reading, Unknown) else Known(LatencyHistogram.of(reading.value), reading.age_s)


def ttft(
    engine: EngineDialect,
    gateway: GatewayDialect,
    gateways: Sequence[Seen],
    workers: Mapping[str, Sequence[Seen]],
    gateway_factor: float,
) -> LatenciesReading:
    """Seconds to the first token, per request.

    A gateway that sees the first token knows it. Otherwise it is the sum of two stages: prefill, as the gateway or the
    prefill engines have it, and the decode engine's own time to its first token, which holds the hand-off, the wait for
    admission and the first step. The two are not exported per request and are taken as independent; the mean is exact.

    Args:
        engine: dialect of the engines.
        gateway: dialect of the gateway.
        gateways: instances of the gateway.
        workers: instances by role: prefill and decode, or aggregated.
        gateway_factor: planner's seconds per second of a gateway.
    """
    first: Known[LatencyHistogram] | Unknown | None = None
    if gateway.ttft is not None and (gateway.ttft_span is TtftSpan.WHOLE or "decode" in workers):
        first = _scaled(pooled_latency(gateway.ttft, gateways, "gateway"), gateway_factor)
        if gateway.ttft_span is TtftSpan.WHOLE:
            return first
    if "decode" not in workers:
        return pooled_latency(engine.ttft, workers.get("aggregated", ()), "aggregated worker")
    if first is None:
        first = pooled_latency(engine.ttft, workers.get("prefill", ()), "prefill worker")
    second = pooled_latency(engine.ttft, workers["decode"], "decode worker")
    if isinstance(first, Unknown):
        return first
    if isinstance(second, Unknown):
        return second
    return Known(SumOf(first.value, second.value), max(first.age_s, second.age_s))


def _scaled(reading: Known[LatencyHistogram] | Unknown, factor: float) -> Known[LatencyHistogram] | Unknown:
    return reading if isinstance(reading, Unknown) else Known(reading.value.scaled(factor), reading.age_s)


def answered(gateway: GatewayDialect, gateways: Sequence[Seen]) -> Known[float] | Unknown:
    """Share of the answered requests that the service did not fail; those that were wrong themselves do not count."""
    if gateway.answers is None:
        return Unknown("the gateway does not export answers by status")
    good = bad = 0.0
    for one in gateways:
        for series in one.instance.series.get(gateway.answers.name, ()):
            if not gateway.answers.matches(series.labels):
                continue
            status = series.labels.get(gateway.status_label, "")
            count = one.instance.risen(series, one.window)
            if status in gateway.failed_statuses or (status == "200" and series.labels.get(gateway.error_label)):
                bad += count
            elif status == "200":
                good += count
    if good + bad <= 0:
        return Unknown("no request was answered")
    return Known(good / (good + bad), max(one.age_s for one in gateways))


def attainment(
    ttfts: LatenciesReading,
    itls: LatenciesReading,
    answers: Known[float] | Unknown,
    sla: Sla,
) -> Known[float] | Unknown:
    """Share of the requests that attained: an estimate.

    TTFT and ITL are exported apart, so whether the same requests miss both is not known; they are taken as independent.
    Failed requests do not attain, where the gateway exports how many failed.
    """
    served = answers.value if isinstance(answers, Known) else 1.0
    if isinstance(answers, Known) and served == 0:
        return Known(0.0, answers.age_s)
    if isinstance(ttfts, Unknown):
        return ttfts
    if isinstance(itls, Unknown):
        return itls
    share = ttfts.value.share_below(sla.ttft_ms / 1000.0) * itls.value.share_below(sla.itl_ms / 1000.0)
    return Known(served * share, max(ttfts.age_s, itls.age_s))


def in_ms(reading: LatenciesReading, figure: Callable[[Latencies], float]) -> Known[float] | Unknown:
    """One figure of latencies in seconds, in ms."""
    if isinstance(reading, Unknown):
        return reading
    value = 1000.0 * float(figure(reading.value))
    if not 0 <= value < float("inf"):
        return Unknown(f"not a number: {value}", reading.age_s)
    return Known(value, reading.age_s)
