from __future__ import annotations

from planner.connectors.kubernetes.pods import Phase, Pod, PodWorker
from planner.connectors.kubernetes.resources import DEPLOYMENTS, LEADER_WORKER_SETS, Resource
from planner.connectors.kubernetes.rollout.sides import seen_of
from planner.connectors.kubernetes.target import PoolTarget
from planner.core.transition import Seen


def target(resource: Resource, desired: int) -> PoolTarget:
    return PoolTarget(
        pool="Decode",
        resource=resource,
        object_name="chat",
        desired=desired,
        pods_per_worker=1,
        gpus_per_worker=2,
        layout=(2, 1),
        selector={},
        managers=(),
        uid="",
        resource_version="1",
    )


def group(number: int, phase: Phase = Phase.READY) -> PodWorker:
    name = f"chat-{number}"
    return PodWorker(name, "Decode", phase, "", (Pod(name, name, phase),))


def seen(resource: Resource, *workers: PodWorker) -> Seen:
    return seen_of(target(resource, 4), workers, retired=False)


def test_numbered_groups_are_known_by_their_place() -> None:
    found = seen(LEADER_WORKER_SETS, group(10), group(2), *(group(i) for i in (0, 1, 3, 4, 5, 6, 7, 8)), group(9))
    assert found.by_index == (True,) * 11
    assert seen(LEADER_WORKER_SETS, group(1, Phase.STARTING), group(0)).by_index == (True, False)
    assert seen(LEADER_WORKER_SETS).by_index == ()


def test_a_group_that_is_made_anew_keeps_its_place() -> None:
    """Two are left of four when the object is lowered to two, and one of them does not serve."""
    found = seen(LEADER_WORKER_SETS, group(0, Phase.TERMINATING), group(1), group(2), group(3))
    assert found.by_index == (False, True, True, True)
    assert (found.existing, found.ready, found.terminating) == (3, 3, 1)
    assert found.ready_at(2) == 1


def test_pods_of_a_deployment_are_not_numbered() -> None:
    assert seen(DEPLOYMENTS, group(0), group(1, Phase.STARTING)).by_index is None
