"""What a proposed layout change means on the cluster: which objects, of how many GPUs; refused where it cannot be."""

from __future__ import annotations

from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ClusterError, ConflictError
from planner.connectors.kubernetes.rollout.clone import KINDS, RETIRED, clone_name, gpus_of_layout
from planner.connectors.kubernetes.rollout.components import Components, component_of
from planner.connectors.kubernetes.target import PoolTarget
from planner.core.layout_change import LayoutProposal
from planner.core.transition import Intent, Side
from worker_graph.kubernetes import labels as names


def intent_of(
    proposal: LayoutProposal, target: PoolTarget, old_gpus: int | None, cluster: Cluster, now_s: float
) -> Intent:
    """The change as it is to be recorded.

    Args:
        proposal: what to change to.
        target: the pool.
        old_gpus: of one worker now; None where they cannot be read.
        cluster: with the pool's object.
        now_s: unix time.

    Raises:
        ConnectorError: the pool has another layout, or is of a kind whose layout is not changed.
        InputError: its engine's arguments cannot be changed.
    """
    if target.layout != proposal.old:
        found = "unknown" if target.layout is None else names.layout(*target.layout)
        raise ConflictError(f"pool {proposal.pool} has layout {found}, not {names.layout(*proposal.old)}")
    tp, dp = proposal.new
    if old_gpus is None:
        raise ClusterError(f"the GPUs of {target.object_name} cannot be read: set gpus_per_worker")
    component = component_of(target)
    if component is not None:
        components = Components(cluster)
        resource, name = components.graph_of(target)
        gpus = components.gpus_after(resource, name, component, tp, dp)
        if gpus in {0, old_gpus}:
            raise ClusterError(f"layouts of {component} that hold as many GPUs are not told apart while one changes")
        new_name = name
    elif target.resource in KINDS:
        resource, name = target.resource, target.object_name
        thing = cluster.read(resource, name)
        gpus = gpus_of_layout(thing, resource, tp, dp) or proposal.new_gpus
        new_name = _name_of(cluster, target, tp, dp)
    else:
        kinds = ", ".join([*(one.kind for one in KINDS), "DynamoGraphDeployment"])
        raise ClusterError(f"the layout of a {target.resource.kind} is not changed; only that of {kinds}")
    return Intent(
        pool=proposal.pool,
        old=Side(name, *proposal.old, old_gpus, max(1, proposal.old_workers)),
        new=Side(new_name, tp, dp, gpus, max(1, proposal.new_workers)),
        promised=proposal.least_capacity,
        patience_s=proposal.patience_s,
        began_s=now_s,
        lacking=max(1, proposal.new_workers),
        since_s=now_s,
        resource=resource.name,
    )


def _name_of(cluster: Cluster, target: PoolTarget, tp: int, dp: int) -> str:
    """The retired object of that layout where there is one, else a new name."""
    selector = f"{RETIRED}={target.selector.get(names.POOL, target.pool)}"
    for thing in cluster.list(target.resource, labels=selector).items:
        if (thing["metadata"].get("labels") or {}).get(names.LAYOUT) == names.layout(tp, dp):
            return str(thing["metadata"]["name"])
    return clone_name(target.object_name, tp, dp)
