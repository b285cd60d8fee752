"""The simulator as a capacity model, against the closed form and against what must hold of any capacity."""

import itertools

import numpy as np
import pytest

from planner.core.closed_form import ClosedForm
from planner.core.demand import Demand, Lengths
from planner.core.engines import Engines
from planner.core.types import Role, Sla
from planner.whatif.capacity_models import capacity_model
from planner.whatif.simulated_capacity import SimulatedCapacity
from planner.whatif.traces import collect, open_trace
from profiler.errors import InputError
from tests.engines import AGGREGATED, DECODE, PREFILL, aggregated, disaggregated, engine
from tests.unit.core.cases import h200, h200_aggregated

H200_SLA = Sla(ttft_ms=200.0, itl_ms=10.0)
EASY = Sla(ttft_ms=500.0, itl_ms=50.0)

#: What one prefill worker bears of conversation traffic, requests/s.
FULL_RPS = 30.0


def conversation(rate_rps: float, dispersion: float = 1.0) -> Demand:
    """Lengths of the conversation preset."""
    chunk = collect(open_trace("generate:conversation,duration_s=120,seed=7"))
    lengths = Lengths(*(getattr(chunk, name).astype(float) for name in ("isl", "osl", "prefix_hit_tokens")))
    return Demand(rate_rps, dispersion, lengths)


def equal(rate_rps: float, isl: int = 100, osl: int = 10) -> Demand:
    """Requests of one length."""
    return Demand(rate_rps, 1.0, Lengths(np.array([isl * 1.0]), np.array([osl * 1.0]), np.zeros(1)))


def shipped(closed: ClosedForm, requests: int = 1500) -> SimulatedCapacity:
    """The simulator on the engines of a closed form."""
    engines = Engines(tuple(closed.engines), tuple(closed.engines.values()), closed.transfer)
    return SimulatedCapacity(engines, closed, requests=requests)


def by_hand(engines: Engines, requests: int = 1000) -> SimulatedCapacity:
    closed = ClosedForm(dict(zip(engines.roles, engines.timing, strict=True)), engines.transfer)
    return SimulatedCapacity(engines, closed, requests=requests)


@pytest.mark.parametrize("dispersion", [1.0, 4.0])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("load", "tolerance"), [(0.1, 0.01), (0.4, 0.03), (0.6, 0.06)])
def test_it_agrees_with_the_closed_form_at_light_and_moderate_load(
    load: float, tolerance: float, workers: int, dispersion: float
) -> None:
    demand = conversation(load * FULL_RPS * workers, dispersion)
    counts = {PREFILL: workers, DECODE: workers}
    a = shipped(h200()).evaluator(demand, H200_SLA).predict(counts)
    b = h200().evaluator(demand, H200_SLA).predict(counts)
    assert a.attainment == pytest.approx(b.attainment, abs=tolerance)
    assert a.ttft_attainment == pytest.approx(b.ttft_attainment, abs=tolerance)
    assert a.itl_attainment == pytest.approx(b.itl_attainment, abs=tolerance)
    # The closed form takes the ITL at the mean batch; in bursts most tokens are made in larger ones.
    assert a.itl_ms == pytest.approx(b.itl_ms, rel=0.05 if dispersion == 1 else 0.1)
    assert a.utilisation == b.utilisation


def test_aggregated_workers_agree_at_light_load() -> None:
    demand = conversation(3.0)
    a = shipped(h200_aggregated()).evaluator(demand, H200_SLA).predict({AGGREGATED: 1})
    b = h200_aggregated().evaluator(demand, H200_SLA).predict({AGGREGATED: 1})
    assert a.attainment == pytest.approx(b.attainment, abs=0.05)


def test_a_lone_request_by_hand() -> None:
    # One request every 10 s, 100 tokens in and 10 out: prefill 11 ms; then steps of 5 + 0.1 ms and 0.001 ms a KV token.
    model = by_hand(aggregated(engine()), requests=50)
    found = model.evaluator(equal(0.1), EASY).predict({AGGREGATED: 1})
    assert found.attainment == found.ttft_attainment == found.itl_attainment == 1.0
    assert found.ttft_ms == pytest.approx(11.0, rel=1e-3)
    assert found.itl_ms == pytest.approx(5.1 + 0.001 * 105, abs=0.02)


