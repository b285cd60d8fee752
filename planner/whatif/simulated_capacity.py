"""The simulator as a capacity model: the same question as the closed form's, answered by running it.

Slower by three orders of magnitude and free of the closed form's approximations; what both say of one demand is
compared in `tests/bench/capacity.py`. Every prediction replays the same arrivals, scaled to the rate, so that plans are
compared on common random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from planner.core.capacity import Evaluator, Prediction
from planner.core.closed_form import ClosedForm
from planner.core.demand import Demand
from planner.core.engines import Engines
from planner.core.types import Role, Sla
from planner.whatif.simulator.simulation import Finished, Routing, Simulation
from planner.whatif.traces import Trace, TraceChunk

#: Share of the arrivals in which queues and batches fill; it does not count.
WARM_UP = 0.2


class _Arrivals(Trace):
    """Clustered Poisson arrivals of a dispersion, with lengths drawn from a sample."""

    def __init__(self, demand: Demand, requests: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        # Clusters of geometric size with mean m have dispersion 2 m - 1; they spread over a second.
        mean_cluster = (max(1.0, demand.dispersion) + 1.0) / 2.0
        sizes = rng.geometric(1.0 / mean_cluster, size=requests)
        clusters = np.repeat(np.arange(requests), sizes)[:requests]
        starts = np.cumsum(rng.exponential(mean_cluster / max(demand.rate_rps, 1e-9), size=requests))
        arrival = np.sort(starts[clusters] + rng.uniform(0.0, 1.0, size=requests))
        rows = rng.integers(0, len(demand.lengths.isl), size=requests)
        self._chunk = TraceChunk(
            arrival_s=arrival - arrival[0],
            isl=demand.lengths.isl[rows].astype(np.int32),
            osl=demand.lengths.osl[rows].astype(np.int32),
            prefix_hit_tokens=demand.lengths.hit[rows].astype(np.int32),
        )

    @property
    def name(self) -> str:
        return "arrivals of a demand"

    def chunks(self) -> Iterator[TraceChunk]:
        yield self._chunk


@dataclass(frozen=True, eq=False)
class SimulatedCapacity:
    """Capacity by simulation.

    Attributes:
        engines: of the graph.
        closed_form: answers what needs no queue: the ceiling and the nearest SLA.
        routing: of the gateway.
        requests: simulated per prediction.
        seed: of the arrivals.
    """

    engines: Engines
    closed_form: ClosedForm
    routing: Routing = "least_loaded"
    requests: int = 3000
    seed: int = 0

    @property
    def name(self) -> str:
        """For records: with the routing, which changes what is predicted."""
        return f"simulator:{self.routing}"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of the graph."""
        return self.engines.roles

    def evaluator(self, demand: Demand, sla: Sla) -> SimulatedEvaluator:
        """An evaluator for one demand and one SLA."""
        return SimulatedEvaluator(self, demand, sla)

    def slowed(self, factors: Mapping[Role, float]) -> SimulatedCapacity:
        """The model of engines whose iterations take so many times as long, by role."""
        timing = tuple(self.engines.of(role).slowed(factors.get(role, 1.0)) for role in self.roles)
        engines = replace(self.engines, timing=timing)
        return replace(self, engines=engines, closed_form=engines.closed_form)


@dataclass(eq=False)
class SimulatedEvaluator:
    """Predictions by simulation for one demand and one SLA; each count is simulated once."""

    model: SimulatedCapacity
    demand: Demand
    sla: Sla
    _seen: dict[tuple[int, ...], Prediction] = field(default_factory=dict)

    def at_rate(self, rate_rps: float) -> SimulatedEvaluator:
        """The same lengths and SLA at another rate."""
        return SimulatedEvaluator(self.model, replace(self.demand, rate_rps=rate_rps), self.sla)

    def ceiling(self) -> Prediction:
        """Each request alone on an idle worker."""
        return self._closed().ceiling()

    def nearest(self) -> Sla:
        """The closest SLA that some number of workers can meet."""
        return self._closed().nearest()

    def _closed(self) -> Evaluator:
        return self.model.closed_form.evaluator(self.demand, self.sla)

    def predict(self, workers: Mapping[Role, int]) -> Prediction:
        """What these workers achieve."""
        counts = tuple(workers[role] for role in self.model.roles)
        if self.demand.rate_rps <= 0:
            return self.ceiling()
        if counts not in self._seen:
            self._seen[counts] = self._simulate(counts)
        return self._seen[counts]

    def _simulate(self, counts: tuple[int, ...]) -> Prediction:
        model = self.model
        if min(counts) < 1:
            return Prediction(0.0, 0.0, 0.0, dict.fromkeys(model.roles, np.inf), np.inf, np.inf)
        trace = _Arrivals(self.demand, model.requests, model.seed)
        batches: list[Finished] = []
        simulation = Simulation(model.engines, trace, model.routing, batches.append)
        for role, count in zip(model.roles, counts, strict=True):
            for _ in range(count):
                simulation.add_worker(role, 0.0)
        chunk = next(trace.chunks())
        first, last = float(chunk.arrival_s[-1]) * 1000.0 * WARM_UP, float(chunk.arrival_s[-1]) * 1000.0
        # What has not completed long after the last arrival never will in time.
        simulation.run_to(last + 100.0 * self.sla.ttft_ms + 10_000.0 * self.sla.itl_ms)
        # Nothing completes where every request is larger than a worker's KV cache.
        arrival, ttft, itl = (
            np.concatenate([np.empty(0), *(getattr(b, f) for b in batches)])
            for f in ("arrival_ms", "ttft_ms", "itl_ms")
        )
        counted = arrival >= first
        offered = max(1, int((chunk.arrival_s * 1000.0 >= first).sum()))
        within_ttft = ttft[counted] <= self.sla.ttft_ms
        decoded = ~np.isnan(itl[counted])
        within_itl = ~decoded | (itl[counted] <= self.sla.itl_ms)
        return Prediction(
            attainment=float((within_ttft & within_itl).sum()) / offered,
            ttft_attainment=float(within_ttft.sum()) / offered,
            itl_attainment=float(within_itl.sum()) / offered,
            utilisation=self._closed().predict(dict(zip(model.roles, counts, strict=True))).utilisation,
            itl_ms=float(itl[counted][decoded].mean()) if decoded.any() else 0.0,
            ttft_ms=float(ttft[counted].mean()) if counted.any() else np.inf,
        )
