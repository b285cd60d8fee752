"""Other controllers that set the replicas of the same objects: two of them take turns, and neither gets its way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from planner.connectors.kubernetes.ownership import AUTOSCALER_MANAGERS
from planner.connectors.kubernetes.rivals import Autoscalers
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.targets.seen import SeenPool
from planner.doctor.base import Check, failed, passed, skipped, warned
from planner.doctor.scene import Scene


def competing(scene: Scene) -> Iterator[Check]:
    """HPAs, KEDA's ScaledObjects, a Dynamo graph's own planner, owners, and whoever set replicas last."""
    targets = [one.target for one in scene.pools]
    autoscalers = Autoscalers(scene.api())
    found = autoscalers.rivals(targets)
    for blind in autoscalers.blind:
        yield skipped("competing", blind)
    yield from judge(targets, found, always=scene.kubernetes.takeover == "always")


def judge(targets: Sequence[PoolTarget], rivals: Mapping[str, str], *, always: bool) -> Iterable[Check]:
    """Checks of the pools.

    Args:
        targets: the pools.
        rivals: who else sets the replicas by what objects say, and what to do, by pool.
        always: whether the planner takes the replicas from them (`takeover: always`).
    """
    for pool, text in rivals.items():
        found, _, fix = text.partition(": ")
        if always:
            yield warned(
                f"competing {pool}", found, f"{fix}; the planner takes them (takeover: always), and both write"
            )
        else:
            yield failed(f"competing {pool}", found, f"{fix}; until then the planner leaves this pool alone")
    for target in targets:
        # An autoscaler that is gone still stands in the managed fields; those that are there have objects.
        claims = [one for one in target.claims if one.scales] if isinstance(target, SeenPool) else []
        others = [one.manager for one in claims if one.manager not in AUTOSCALER_MANAGERS]
        if others and target.pool not in rivals:
            text = f"{others[-1]} has set the replicas of {target.resource.kind} {target.object_name}"
            fix = (
                "nothing, if that was once, by hand; else stop it, or take the pool out of the planner's configuration"
            )
            yield warned(f"managed {target.pool}", text, fix)
    if not rivals:
        yield passed("competing", "nothing else scales the pools by an object that says so")