def test_more_workers_attain_no_less() -> None:
    demand = conversation(2.6 * FULL_RPS, 2.0)
    evaluator = shipped(h200()).evaluator(demand, H200_SLA)
    found = {(p, d): evaluator.predict({PREFILL: p, DECODE: d}).attainment for p in range(1, 6) for d in range(1, 5)}
    for (p, d), attainment in found.items():
        # Common random numbers; what is left is the gateway's choice among more workers.
        assert found.get((p + 1, d), 1.0) >= attainment - 0.01, (p, d)
        assert found.get((p, d + 1), 1.0) >= attainment - 0.01, (p, d)
    assert found[1, 1] < 0.2
    assert found[5, 4] > 0.95


def test_more_load_attains_no_more() -> None:
    evaluator = shipped(h200()).evaluator(conversation(1.0), H200_SLA)
    shares = [evaluator.at_rate(rate).predict({PREFILL: 1, DECODE: 1}).attainment for rate in (5, 15, 25, 35, 50)]
    for lighter, heavier in itertools.pairwise(shares):
        assert heavier <= lighter + 0.01
    assert shares[0] > 0.95
    assert shares[-1] < 0.1


def test_no_load_is_the_ceiling() -> None:
    evaluator = shipped(h200()).evaluator(conversation(0.0), H200_SLA)
    assert evaluator.predict({PREFILL: 1, DECODE: 1}) == evaluator.ceiling()
    assert evaluator.ceiling() == h200().evaluator(conversation(0.0), H200_SLA).ceiling()
    assert evaluator.nearest() == H200_SLA


def test_no_workers_attain_nothing() -> None:
    evaluator = shipped(h200()).evaluator(conversation(5.0), H200_SLA)
    for counts in ({PREFILL: 0, DECODE: 3}, {PREFILL: 3, DECODE: 0}):
        found = evaluator.predict(counts)
        assert (found.attainment, found.ttft_ms, found.itl_ms) == (0.0, np.inf, np.inf)


def test_a_demand_that_fits_no_worker_attains_nothing() -> None:
    for engines in (aggregated(engine(capacity=1600)), disaggregated(engine(capacity=1600), engine(capacity=1600))):
        evaluator = by_hand(engines, requests=100).evaluator(equal(1.0, isl=5000), EASY)
        found = evaluator.predict(dict.fromkeys(engines.roles, 2))
        assert found.attainment == found.ttft_attainment == found.itl_attainment == 0.0
        assert found.ttft_ms == np.inf


def test_what_never_completes_does_not_attain() -> None:
    # Each request takes the worker 10 s of prefill; one comes every 0.1 s, and the first fifth does not count.
    found = by_hand(aggregated(engine(fixed_ms=10_000.0, batched=128)), 500).evaluator(equal(10.0), EASY)
    assert found.predict({AGGREGATED: 1}).attainment == 0.0


def test_a_prediction_is_made_once_and_is_the_same_again() -> None:
    counts = {PREFILL: 2, DECODE: 2}
    evaluator = shipped(h200()).evaluator(conversation(40.0), H200_SLA)
    first = evaluator.predict(counts)
    assert evaluator.predict(counts) is first
    assert shipped(h200()).evaluator(conversation(40.0), H200_SLA).predict(counts) == first


def test_models_by_name() -> None:
    engines = aggregated(engine())
    assert capacity_model("closed-form", engines, "least_loaded").name == "closed-form"
    for given, name in (
        ("simulator", "simulator:least_loaded"),
        ("simulator:round_robin", "simulator:round_robin"),
        ("simulator:least_loaded", "simulator:least_loaded"),
    ):
        model = capacity_model(given, engines, "least_loaded")
        # The name in a record leads back to the same model.
        assert model.name == name == capacity_model(model.name, engines, "round_robin").name
        assert model.roles == (Role.AGGREGATED,)
    for wrong in ("", "oracle", "simulator:random", "closed-form:x"):
        with pytest.raises(InputError, match="is unknown"):
            capacity_model(wrong, engines, "least_loaded")
