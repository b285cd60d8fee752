"""Dynamo's classic throughput planner, as a peer in replays: tables, correction factors, three predictors.

The algorithm of `planner_core.py` of ai-dynamo 0.7 to 0.8 (and, but for the ARIMA, of 0.9 and 1.0), its known faults
included: queueing is ignored in
prefill, each of the three means is predicted alone and one interval ahead, latencies are means, an interval without
completed requests changes nothing, and the rounding of the budget rule may ask for more than the budget. Where a
replay differs:

* The peer counts requests when they complete; here the arrivals count. Under overload that is to its advantage.
* ISL and OSL are means of the sample of completed requests that a policy is shown, not of all of them.
* Bounds are those of the replay's pools, which play the part of `--min-endpoint`; the peer knows no maximum per pool.
* While workers start, what was decided is dropped, as the Kubernetes connector does with a graph that is not Ready.
* A replay begins at the first request, so the peer's fixed delay of 30 s before its first interval is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.core.types import Known, Observation, Plan, Pool, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.dynamo_predictors import Arima, Constant, Predictor, WindowedArima
from planner.whatif.policies.dynamo_tables import DecodeLookup, PrefillLookup, finite
from planner.whatif.policies.options import positive, split_options, unknown
from profiler.errors import InputError

#: `--load-predictor`; 0.9 and 1.0 fit their ARIMA once and keep its order.
PREDICTORS: dict[str, type[Predictor]] = {"arima": WindowedArima, "arima-once": Arima, "constant": Constant}

#: `--adjustment-interval`, s.
DEFAULT_INTERVAL_S = 180.0


@dataclass(frozen=True, slots=True)
class Interval:
    """The means of one interval; NaN where nothing was measured.

    Attributes:
        requests: number of them.
        ttft_ms, itl_ms: means; the ITL over tokens.
        isl, osl: mean tokens.
        decode_workers: ready at its end.
    """

    requests: float
    ttft_ms: float
    itl_ms: float
    isl: float
    osl: float
    decode_workers: int

    @property
    def duration_s(self) -> float:
        """Mean duration of a request: the ITL is a mean over tokens, so this is exact, not an approximation."""
        return (self.ttft_ms + self.itl_ms * (self.osl - 1.0)) / 1000.0

    @property
    def valid(self) -> bool:
        """Whether the peer would act on it; it skips an interval with a NaN among these four."""
        return finite(self.ttft_ms, self.itl_ms, self.isl, self.osl)


@dataclass(frozen=True, slots=True)
class Correction:
    """Observed over interpolated: TTFT of prefill, ITL of decode."""

    prefill: float = 1.0
    decode: float = 1.0


def correction(prefill: PrefillLookup, decode: DecodeLookup, seen: Interval, interval_s: float) -> Correction:
    """Both correction factors of an interval.

    Concurrency of one decode worker, by Little's law: requests / workers * duration / interval.

    Raises:
        ZeroDivisionError: no decode worker is ready, or a table holds zero.
    """
    concurrency = seen.requests / seen.decode_workers * seen.duration_s / interval_s
    return Correction(
        seen.ttft_ms / prefill.ttft_ms(seen.isl),
        seen.itl_ms / decode.itl_ms(concurrency, seen.isl + seen.osl / 2.0),
    )


def prefill_workers(
    requests: float, isl: float, interval_s: float, *, factor: float, throughput: float, gpus: int
) -> int:
    """ceil(tokens/s * min(1, factor) / throughput per GPU / GPUs): a TTFT above the table's never adds workers."""
    return math.ceil(requests * isl / interval_s * min(1.0, factor) / throughput / gpus)


def corrected_itl_ms(itl_sla_ms: float, factor: float) -> float:
    """The ITL to look up so that the corrected one meets the SLA; a factor that is not positive counts as 1."""
    return itl_sla_ms if factor <= 0.0 else itl_sla_ms / factor


def decode_workers(requests: float, osl: float, interval_s: float, *, throughput: float, gpus: int) -> int:
    """ceil(tokens/s / throughput per GPU / GPUs)."""
    return math.ceil(requests * osl / interval_s / throughput / gpus)


def fit_classic_budget(prefill: int, decode: int, pools: tuple[Pool, Pool], max_gpus: int) -> tuple[int, int]:
    """Workers after the minimum and the budget rule, which rounds and so may exceed the budget.

    Args:
        prefill: prefill workers wanted.
        decode: decode workers wanted.
        pools: prefill and decode pool; their minimum and GPUs count.
        max_gpus: the budget.
    """
    p_pool, d_pool = pools
    prefill, decode = max(prefill, p_pool.min_workers), max(decode, d_pool.min_workers)
    total = prefill * p_pool.gpus_per_worker + decode * d_pool.gpus_per_worker
    if total <= max_gpus:
        return prefill, decode
    # round() as in Dynamo: half to even, and up as often as down.
    prefill = max(p_pool.min_workers, round(prefill * max_gpus / total))
    rest = max_gpus - prefill * p_pool.gpus_per_worker
    return prefill, max(d_pool.min_workers, round(rest / d_pool.gpus_per_worker))


