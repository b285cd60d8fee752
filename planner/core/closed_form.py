"""The closed form: attainment of a pool from queueing formulas, in microseconds, each term of which can be explained.

Prefill takes all that waits into its next batch, up to the token budget: gated service. A request that finds every
worker busy waits for the rest of a running batch and then shares the next one; one that finds an idle worker is served
alone.
An engine that schedules ahead lets a request wait for one more whole batch, and the front end adds its time to each.
Decode is processor sharing: by Little's law the running batch n solves n = rate * OSL * ITL(n) per worker, and its
fluctuation around n decides which requests stay within the ITL limit. A decode worker that begins a hand-off posts its
copies between two iterations, which takes a share of its time. Every term moves one way with load, with workers
and with the SLA, so that the sums do too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import gammainc, ndtr

from planner.core.capacity import Prediction
from planner.core.demand import Demand
from planner.core.length_facts import Array, LengthFacts
from planner.core.queueing import busy_share, erlang_c, gated_cycle
from planner.core.types import Role, Sla
from profiler.timing import EngineTiming, TransferTiming

#: Fitted to the simulator over loads, worker counts and the lengths of three traces; `tests/bench/capacity.py` prints
#: what disagreement is left.
WAIT_SCALE = 0.9
WAIT_SHAPE = 2.0

#: Whole iterations that a hand-off waits on a busy worker that schedules ahead; `worker.py` of the simulator has why.
HAND_OFF_LAG = 3.0

#: Where the gamma distribution of the wait is tabulated, in units of its scale: dense near 0, out to its far tail.
_GAMMA_NODES = np.concatenate([np.linspace(0.0, 4.0, 65), np.linspace(4.25, 24.0, 32)])

#: Steps towards the batch that runs beside prompts which it makes longer.
MIXED_STEPS = 3


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The closed-form capacity model of a graph.

    Attributes:
        engines: timing by role: prefill and decode, or aggregated.
        transfer: hand-off between prefill and decode.
        name: for records.
    """

    engines: Mapping[Role, EngineTiming]
    transfer: TransferTiming
    name: str = "closed-form"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of the graph."""
        return tuple(self.engines)

    def evaluator(self, demand: Demand, sla: Sla) -> ClosedFormEvaluator:
        """An evaluator for one demand and one SLA."""
        return ClosedFormEvaluator(demand, sla, LengthFacts(self.engines, self.transfer, demand.lengths))

    def slowed(self, factors: Mapping[Role, float]) -> ClosedForm:
        """The model of engines whose iterations take so many times as long, by role."""
        slower = {role: engine.slowed(factors.get(role, 1.0)) for role, engine in self.engines.items()}
        return replace(self, engines=slower)


@dataclass(frozen=True, eq=False)
class _Decode:
    """The running batch of one worker: its mean, and per length sample the chance to stay within the ITL limit."""

    itl_ms: float
    batch: float
    utilisation: float
    within: Array


@dataclass(frozen=True, eq=False)
class _Prefill:
    """Time from arrival to the end of the prompt's batch: alone by length sample, and the wait of those who wait.

    The wait is gamma distributed; its shape follows from the lengths alone, so that a longer mean is longer everywhere.
    """

    alone_ms: Array
    wait_ms: float
    wait_shape: float
    all_busy: float
    utilisation: float


@dataclass(eq=False)
class ClosedFormEvaluator:
    """Predictions for one demand and one SLA; what depends on one role only is computed once per count."""

    demand: Demand
    sla: Sla
    facts: LengthFacts
    _decode: dict[int, _Decode] = field(default_factory=dict)
    _prefill: dict[int, _Prefill] = field(default_factory=dict)

    def at_rate(self, rate_rps: float) -> ClosedFormEvaluator:
        """The same lengths and SLA at another rate; what follows from the lengths is shared."""
        return ClosedFormEvaluator(replace(self.demand, rate_rps=rate_rps), self.sla, self.facts)

    def predict(self, workers: Mapping[Role, int]) -> Prediction:
        """What these workers achieve; workers below 1 achieve nothing."""
        if Role.AGGREGATED in self.facts.engines:
            return self._predict_aggregated(workers[Role.AGGREGATED])
        decode = self._of_decode(workers[Role.DECODE])
        prefill = self._of_prefill(workers[Role.PREFILL])
        # The first token comes with the first decode iteration after the one that runs, if any, when the KV arrives.
        steps = 1.0 + _rest_of_running(decode, HAND_OFF_LAG if self.facts.step_engine.ahead else 0.0)
        after = self.facts.front_ms + self.facts.transfer_ms + steps * decode.itl_ms
        if self.facts.step_engine.stream_ms > 0:
            # The front end streams the tokens of the others first.
            after = after + self.facts.step_engine.stream_ms * decode.batch
        ttft = _within(prefill, self.sla.ttft_ms - after) if np.isfinite(decode.itl_ms) else np.zeros_like(after)
        use = {Role.PREFILL: prefill.utilisation, Role.DECODE: decode.utilisation}
        possible_ttft, possible_itl = self._possible
        return self._joint(
            ttft * possible_ttft, decode.within * possible_itl, use, decode.itl_ms, _mean_ttft(prefill, after)
        )

    def ceiling(self) -> Prediction:
        """Each request alone on an idle worker."""
        ttft, itl = self.facts.alone
        within_ttft, within_itl = self._possible
        use = dict.fromkeys(self.facts.engines, 0.0)
        return self._joint(within_ttft, within_itl, use, float(itl.mean()), float(ttft.mean()))

    def nearest(self) -> Sla:
        """The SLA closest to the asked one whose attainment some number of workers can reach."""
        if self.ceiling().attainment >= self.sla.attainment:
            return self.sla
        ttft, itl = self.facts.alone
        for share in np.linspace(self.sla.attainment, 1.0, 51):
            near = Sla(
                ttft_ms=max(self.sla.ttft_ms, float(np.quantile(ttft, share, method="inverted_cdf"))),
                itl_ms=max(self.sla.itl_ms, float(np.quantile(itl, share, method="inverted_cdf"))),
                attainment=self.sla.attainment,
            )
            if float(np.mean((ttft <= near.ttft_ms) & (itl <= near.itl_ms))) >= self.sla.attainment:
                break
        return near

    # -- shared ----------------------------------------------------------------------------------------------------

    def _joint(
        self, ttft: Array, itl: Array, utilisation: Mapping[Role, float], itl_ms: float, ttft_ms: float
    ) -> Prediction:
        return Prediction(
            attainment=_mean(ttft * itl),
            ttft_attainment=_mean(ttft),
            itl_attainment=_mean(itl),
            utilisation=dict(utilisation),
            itl_ms=itl_ms,
            ttft_ms=ttft_ms,
        )

    @cached_property
    def _possible(self) -> tuple[Array, Array]:
        """Which samples are within the TTFT and the ITL limit when alone: mean contexts know nothing of the longest."""
        ttft, itl = self.facts.alone
        return (ttft <= self.sla.ttft_ms).astype(np.float64), (itl <= self.sla.itl_ms).astype(np.float64)

    @cached_property
    def _dispersion(self) -> float:
        return max(1.0, self.demand.dispersion)

    # -- prefill ---------------------------------------------------------------------------------------------------

    def _of_prefill(self, workers: int) -> _Prefill:
        if workers not in self._prefill:
            self._prefill[workers] = self._cycle(workers, 0.0, self.facts.prompt_ms)
        return self._prefill[workers]

    def _cycle(self, workers: int, carried_ms: float, alone: Array) -> _Prefill:
        """Prefill pool of `workers`, each batch of which carries `carried_ms` of other work along.

        `alone` is the time of a batch of one prompt, ms, by length sample.
        """
        fixed = self.facts.batching[0] + carried_ms
        mean_marginal, marginal_variance = self.facts.added
        if workers < 1:
            return _Prefill(alone, np.inf, 1.0, 1.0, np.inf)
        rate = self.demand.rate_rps / 1000.0 / workers
        load = rate * mean_marginal
        cycle, batch = gated_cycle(rate, fixed, mean_marginal)
        if not np.isfinite(cycle):
            return _Prefill(alone, np.inf, 1.0, 1.0, load)
        busy = busy_share(rate, cycle)
        all_busy = erlang_c(workers, workers * busy)
        # Arrivals during a cycle: their count is evened out between workers, their lengths are not; what earlier
        # cycles left behind is shared by all.
        square = mean_marginal**2 * self._dispersion / workers + marginal_variance
        variance = batch * square * (1.0 + load**2 / (1.0 - load**2) / workers)
        seen = cycle + variance / cycle  # an arrival sees long cycles more often
        # Half of the others in my batch came before me, to a worker that the gateway picked for its short queue.
        wait = WAIT_SCALE * seen * (0.5 + load * (0.5 + 0.5 / workers))
        shape = WAIT_SHAPE / (self._dispersion + marginal_variance / max(mean_marginal, 1e-9) ** 2)
        return _Prefill(alone, wait, shape, all_busy, busy)

    # -- decode ----------------------------------------------------------------------------------------------------

    def _of_decode(self, workers: int) -> _Decode:
        if workers not in self._decode:
            rate = self.demand.rate_rps / 1000.0 / max(workers, 1)
            self._decode[workers] = self._sharing(workers, rate * self.facts.mean_post_ms)
        return self._decode[workers]

    def _sharing(self, workers: int, other_share: float) -> _Decode:
        """Processor sharing on `workers`, of whose time `other_share` goes to prompts, or to posting hand-offs."""
        lengths = self.demand.lengths
        nothing = np.zeros(len(lengths.osl))
        if workers < 1:
            return _Decode(np.inf, np.inf, np.inf, nothing)
        context, context_variance = self.facts.context
        tokens_per_ms = self.demand.rate_rps / 1000.0 / workers * self.facts.mean_osl
        batches, itl = self.facts.running
        steps_share = tokens_per_ms * float(itl[-1]) / float(batches[-1])
        # By how much an overload exceeds the worker must be finite: it says which plan is the least bad.
        overloaded = _Decode(np.inf, np.inf, max(1.0, other_share + steps_share), nothing)
        if other_share >= 1.0:
            return overloaded
        stretch = 1.0 / (1.0 - other_share)
        need = batches - tokens_per_ms * itl * stretch  # rises through 0 at the mean batch
        utilisation = steps_share * stretch
        if need[-1] <= 0.0:
            return overloaded
        above = int(np.argmax(need > 0.0))
        batch = _crossing(batches, need, above)
        itl_at = float(np.interp(batch, batches, itl)) * stretch

        limit = self.sla.itl_ms / stretch
        if float(itl[0]) > limit:
            return _Decode(itl_at, batch, utilisation, np.where(lengths.osl > 1, 0.0, 1.0))
        most_within = float(np.interp(limit, itl, batches))
        # Fluctuation of the batch that one request sees, in requests: of the count, and of the contexts.
        spread = context_variance / max(context, 1.0) ** 2
        variance = batch * (self._dispersion / workers + spread)
        margin = most_within - batch - 1.0
        within = _chance(np.asarray(margin), np.sqrt(np.maximum(variance * self.facts.averaging, 1e-12)))
        return _Decode(itl_at, batch, utilisation, np.where(lengths.osl > 1, within, 1.0))

    # -- aggregated ------------------------------------------------------------------------------------------------

    def _beside(self, workers: int, rate: float, prompt: float) -> _Decode:
        """Decodes beside prompts that come at `rate` per ms and take `prompt` ms each, but for the part of each decode.

        A token takes longer by that part where its iteration holds a prompt, which more of the longer iterations do: a
        few steps of that, from none longer on.
        """
        per_request = self.facts.engines[Role.AGGREGATED].mixed_ms_per_request
        decode = self._sharing(workers, rate * prompt)
        if per_request == 0.0:
            return decode
        tokens_per_ms = rate * self.facts.mean_osl
        for _ in range(MIXED_STEPS):
            with_prompt = -float(np.expm1(-rate * decode.itl_ms))
            decode = self._sharing(workers, rate * prompt + tokens_per_ms * per_request * with_prompt)
        return decode

    def _predict_aggregated(self, workers: int) -> Prediction:
        """Prompts interrupt decodes: they take a share of the time, and each one a decode meets delays its tokens."""
        engine = self.facts.engines[Role.AGGREGATED]
        extra = max(0.0, self.facts.batching[0] - engine.shared_ms)
        mean_marginal, marginal_variance = self.facts.added
        rate = self.demand.rate_rps / 1000.0 / max(workers, 1)
        prompt = extra + mean_marginal
        decode = self._beside(workers, rate, prompt)
        if not np.isfinite(decode.itl_ms):
            zero = np.zeros(len(self.demand.lengths.osl))
            return self._joint(zero, zero, {Role.AGGREGATED: max(1.0, decode.utilisation)}, np.inf, np.inf)
        # A prompt's iteration carries the running decodes along.
        step = float(engine.iteration_ms(decode.batch, decode.batch * self.facts.context[0]))
        carried = max(0.0, step - engine.shared_ms) + engine.mixed_ms_per_request * decode.batch
        # Launches that hide behind decodes may make the two faster than the prompt alone; load helps nobody here.
        longer = np.maximum(0.0, self.facts.behind_ms(step) + carried - self.facts.prompt_ms)
        prefill = self._cycle(workers, carried, self.facts.prompt_ms + _is_running(decode) * longer)
        # The iteration that runs, and the one that is decided: decodes, or prompts for their share of the time.
        rest = _rest_of_running(decode, 0.0) * step
        if engine.ahead:
            rest += _is_running(decode) * (step + rate * prompt * prompt)
        after = self.facts.front_ms + rest + engine.stream_ms * decode.batch
        ttft = _within(prefill, self.sla.ttft_ms - after)
        osl = self.demand.lengths.osl
        met = rate * osl * decode.itl_ms  # prompts that a request meets while it decodes
        delay = np.sqrt(met * (prompt**2 + marginal_variance)) / np.maximum(osl - 1.0, 1.0)
        itl = decode.within * np.where(osl > 1, _chance(self.sla.itl_ms - decode.itl_ms, delay + 1e-9), 1.0)
        use = {Role.AGGREGATED: max(decode.utilisation, rate * prompt)}
        possible_ttft, possible_itl = self._possible
        mean_ttft = _mean_ttft(prefill, after)
        return self._joint(ttft * possible_ttft, itl * possible_itl, use, decode.itl_ms, mean_ttft)


def _crossing(x: Array, y: Array, above: int) -> float:
    """Where y rises through 0 just before place `above`; light loads cross below the first x."""
    if above == 0:
        return float(max(0.0, x[0] - y[0]))
    x0, x1, y0, y1 = x[above - 1], x[above], y[above - 1], y[above]
    return float(x0 + (x1 - x0) * (-y0) / (y1 - y0))


def _is_running(decode: _Decode) -> float:
    """The chance that an iteration runs: a Poisson batch is not empty."""
    return -float(np.expm1(-decode.batch))


def _rest_of_running(decode: _Decode, lag: float) -> float:
    """Iterations that pass before a newcomer's: half of one, the mean rest, and `lag` more, while any runs."""
    return (0.5 + lag) * _is_running(decode)


