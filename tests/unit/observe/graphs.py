"""A graph of three workers and a gateway whose counters are moved by hand, and an observer that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.connectors.base import Supply, Worker, WorkerStatus
from planner.core.types import Pool, PoolState, Role, Sla
from planner.observe.base import Series, Source, SourceError
from planner.observe.dialects import engine_dialect, gateway_dialect
from planner.observe.observer import Observer

GATEWAY, PREFILL, DECODE, DECODE2 = "10.0.0.1:29000", "10.0.0.2:8000", "10.0.0.3:8000", "10.0.0.4:8000"
SLA = Sla(ttft_ms=500.0, itl_ms=50.0, attainment=0.9)
POOLS = (Pool("prefill", Role.PREFILL, 1), Pool("decode", Role.DECODE, 1))
ARRIVALS = 'smg_http_requests_total{method="POST",path="/v1/completions"}'
START = 1_000_000.0

Samples = Mapping[str, float]


def key(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Name and labels of `name{a="b",…}`."""
    name, _, rest = text.partition("{")
    pairs = [pair.split("=") for pair in rest.rstrip("}").split(",") if pair]
    return name, tuple((label, value.strip('"')) for label, value in pairs)


def histogram(name: str, bounds: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """A histogram as exported."""
    made = {f'{name}_bucket{{le="{bound:g}"}}': float(sum(v <= bound for v in values)) for bound in bounds}
    made[f'{name}_bucket{{le="+Inf"}}'] = made[f"{name}_count"] = float(len(values))
    made[f"{name}_sum"] = float(sum(values))
    return made


class FakeSource(Source):
    """Scrapes that a test wrote down."""

    def __init__(self) -> None:
        self.scrapes: dict[str, list[tuple[float, Samples]]] = {}
        self.error: str | None = None
        self.labels: dict[str, str] = {}

    def scrape(self, address: str, at_s: float, samples: Samples) -> None:
        self.scrapes.setdefault(address, []).append((at_s, {"up": 1.0, **samples}))

    def read(
        self,
        names: Sequence[str],
        supply: Supply,  # noqa: ARG002 - part of the interface
        span_s: float,
        now_s: float,
    ) -> Sequence[Series]:
        if self.error is not None:
            raise SourceError(self.error)
        found: dict[tuple[str, object], list[tuple[float, float]]] = {}
        for address, scrapes in self.scrapes.items():
            for at, samples in scrapes:
                if now_s - span_s < at <= now_s:
                    for text, value in samples.items():
                        name, labels = key(text)
                        if name in names:
                            found.setdefault((name, (*labels, ("instance", address))), []).append((at, value))
        return [
            Series(name, {**dict(labels), **self.labels}, *zip(*rows, strict=True))  # type: ignore[call-overload]
            for (name, labels), rows in found.items()
        ]


def worker(address: str, pool: str, status: WorkerStatus = WorkerStatus.READY) -> Worker:
    return Worker(f"{pool}-{address}", pool, status, address)


def supply(*workers: Worker, gateways: Sequence[str] = (GATEWAY,)) -> Supply:
    """The three workers unless told otherwise."""
    members = workers or (worker(PREFILL, "prefill"), worker(DECODE, "decode"), worker(DECODE2, "decode"))
    counts = {name: sum(one.pool == name for one in members) for name in ("prefill", "decode")}
    return Supply({name: PoolState(n, n) for name, n in counts.items()}, tuple(members), tuple(gateways))


def observer(source: Source, gateway: str = "smg", **options: float) -> Observer:
    return Observer(source, engine_dialect("vllm"), gateway_dialect(gateway), SLA, POOLS, **options)


def gauges(waiting: float = 0.0, running: float = 0.0, kv: float = 0.0) -> dict[str, float]:
    return {
        'vllm:num_requests_waiting{engine="0"}': waiting,
        'vllm:num_requests_running{engine="0"}': running,
        'vllm:kv_cache_usage_perc{engine="0"}': kv,
    }


def steady(source: FakeSource, until_s: float, rate: float = 2.0, period_s: float = 1.0, from_s: float = START) -> None:
    """Scrapes of the whole graph with `rate` arrivals a second and idle engines."""
    at = from_s
    while at <= until_s:
        source.scrape(GATEWAY, at, {ARRIVALS: 100.0 + rate * (at - START)})
        for address in (PREFILL, DECODE, DECODE2):
            source.scrape(address, at, gauges())
        at += period_s
