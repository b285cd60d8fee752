from __future__ import annotations

from planner.connectors.kubernetes.order import PoolWorkers, Write, order


def pool(name: str, desired: int, gpus: int = 1, terminating: int = 0, unschedulable: int = 0) -> PoolWorkers:
    return PoolWorkers(name, desired, desired, terminating, gpus, unschedulable)


def test_at_the_limit_the_pool_that_grows_waits_for_the_workers_that_drain() -> None:
    plan = {"prefill": 1, "decode": 5}
    first = order(plan, [pool("decode", 4), pool("prefill", 2)], max_gpus=6)
    assert first.writes == (Write("prefill", 2, 1),)
    assert first.waits == {"decode": 1}
    draining = order(plan, [pool("decode", 4), pool("prefill", 1, terminating=1)], max_gpus=6)
    assert draining.writes == ()
    after = order(plan, [pool("decode", 4), pool("prefill", 1)], max_gpus=6)
    assert after.writes == (Write("decode", 4, 5),)
    assert after.waits == {}


def test_with_room_both_change_at_once_lowered_pools_first() -> None:
    found = order({"a": 5, "b": 1}, [pool("a", 4), pool("b", 2)], max_gpus=8)
    assert found.writes == (Write("b", 2, 1), Write("a", 4, 5))


def test_the_pool_furthest_below_its_plan_grows_first() -> None:
    found = order({"a": 8, "b": 4}, [pool("a", 6), pool("b", 1)], max_gpus=9)
    assert found.writes == (Write("b", 1, 3),)
    assert found.waits == {"a": 2, "b": 1}


def test_a_pool_without_nodes_for_its_workers_grows_after_the_others() -> None:
    found = order({"a": 8, "b": 4}, [pool("a", 1, unschedulable=1), pool("b", 3)], max_gpus=5)
    assert found.writes == (Write("b", 3, 4),)
    assert found.waits == {"a": 7}


def test_above_the_budget_it_only_lowers() -> None:
    found = order({"a": 3, "b": 4}, [pool("a", 6), pool("b", 3)], max_gpus=8)
    assert found.writes == (Write("a", 6, 3),)


def test_a_pool_that_is_not_named_stays_and_counts() -> None:
    found = order({"a": 3}, [pool("a", 1), pool("b", 2, gpus=2)], max_gpus=6)
    assert found.writes == (Write("a", 1, 2),)


def test_what_a_smaller_worker_needs_is_not_kept_for_a_larger_one() -> None:
    found = order({"a": 1, "b": 2}, [pool("a", 0, gpus=4), pool("b", 1)], max_gpus=3)
    assert found.writes == (Write("b", 1, 2),)


def test_what_other_pods_of_the_graph_hold_counts() -> None:
    assert order({"a": 3}, [pool("a", 1)], max_gpus=4, elsewhere=2).writes == (Write("a", 1, 2),)


def test_what_a_lowered_pool_desired_and_did_not_have_is_not_free_at_once() -> None:
    # Its controller may have made these pods since they were counted.
    found = order({"a": 3, "b": 2}, [PoolWorkers("a", 5, 3, 0, 1), pool("b", 1)], max_gpus=6)
    assert found.writes == (Write("a", 5, 3),)