def _chance(margin: Array | float, deviation: Array) -> Array:
    """P(normal deviate <= margin); none at all for a mean beyond the limit, so that more noise never helps."""
    return np.where(np.asarray(margin) >= 0.0, ndtr(np.asarray(margin) / deviation), 0.0)


def _within(prefill: _Prefill, slack_ms: Array) -> Array:
    """Chance that each sample's prompt is done within its slack."""
    spare = slack_ms - prefill.alone_ms
    scaled = np.maximum(spare, 0.0) * (prefill.wait_shape / prefill.wait_ms)
    waited = np.interp(scaled, *_gamma(prefill.wait_shape))
    return np.where(spare >= 0.0, 1.0 - prefill.all_busy * (1.0 - waited), 0.0)


@lru_cache(maxsize=16)
def _gamma(shape: float) -> tuple[Array, Array]:
    """A table of the gamma distribution of scale 1, places and shares: the function itself is dear.

    One decision asks for a few shapes, many times each.
    """
    nodes = _GAMMA_NODES * max(1.0, shape)
    return nodes, np.asarray(gammainc(shape, nodes))


def _mean(values: Array) -> float:
    """`numpy.mean`, bit for bit, without the checks that take longer than the sum."""
    return float(np.add.reduce(values) / len(values))


def _mean_ttft(prefill: _Prefill, after_ms: Array) -> float:
    return _mean(prefill.alone_ms + after_ms) + prefill.all_busy * prefill.wait_ms
