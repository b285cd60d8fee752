from __future__ import annotations

from planner.connectors.kubernetes.pods import Phase, Pod, PodWorker, worker_of
from planner.connectors.kubernetes.starts import KEPT, Starts


def worker(
    uid: str,
    *,
    ready_s: float | None = None,
    created_s: float = 1000.0,
    scheduled_s: float | None = None,
    never_ready: bool = True,
    restarts: int = 0,
    pool: str = "decode",
) -> PodWorker:
    ready = ready_s is not None
    pod = Pod(
        name=uid,
        uid=uid,
        phase=Phase.READY if ready else Phase.STARTING,
        created_s=created_s,
        scheduled_s=scheduled_s if scheduled_s is not None else created_s,
        ready_s=ready_s,
        never_ready=never_ready and not ready,
        restarts=restarts,
    )
    made = worker_of(uid, pool, [pod])
    assert made is not None
    return made


def learnt(*reads: list[PodWorker]) -> tuple[float, ...]:
    starts = Starts()
    for read in reads:
        starts.see(read)
    return starts.seconds.get("decode", ())


def test_a_start_that_was_watched_counts_once() -> None:
    ready = worker("a", ready_s=1090.0)
    assert learnt([worker("a")], [ready], [ready], []) == (90.0,)


def test_a_worker_made_and_ready_between_two_reads_counts() -> None:
    assert learnt([], [worker("a", ready_s=1020.0)]) == (20.0,)


def test_a_worker_that_was_ready_when_the_planner_came_does_not() -> None:
    assert learnt([worker("a", ready_s=9000.0)], [worker("a", ready_s=9000.0)]) == ()


def test_readiness_that_comes_back_does_not() -> None:
    assert learnt([worker("a")], [worker("a", ready_s=1050.0)], [worker("a")], [worker("a", ready_s=5000.0)]) == (50.0,)
    # It was ready and lost it before this planner came.
    assert learnt([worker("a", never_ready=False)], [worker("a", ready_s=5000.0)]) == ()


def test_a_start_with_a_crash_does_not() -> None:
    assert learnt([worker("a")], [worker("a", restarts=1)], [worker("a", ready_s=2000.0, restarts=1)]) == ()


def test_waiting_for_a_new_node_counts_and_a_shortage_does_not() -> None:
    soon = worker("a", ready_s=1460.0, scheduled_s=1400.0)
    assert learnt([worker("a")], [soon]) == (460.0,)
    late = worker("a", ready_s=8060.0, scheduled_s=8000.0)
    assert learnt([worker("a")], [late]) == (60.0,)


def test_they_stay_when_pods_go_newest_last_and_not_without_end() -> None:
    first = [worker(str(i), ready_s=1000.0 + 500 - i) for i in range(KEPT)]
    found = learnt([], first, [], [worker("x", ready_s=7.0, created_s=0.0)])
    assert len(found) == KEPT
    assert found[-1] == 7.0
    assert list(found[:-1]) == sorted(found[:-1])


def group(*pods: Pod) -> PodWorker:
    made = worker_of("g-0", "decode", pods, 2)
    assert made is not None
    return made


def test_a_group_has_started_when_its_last_pod_is_ready() -> None:
    a = Pod("g-0-0", "a", Phase.READY, created_s=1000.0, ready_s=1030.0)
    b = Pod("g-0-1", "b", Phase.STARTING, created_s=1001.0, never_ready=True)
    c = Pod("g-0-1", "b", Phase.READY, created_s=1001.0, ready_s=1100.0)
    assert learnt([group(a, b)], [group(a, c)]) == (100.0,)


def test_a_group_of_which_one_pod_is_replaced_does_not_start() -> None:
    a = Pod("g-0-0", "a", Phase.READY, created_s=1000.0, ready_s=1030.0)
    b = Pod("g-0-1", "b", Phase.READY, created_s=1000.0, ready_s=1030.0)
    new = Pod("g-0-1", "n", Phase.STARTING, created_s=5000.0, never_ready=True)
    back = Pod("g-0-1", "n", Phase.READY, created_s=5000.0, ready_s=5050.0)
    assert learnt([], [group(a, b)], [group(a, new)], [group(a, back)]) == (30.0,)
