"""Other controllers of the same replicas: those that say so by an object, and those that are seen doing it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ForbiddenError, NotFoundError
from planner.connectors.kubernetes.resources import AUTOSCALERS, AUTOSCALERS_V1, SCALED_OBJECTS, Resource
from planner.connectors.kubernetes.target import PoolTarget

_PAUSED = "autoscaling.keda.sh/paused"


def rivals(cluster: Cluster, targets: Sequence[PoolTarget]) -> dict[str, str]:
    """Who else sets the replicas of these pools by an object that says so, asked once; see `Autoscalers`."""
    return Autoscalers(cluster).rivals(targets)


#: What is not installed, or may not be listed, is asked for again after so many ticks: ten minutes of ticks of 15 s.
ASK_AGAIN = 40


@dataclass(slots=True)
class _Kind:
    """One kind: its versions, the one that answers first; ticks until it is asked for again, and what that hides."""

    versions: tuple[Resource, ...]
    rests: int = 0
    blind: str = ""


class Autoscalers:
    """HorizontalPodAutoscalers and KEDA ScaledObjects of a namespace: one list each.

    Autoscalers are listed as autoscaling/v2, and as v1 where the server is older than 1.23. What is not installed, and
    what the planner may not list, is asked for again only after `ASK_AGAIN` ticks; `blind` says what that hides.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._kinds = [_Kind((AUTOSCALERS, AUTOSCALERS_V1)), _Kind((SCALED_OBJECTS,))]

    @property
    def blind(self) -> tuple[str, ...]:
        """What could not be looked at, for people."""
        return tuple(kind.blind for kind in self._kinds if kind.blind)

    def rivals(self, targets: Sequence[PoolTarget]) -> dict[str, str]:
        """Who else sets the replicas of these pools, and what to do about it, by pool; without those that nobody does.

        Raises:
            ClusterError: the API server does not answer.
        """
        found = {target.pool: rival for target in targets if (rival := getattr(target, "rival", ""))}
        # KEDA's first: it makes HorizontalPodAutoscalers of its own, which nobody should delete.
        listed = [_Autoscaler.of(one) for kind in reversed(self._kinds) for one in self._list(kind)]
        for target in targets:
            for scaler in listed:
                if scaler.scales(target):
                    found.setdefault(target.pool, f"{scaler.name} also sets the replicas of {_advice(target)}")
        return found

    def _list(self, kind: _Kind) -> Sequence[Mapping[str, Any]]:
        if kind.rests > 0:
            kind.rests -= 1
            return []
        blind = ""
        for resource in kind.versions:
            try:
                found = [{**one, "kind": resource.kind} for one in self._cluster.list(resource).items]
            except NotFoundError:
                continue
            except ForbiddenError as error:
                blind = f"{error}; a {resource.kind} of the same replicas would not be noticed"
                break
            kind.versions = (resource, *(other for other in kind.versions if other != resource))
            kind.blind = ""
            return found
        kind.rests, kind.blind = ASK_AGAIN, blind
        return []


@dataclass(frozen=True, slots=True)
class _Autoscaler:
    """One object that sets replicas: its name for people, and what it scales."""

    name: str
    group: str
    kind: str
    target: str
    active: bool

    @classmethod
    def of(cls, thing: Mapping[str, Any]) -> _Autoscaler:
        meta, spec = thing["metadata"], thing.get("spec") or {}
        to = spec.get("scaleTargetRef") or {}
        # KEDA's default is a Deployment; an autoscaler always names the kind.
        group = str(to.get("apiVersion") or "apps/v1").rpartition("/")[0]
        paused = str((meta.get("annotations") or {}).get(_PAUSED, "")).lower() == "true"
        active = not paused and not meta.get("deletionTimestamp")
        kind = str(to.get("kind") or "Deployment")
        return cls(f"{thing['kind']} {meta['name']}", group, kind, str(to.get("name") or ""), active)

    def scales(self, target: PoolTarget) -> bool:
        resource = target.resource
        wanted = (resource.group, resource.kind, target.object_name)
        return self.active and (self.group, self.kind, self.target) == wanted


def _advice(target: PoolTarget) -> str:
    what = f"{target.resource.kind} {target.object_name}"
    return f"{what}: delete it, or take {target.pool} out of the planner's pools"


@dataclass(slots=True)
class _Record:
    """What is known of one pool."""

    wrote: int | None = None
    reversals: deque[int] = field(default_factory=deque)
    fights: int = 0
    until: int = 0
    words: str = ""


class Fights:
    """Notices who sets replicas back that the planner has written, whoever it is.

    One change by somebody else is a person at work (`kubectl scale`), and the planner's next tick decides on what it
    finds. Two within a few ticks are a fight: the planner then leaves the pool alone for a while, and looks again;
    each fight that begins anew makes the while longer.

    Args:
        changes: reversals that make a fight.
        within: ticks that they may lie apart.
        hold: ticks for which the pool is left alone after the first fight; twice as long after each one that follows.
        longest: most ticks that it is.
    """

    def __init__(self, *, changes: int = 2, within: int = 10, hold: int = 20, longest: int = 320) -> None:
        self._changes, self._within, self._hold, self._longest = changes, within, hold, longest
        self._records: dict[str, _Record] = {}
        self._tick = 0

    def wrote(self, pool: str, replicas: int) -> None:
        """The planner has set these replicas."""
        self._records.setdefault(pool, _Record()).wrote = replicas

    def saw(self, targets: Sequence[PoolTarget]) -> dict[str, str]:
        """Once a tick, what is there now.

        Returns:
            By pool, who fights for it and what to do; only those that the planner should leave alone.
        """
        self._tick += 1
        found = {}
        for target in targets:
            record = self._records.setdefault(target.pool, _Record())
            self._count(record, target)
            if self._tick < record.until:
                found[target.pool] = record.words
        return found

    def _count(self, record: _Record, target: PoolTarget) -> None:
        if self._tick >= record.until and record.fights and self._tick - record.until > self._within:
            record.fights = 0  # it has been quiet since
        if record.wrote is None or target.desired == record.wrote:
            return
        wrote, record.wrote = record.wrote, None
        record.reversals.append(self._tick)
        while record.reversals and record.reversals[0] <= self._tick - self._within:
            record.reversals.popleft()
        if len(record.reversals) < self._changes:
            return
        record.reversals.clear()
        rest = min(self._hold * 2**record.fights, self._longest)
        record.fights, record.until = record.fights + 1, self._tick + rest
        who = target.managers[-1] if target.managers else "another controller"
        record.words = (
            f"{who} set the replicas of {target.resource.kind} {target.object_name} back, at last from {wrote} to "
            f"{target.desired}; left alone for {rest} ticks: stop it, or take {target.pool} out of the planner's pools"
        )
