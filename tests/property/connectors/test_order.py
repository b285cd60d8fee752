from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.connectors.kubernetes.order import PoolWorkers, order

GPUS = st.sampled_from([0, 1, 1, 2, 4, 8])
FEW = st.integers(0, 6)


@dataclass
class Graph:
    """Pools on a cluster whose controllers do one thing at a time, in any order."""

    pools: dict[str, PoolWorkers]
    elsewhere: int = 0

    @property
    def held(self) -> int:
        """What is held or may come to be held at this instant, by definition of the budget."""
        return self.elsewhere + sum(
            one.gpus * (max(one.desired, one.live) + one.terminating) for one in self.pools.values()
        )

    def step(self, choice: int) -> bool:
        """One controller does one thing; False when there is nothing to do."""
        moves = []
        for name, one in self.pools.items():
            if one.live < one.desired:
                moves.append((name, replace(one, live=one.live + 1)))
            if one.live > one.desired:
                less = replace(one, live=one.live - 1, unschedulable=max(one.unschedulable - 1, 0))
                moves.append((name, less if one.unschedulable else replace(less, terminating=one.terminating + 1)))
            if one.terminating:
                moves.append((name, replace(one, terminating=one.terminating - 1)))
        if not moves:
            return False
        name, after = moves[choice % len(moves)]
        self.pools[name] = after
        return True


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    pools = {}
    for i in range(draw(st.integers(1, 4))):
        live = draw(FEW)
        pools[f"p{i}"] = PoolWorkers(f"p{i}", draw(FEW), live, draw(FEW), draw(GPUS), draw(st.integers(0, live)))
    return Graph(pools, draw(st.sampled_from([0, 0, 0, 3])))


@st.composite
def plans(draw: st.DrawFn, graph: Graph, budget: int | None) -> dict[str, int]:
    """For some of the pools; within the budget where there is one, those that it does not name included."""
    named = [name for name in graph.pools if draw(st.booleans()) or budget is not None]
    plan = {name: draw(FEW) for name in named}
    while budget is not None and sum(graph.pools[name].gpus * count for name, count in plan.items()) > budget:
        largest = max(plan, key=lambda name: graph.pools[name].gpus * plan[name])
        plan[largest] -= 1
    return plan


@given(st.data())
@settings(max_examples=400)
def test_the_budget_holds_at_every_instant_whatever_controllers_do_between_read_and_writes(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    # Near the limit, where it is decided.
    max_gpus = max(graph.held + data.draw(st.integers(-4, 6)), 0)
    for _ in range(data.draw(st.integers(1, 3))):
        plan = data.draw(plans(graph, None))
        steps = order(plan, list(graph.pools.values()), max_gpus, graph.elsewhere)
        rises = [write.after > write.before for write in steps.writes]
        assert rises == sorted(rises), "lowered pools come first"
        for write in steps.writes:
            # Between the read and a write, and between two writes, controllers go on.
            for choice in data.draw(st.lists(st.integers(0, 20), max_size=12)):
                graph.step(choice)
            before, one = graph.held, graph.pools[write.pool]
            wanted = plan[write.pool]
            assert write.before == one.desired
            assert one.desired < write.after <= wanted or one.desired > write.after == wanted
            graph.pools[write.pool] = replace(one, desired=write.after)
            assert graph.held <= max(max_gpus, before), "a write took more than the budget"
            if write.after > write.before and one.gpus:
                assert graph.held <= max_gpus


@given(st.data())
@settings(max_examples=200)
def test_repeated_it_reaches_every_plan_that_fits_and_then_writes_nothing(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    max_gpus = graph.elsewhere + data.draw(st.integers(0, 40))
    plan = data.draw(plans(graph, max_gpus - graph.elsewhere))
    for _ in range(40):
        pools = list(graph.pools.values())
        steps = order(plan, pools, max_gpus, graph.elsewhere)
        assert order(plan, pools, max_gpus, graph.elsewhere) == steps
        for write in steps.writes:
            graph.pools[write.pool] = replace(graph.pools[write.pool], desired=write.after)
        # All at rest before the next call: no worker stays unschedulable for lack of a look.
        while graph.step(0):
            pass
    assert {name: one.desired for name, one in graph.pools.items()} == plan
    settled = order(plan, list(graph.pools.values()), max_gpus, graph.elsewhere)
    assert not settled.writes
    assert not settled.waits


@given(st.data())
def test_it_raises_as_much_as_is_free(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    max_gpus = data.draw(st.integers(0, graph.held + 20))
    plan = data.draw(plans(graph, None))
    steps = order(plan, list(graph.pools.values()), max_gpus, graph.elsewhere)
    taken = sum(graph.pools[one.pool].gpus * max(one.after - one.before, 0) for one in steps.writes)
    left = max_gpus - graph.held - taken
    assert left >= 0 or taken == 0
    assert all(graph.pools[name].gpus > left for name in steps.waits)
