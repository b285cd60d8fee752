"""vLLM's Prometheus metrics, of the simulated engine: the same names, labels and buckets; times in simulated seconds.

A collector of our own rather than prometheus_client's objects: a decode worker makes thousands of inter-token latencies
a second, and the scheduler knows them as arithmetic series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from worker_graph.simulated.histogram import Histogram
from worker_graph.simulated.request import Event, Iterations, Kind, Request
from worker_graph.simulated.scheduler import Scheduler

_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_PHASES = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_GAPS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_TRANSFER = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 5)

#: Name without the prefix: buckets and help. The figures are those of a scrape of vLLM 0.32.
HISTOGRAMS: dict[str, tuple[Sequence[float], str]] = {
    "request_prompt_tokens": (_TOKENS, "Number of prefill tokens processed."),
    "request_generation_tokens": (_TOKENS, "Number of generation tokens processed."),
    "iteration_tokens_total": ([1, *(2**n for n in range(3, 15))], "Histogram of number of tokens per engine_step."),
    "request_max_num_generation_tokens": (_TOKENS, "Histogram of maximum number of requested generation tokens."),
    "request_params_n": (_TOKENS[:5], "Histogram of the n request parameter."),
    "request_params_max_tokens": (_TOKENS, "Histogram of the max_tokens request parameter."),
    "time_to_first_token_seconds": ((*_FIRST, 2560), "Histogram of time to first token in seconds."),
    "inter_token_latency_seconds": (_GAPS, "Histogram of inter-token latency in seconds."),
    "request_time_per_output_token_seconds": (_GAPS, "Histogram of time_per_output_token_seconds per request."),
    "e2e_request_latency_seconds": (_PHASES, "Histogram of e2e request latency in seconds."),
    "request_queue_time_seconds": (_PHASES, "Histogram of time spent in WAITING phase for request."),
    "request_inference_time_seconds": (_PHASES, "Histogram of time spent in RUNNING phase for request."),
    "request_prefill_time_seconds": (_PHASES, "Histogram of time spent in PREFILL phase for request."),
    "request_decode_time_seconds": (_PHASES, "Histogram of time spent in DECODE phase for request."),
    "request_num_preemptions": (
        (1, 2, 3, 4, 5, 10, 20),
        "Histogram of the number of times a request was preempted.",
    ),
    "request_prefill_kv_computed_tokens": (
        _TOKENS,
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
    ),
}
NIXL_HISTOGRAMS: dict[str, tuple[Sequence[float], str]] = {
    "nixl_xfer_time_seconds": (_TRANSFER, "Histogram of transfer duration for NIXL KV Cache transfers."),
    "nixl_post_time_seconds": ((0.001, *_TRANSFER), "Histogram of transfer post time for NIXL KV Cache transfers."),
    "nixl_bytes_transferred": (
        [2.0 ** (11 + 2 * n) for n in range(12)],
        "Histogram of bytes transferred per NIXL KV Cache transfers.",
    ),
}
#: Name without prefix and `_total`: help, the further label and its values.
COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "num_preemptions": ("Cumulative number of preemption from the engine.", "", ("",)),
    "prefix_cache_queries": ("Prefix cache queries, in terms of number of queried tokens.", "", ("",)),
    "prefix_cache_hits": ("Prefix cache hits, in terms of number of cached tokens.", "", ("",)),
    "external_prefix_cache_queries": (
        "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried"
        " tokens.",
        "",
        ("",),
    ),
    "external_prefix_cache_hits": (
        "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached"
        " tokens.",
        "",
        ("",),
    ),
    "prompt_tokens": ("Number of prefill tokens processed.", "", ("",)),
    "prompt_tokens_by_source": (
        "Number of prompt tokens by source.",
        "source",
        ("local_compute", "local_cache_hit", "external_kv_transfer"),
    ),
    "prompt_tokens_cached": ("Number of cached prompt tokens (local + external).", "", ("",)),
    "generation_tokens": ("Number of generation tokens processed.", "", ("",)),
    "request_success": (
        "Count of successfully processed requests.",
        "finished_reason",
        ("stop", "length", "abort", "error", "repetition"),
    ),
}
NIXL_COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "nixl_num_failed_transfers": (
        "Number of failed NIXL KV Cache transfers, including handshake and notification failures. NOTE: KV expiry is"
        " tracked separately in vllm:nixl_num_kv_expired_reqs.",
        "",
        ("",),
    ),
    "nixl_num_failed_notifications": (
        "Number of failed NIXL KV Cache notifications. Retained for compatibility; these failures are also included in"
        " vllm:nixl_num_failed_transfers.",
        "",
        ("",),
    ),
    "nixl_num_kv_expired_reqs": (
        "Number of requests that had their KV expire. NOTE: This metric is tracked on the P instance.",
        "",
        ("",),
    ),
    "nixl_num_notifications_after_expiry": (
        "Number of completion notifications for requests that were no longer tracked, usually because their KV lease"
        " expired.",
        "",
        ("",),
    ),
}


class EngineMetrics(Collector):
    """The metrics of one simulated engine.

    Args:
        model: label `model_name`.
        scheduler: read for the gauges at each scrape.
    """

    def __init__(self, model: str, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._labels = {"engine": "0", "model_name": model}
        # An aggregated vLLM worker has no connector and exports none of its metrics.
        linked = scheduler.limits.role != "aggregated"
        self._histogram_help = HISTOGRAMS | (NIXL_HISTOGRAMS if linked else {})
        self._counter_help = COUNTERS | (NIXL_COUNTERS if linked else {})
        self.histograms = {name: Histogram(edges) for name, (edges, _) in self._histogram_help.items()}
        self.counts: Counter[tuple[str, str]] = Counter()
        self._linked = linked

    def registry(self) -> CollectorRegistry:
        """A registry with these metrics and those of the process."""
        registry = CollectorRegistry()
        for make in (GCCollector, PlatformCollector, ProcessCollector):
            make(registry=registry)
        registry.register(self)
        return registry

    # What happened.

    def count(self, name: str, by: float = 1, label: str = "") -> None:
        """Add to a counter."""
        self.counts[name, label] += by  # type: ignore[assignment]

    def note(self, events: Iterable[Event | Iterations]) -> None:
        """Book what the scheduler told."""
        for event in events:
            if isinstance(event, Iterations):
                self._iterations(event)
            elif event.kind is Kind.FIRST:
                self._first(event.request)
            elif event.kind is Kind.FINISHED:
                self._finished(event.request)
            elif event.kind is Kind.ARRIVED:
                self._transferred(event.request)
            elif event.kind is Kind.PREEMPTED:
                self.count("num_preemptions")
            elif event.kind is Kind.EXPIRED:
                self.count("nixl_num_kv_expired_reqs")

    def _iterations(self, done: Iterations) -> None:
        tokens = done.running + done.prompts
        self.count("generation_tokens", done.steps * tokens)
        self.histograms["iteration_tokens_total"].observe(tokens + done.prompt_tokens, done.steps)
        latencies = self.histograms["inter_token_latency_seconds"]
        if done.running > done.fresh:
            first, growth = done.first_ms / 1000.0, done.growth_ms / 1000.0
            latencies.observe_series(first, growth, done.steps, done.running - done.fresh)
        for gap in done.gaps_ms:
            latencies.observe(gap / 1000.0)

    def _first(self, request: Request) -> None:
        front_ms = self._scheduler.front_end_ms(request)
        self._seconds("time_to_first_token_seconds", request.first_ms - request.arrival_ms + front_ms)
        self.count("prompt_tokens", request.isl)
        self.count("prefix_cache_queries", request.isl)
        self.count(
            "prompt_tokens_by_source", request.isl, "external_kv_transfer" if request.fetched else "local_compute"
        )
        if self._linked:
            self.count("external_prefix_cache_queries", request.isl)
        if request.fetched:
            self.count("external_prefix_cache_hits", request.isl)
            self.count("prompt_tokens_cached", request.isl)

    def _finished(self, request: Request) -> None:
        self.count("request_success", label="length")
        decode = request.end_ms - request.first_ms
        front_ms = self._scheduler.front_end_ms(request)
        self._seconds("e2e_request_latency_seconds", request.end_ms - request.arrival_ms + front_ms)
        self._seconds("request_queue_time_seconds", request.scheduled_ms - request.arrival_ms)
        self._seconds("request_prefill_time_seconds", request.first_ms - request.scheduled_ms)
        self._seconds("request_decode_time_seconds", decode)
        self._seconds("request_inference_time_seconds", request.end_ms - request.scheduled_ms)
        # vLLM observes a zero for a single token.
        self._seconds("request_time_per_output_token_seconds", decode / (request.osl - 1) if request.osl > 1 else 0.0)
        for name in ("request_prompt_tokens", "request_prefill_kv_computed_tokens"):
            # vLLM counts fetched tokens as computed too.
            self.histograms[name].observe(request.isl)
        for name in ("request_generation_tokens", "request_max_num_generation_tokens", "request_params_max_tokens"):
            self.histograms[name].observe(request.osl)
        self.histograms["request_params_n"].observe(1)
        self.histograms["request_num_preemptions"].observe(request.preemptions)

    def _transferred(self, request: Request) -> None:
        if self._linked:
            self._seconds("nixl_xfer_time_seconds", request.transfer_ms)
            self._seconds("nixl_post_time_seconds", self._scheduler.timing.post_ms(request.isl))
            size = request.isl * self._scheduler.limits.kv_bytes_per_token
            self.histograms["nixl_bytes_transferred"].observe(size)

    def _seconds(self, name: str, value_ms: float) -> None:
        self.histograms[name].observe(value_ms / 1000.0)

    # The scrape.

    def collect(self) -> Iterator[Metric]:
        """All families, the gauges as they are now."""
        yield from self._gauges()
        for name, (text, label, values) in self._counter_help.items():
            counter = CounterMetricFamily(f"vllm:{name}", text, labels=self._names(label))
            for value in values:
                counter.add_metric(self._values(value), self.counts[name, value])
            yield counter
        for name, (_, text) in self._histogram_help.items():
            family, have = HistogramMetricFamily(f"vllm:{name}", text, labels=self._names()), self.histograms[name]
            edges = [*map(floatToGoString, have.edges), "+Inf"]
            family.add_metric(self._values(), list(zip(edges, have.cumulative(), strict=True)), have.sum)
            yield family

    def _gauges(self) -> Iterator[Metric]:
        queues, limits = self._scheduler.queues, self._scheduler.limits
        deferred = self._scheduler.moving + len(queues.joining)
        to_start = sum(request.remote for request in queues.waiting)
        yield self._gauge("num_requests_running", _RUNNING, {"": self._scheduler.running})
        yield self._gauge("num_requests_waiting", _WAITING, {"": len(queues.waiting) + deferred})
        reasons = {"capacity": len(queues.waiting), "deferred": deferred}
        yield self._gauge("num_requests_waiting_by_reason", _REASONS, reasons, "reason")
        joining = len(queues.joining)
        stages = {
            "waiting_to_start": to_start,
            "in_progress": self._scheduler.moving,
            "completed_waiting": joining,
        }
        yield self._gauge("num_requests_kv_fetch_by_stage", _STAGES, stages, "stage")
        yield self._gauge("kv_cache_usage_perc", _USAGE, {"": queues.blocks / max(1, limits.capacity_blocks)})
        tokens = limits.capacity_blocks * limits.block_size
        about = {
            "block_size": str(limits.block_size),
            "cache_dtype": "auto",
            "enable_prefix_caching": "True",
            "engine": "0",
            "gpu_memory_utilization": "None",
            "kv_cache_max_concurrency": str(tokens / limits.max_model_len),
            "kv_cache_size_tokens": str(tokens),
            "num_gpu_blocks": str(limits.capacity_blocks),
        }
        info = GaugeMetricFamily("vllm:cache_config_info", _CACHE, labels=list(about))
        info.add_metric(list(about.values()), 1.0)
        yield info

    def _gauge(self, name: str, text: str, values: Mapping[str, float], label: str = "") -> Metric:
        gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=self._names(label))
        for value, number in values.items():
            gauge.add_metric(self._values(value), number)
        return gauge

    def _names(self, label: str = "") -> list[str]:
        return [*self._labels, *([label] if label else [])]

    def _values(self, value: str = "") -> list[str]:
        return [*self._labels.values(), *([value] if value else [])]


_RUNNING = "Number of requests in model execution batches."
_WAITING = "Number of requests waiting to be processed."
_REASONS = (
    "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' ="
    " deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals"
    " vllm:num_requests_waiting."
)
_STAGES = (
    "Number of waiting requests by async KV load stage. Stage labels: 'waiting_to_start' = needs an async KV load that"
    " has not started; 'in_progress' = load started and not yet reported finished; 'completed_waiting' = load finished,"
    " request not running yet."
)
_USAGE = "KV-cache usage. 1 means 100 percent usage."
_CACHE = "Information of the LLMEngine CacheConfig"