class DynamoClassic(Policy):
    """The classic planner.

    Args:
        setting: of the replay; needs profiles of a prefill and a decode role.
        interval_s: between decisions (`--adjustment-interval`).
        predictor: name in `PREDICTORS` (`--load-predictor`).
        corrected: whether the correction factors apply (off: `--no-correction`, which is advised for long start-ups).

    Raises:
        InputError: the graph is aggregated, or a profile lacks what the tables need.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        interval_s: float = DEFAULT_INTERVAL_S,
        predictor: str = "arima",
        corrected: bool = True,
    ) -> None:
        if set(setting.pools) != {Role.PREFILL, Role.DECODE}:
            raise InputError(
                "dynamo-classic does not apply to an aggregated graph: it sizes prefill and decode apart",
                expected="a disaggregated graph, or another policy",
                field="--policy",
            )
        self.interval_s = interval_s
        self._sla = setting.sla
        self._max_gpus = setting.settings.max_gpus
        self._pools = (setting.pools[Role.PREFILL], setting.pools[Role.DECODE])
        self._plan: Plan = dict(setting.start)
        self._corrected = corrected
        self._correction = Correction()
        self._prefill = PrefillLookup(setting.profiles[Role.PREFILL])
        self._decode = DecodeLookup(setting.profiles[Role.DECODE])
        kind = PREDICTORS[predictor]
        self._requests, self._isl, self._osl = kind(), kind(), kind()

    def decide(self, observation: Observation, now_s: float) -> Plan:  # noqa: ARG002 - it knows no clock
        """Both pools at once; the last plan when the interval is skipped."""
        seen = self._read(observation)
        self._requests.add(seen.requests)
        self._isl.add(seen.isl)
        self._osl.add(seen.osl)
        if seen.valid:
            try:
                wanted = self._size(seen)
            except (ArithmeticError, ValueError):
                # The peer logs "Failed to …" and leaves the replicas as they are: no decode worker, a zero in a table.
                return self._plan
            if _settled(observation):
                self._plan = wanted
        return self._plan

    def _read(self, observation: Observation) -> Interval:
        nan = math.nan
        isl = osl = nan
        if isinstance(observation.lengths, Known) and len(observation.lengths.value) > 0:
            lengths = observation.lengths.value
            isl, osl = sum(lengths.isl) / len(lengths), sum(lengths.osl) / len(lengths)
        ttft, itl = observation.mean_ttft_ms, observation.mean_itl_ms
        ready = 0
        if isinstance(observation.pools, Known):
            ready = observation.pools.value[self._pools[1].name].ready
        return Interval(
            requests=float(observation.arrivals.value) if isinstance(observation.arrivals, Known) else nan,
            ttft_ms=ttft.value if isinstance(ttft, Known) else nan,
            itl_ms=itl.value if isinstance(itl, Known) else nan,
            isl=isl,
            osl=osl,
            decode_workers=ready,
        )

    def _size(self, seen: Interval) -> Plan:
        if self._corrected:
            self._correction = correction(self._prefill, self._decode, seen, self.interval_s)
        requests, isl, osl = self._requests.next(), self._isl.next(), self._osl.next()
        p_pool, d_pool = self._pools
        p = prefill_workers(
            requests,
            isl,
            self.interval_s,
            factor=self._correction.prefill,
            throughput=self._prefill.throughput(isl),
            gpus=p_pool.gpus_per_worker,
        )
        itl_ms = corrected_itl_ms(self._sla.itl_ms, self._correction.decode)
        cell = self._decode.best(itl_ms, isl + osl / 2.0)
        d = decode_workers(requests, osl, self.interval_s, throughput=cell.throughput, gpus=d_pool.gpus_per_worker)
        p, d = fit_classic_budget(p, d, self._pools, self._max_gpus)
        return {p_pool.name: min(p, p_pool.max_workers), d_pool.name: min(d, d_pool.max_workers)}


def _settled(observation: Observation) -> bool:
    """Whether every worker that was asked for is ready, as far as that is known."""
    if not isinstance(observation.pools, Known):
        return True
    return all(state.ready >= state.desired for state in observation.pools.value.values())


def parse(options: str, setting: Setting) -> DynamoClassic:
    """The policy of `dynamo-classic:OPTIONS`.

    Args:
        options: comma-separated: `arima`, `arima-once` or `constant`, `no-correction`, `interval_s=SECONDS`, or empty.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong, or the policy does not apply to the graph.
    """
    interval_s, predictor, corrected = DEFAULT_INTERVAL_S, "arima", True
    for key, value in split_options(options):
        if value is None and key in PREDICTORS:
            predictor = key
        elif value is None and key == "no-correction":
            corrected = False
        elif key == "interval_s":
            interval_s = positive("dynamo-classic", key, value)
        else:
            raise unknown(
                "dynamo-classic", key, value, "arima, arima-once, constant, no-correction or interval_s=SECONDS"
            )
    return DynamoClassic(setting, interval_s=interval_s, predictor=predictor, corrected=corrected)
