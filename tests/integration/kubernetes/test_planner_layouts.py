"""The planner as manifests/ installs it changes a pool's layout by its own decision, under traffic; and when killed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from planner.connectors.kubernetes.events import Change
from planner.demo.settings import DECODE, PREFILL
from tests.fault_tolerance.planner.traffic import Traffic
from tests.kubernetes.audit import ApiCall
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation.actors import ACTS, overlaps, strays
from tests.kubernetes.installation.follow import Follower
from tests.kubernetes.installation.graphs import CHANGING, GRAPH
from tests.kubernetes.installation.installation import PATIENCE_S, Installation, installed
from tests.kubernetes.installation.planner import Planner
from tests.kubernetes.proxy import Fault, Proxy, running_proxy
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

OLD, NEW, STATE = f"{GRAPH}-{DECODE}", f"{GRAPH}-{DECODE}-tp1", f"plimsoll-{GRAPH}-state"

#: One prefill worker is enough for it, and so is one decode worker of either layout.
RPS = 1.0

#: Two decode workers are asked for in any case. In TP1 they hold two GPUs less, which a quarter of an hour pays for.
WISHES: dict[str, Any] = {
    "profiles": [str(CHANGING.profiles[PREFILL]), *(str(CHANGING.profiles[DECODE]).format(tp=tp) for tp in (2, 1))],
    "pools": {
        PREFILL: {"role": "prefill", "max_workers": 1},
        DECODE: {"role": "decode", "min_workers": 2, "max_workers": 2},
    },
    "layouts": {"enabled": True, "horizon_s": 1800.0, "every_s": 40.0, "between_s": 80_000.0, "drain_s": 20.0},
}


#: What the cluster's users are told of a change, in its order, and on which object.
EVENTS = [
    (Change.STARTED, OLD),
    (Change.CREATED, NEW),
    ("ScaledUp", NEW),
    ("ScaledDown", OLD),
    ("ScaledUp", NEW),
    ("ScaledDown", OLD),
    (Change.RETIRED, OLD),
    (Change.COMPLETED, NEW),
]
REASONS = {*Change, "ScaledUp", "ScaledDown"}


class ServingWatch(Follower):
    """Of the decode workers that serve and are to go on.

    Attributes:
        shares: of the capacity of two of them, after each change of a pod, with its unix time; oldest first.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__(cluster, namespace, "serving-watch")
        self.shares: list[tuple[float, float]] = []
        self._serving: set[str] = set()

    def lister(self, api: client.ApiClient) -> Callable[..., Any]:
        """Pods."""
        listing: Callable[..., Any] = client.CoreV1Api(api).list_namespaced_pod
        return listing

    def listed(self, objects: list[Any]) -> None:
        """Count afresh."""
        self._serving = set()
        for one in objects:
            self._count("MODIFIED", one)
        self._note()

    def changed(self, kind: str, thing: Any) -> None:
        """One came, went, or changed."""
        self._count(kind, thing)
        self._note()

    def _count(self, kind: str, thing: Any) -> None:
        if (thing.metadata.labels or {}).get("plimsoll.io/role") != "decode":
            return
        ready = any(one.type == "Ready" and one.status == "True" for one in thing.status.conditions or ())
        if kind != "DELETED" and ready and thing.metadata.deletion_timestamp is None:
            self._serving.add(thing.metadata.uid)
        else:
            self._serving.discard(thing.metadata.uid)

    def _note(self) -> None:
        # A worker of either layout stands for one of the other.
        self.shares.append((time.time(), len(self._serving) / 2.0))

    def least_since(self, at_s: float) -> float:
        """The least share at any moment since a unix time."""
        return min(share for seen_s, share in self.shares if seen_s >= at_s)


@dataclass
class Scene:
    """A graph in TP2 under traffic, and two planners to which TP1 will look better.

    Attributes:
        mark: of the audit log, before there was a planner.
        identities: of all planners that ran, by pod.
    """

    made: Installation
    proxy: Proxy
    serving: ServingWatch
    traffic: Traffic
    mark: int
    identities: dict[str, str]

    def know(self) -> None:
        """Remember who the planners of now are."""
        self.identities |= {one.pod: one.identity for one in self.made.wait_for_planners(2)}

    def acting(self) -> Planner:
        """The one that acts, as soon as one does."""

        def found() -> list[Planner]:
            return [one for one in self.made.planners() if one.has_ticked() and one.holds()]

        wait_until(lambda: len(found()) == 1, "one planner acts", PATIENCE_S, every_s=0.2)
        return found()[0]

    def objects(self) -> dict[str, tuple[int, bool]]:
        """Replicas of the decode pool's Deployments, and whether they are out of use, by name."""
        found = client.AppsV1Api(self.made.api).list_namespaced_deployment(self.made.namespace).items
        retired = "plimsoll.io/retired-from"
        return {
            one.metadata.name: (int(one.spec.replicas), retired in one.metadata.labels)
            for one in found
            if one.metadata.name in {OLD, NEW}
        }

    def recorded(self) -> dict[str, str]:
        """What the ConfigMap says of layout changes."""
        found = self.made.core.list_namespaced_config_map(self.made.namespace).items
        data = next((one.data or {} for one in found if one.metadata.name == STATE), {})
        return {key: text for key, text in data.items() if key.startswith("layout-")}

    def changed(self) -> bool:
        """Whether a change has ended."""
        return self.recorded().keys() == {"layout-history"}

    def calls(self) -> list[ApiCall]:
        """What planners asked the API server since they were installed."""
        assert isinstance(self.made.cluster, ControlPlane)
        found = self.made.cluster.audit(self.mark, namespace=self.made.namespace)
        return [one for one in found if one.pod in self.identities]

    def changes(self) -> list[ApiCall]:
        """What planners wrote to objects of the decode pool from the creation of the new one on."""
        found = [one for one in self.calls() if one.resource == "deployments" and one.verb in {"create", "patch"}]
        mine = [one for one in found if one.name in {OLD, NEW} and one.code < 300]
        return mine[next(i for i, one in enumerate(mine) if one.verb == "create") :]

    def writes(self) -> list[tuple[str, str, str]]:
        """The same, as verb, object and subresource."""
        return [(one.verb, one.name, one.subresource) for one in self.changes()]

    def told(self) -> list[tuple[str, str, str]]:
        """The planners' Events of the change, oldest first: reason, object, message."""
        found = self.made.core.list_namespaced_event(self.made.namespace).items
        ours = [one for one in found if one.reporting_component == "plimsoll-planner" and one.reason in REASONS]
        ours.sort(key=lambda one: one.event_time)
        said = [(one.reason, one.involved_object.name, one.message) for one in ours]
        return said[[reason for reason, _, _ in said].index(Change.STARTED) :]

    def check(self) -> float:
        """The end of a change, and all that must have held on the way; returns its seconds."""
        self.made.wait_for_planners(2)
        actor = self.acting()
        wait_until(actor.settled, "the new workers serve", PATIENCE_S, every_s=0.2)
        # And on as ever, with the other model.
        (newest,) = actor.wait_for_ticks(1)[-1:]
        state = actor.state()
        self.traffic.stop()
        assert self.objects() == {OLD: (0, True), NEW: (2, False)}
        assert actor.counts() == {PREFILL: (1, 1), DECODE: (2, 2)}
        assert {pool["name"]: pool["gpus_per_worker"] for pool in state["settings"]["pools"]}[DECODE] == 1
        profiles = [Path(one["path"]).name for one in actor.record(newest)["profiles"]]
        assert profiles == ["prefill-tp1-dp1", "decode-tp1-dp1"]
        assert newest["plan"] == {PREFILL: 1, DECODE: 2}
        writes = self.changes()
        began_s, ended_s = writes[0].time.timestamp(), writes[-1].time.timestamp()
        assert self.made.watch.most <= CHANGING.budget, self.made.watch.moments
        assert self.serving.least_since(began_s) >= 1.0, self.serving.shares
        self.traffic.check()
        acts = ACTS | {("configmaps", "")}
        calls = self.calls()
        self.made.lease.catch_up()
        assert strays(calls, self.made.lease.tenures, self.identities, acts) == [], self.made.lease.tenures
        assert overlaps(self.made.lease.tenures, self.identities.values()) == [], self.made.lease.tenures
        assert [event[:2] for event in self.told()] == EVENTS, self.told()
        return ended_s - began_s


@pytest.fixture
def scene(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    control_plane.needs_own()
    assert isinstance(control_plane, ControlPlane)
    with (
        running_proxy(control_plane) as proxy,
        installed(control_plane, namespace, CHANGING, tmp_path) as made,
        watched(control_plane, namespace) as serving,
    ):
        traffic = made.traffic()
        traffic.rps = RPS
        found = Scene(made, proxy, serving, traffic, control_plane.audit_mark(), {})
        made.start_planner(2, api_server=proxy.url, **WISHES)
        found.know()
        yield found


@contextmanager
def watched(cluster: Cluster, namespace: str) -> Iterator[ServingWatch]:
    """A watch that is ended."""
    made = ServingWatch(cluster, namespace)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_the_planner_changes_a_layout_that_costs_too_much(scene: Scene) -> None:
    wait_until(lambda: "layout-change" in scene.recorded(), "the planner decides", PATIENCE_S, every_s=0.2)
    actor = scene.acting()
    wait_until(scene.changed, "the change ends", PATIENCE_S, every_s=0.2)
    assert scene.acting().pod == actor.pod
    seconds = scene.check()
    print(f"a change of layout, two workers: {seconds:.1f} s")

    (decision,) = (one for one in actor.decisions() if f"layout of {DECODE}" in one["outcome"])
    review = actor.record(decision)["layouts"]
    assert review["proposal"]["old"] == [2, 1]
    assert review["proposal"]["new"] == [1, 1]
    assert re.match(r"decode: 2 workers of tp2 to 2 of tp1 saves [\d,]+ GPU-s over the horizon", review["why"])
    assert decision["outcome"][f"layout of {DECODE}"] == "layout change of decode: tp2 to tp1 begins"
    log = actor.log()
    assert "layouts are prefill tp1, decode tp1 from now on" in log
    assert "layout change ended: decode: tp2 to tp1" in log
    assert {one.pod for one in scene.changes()} == {actor.pod}
    by = f"asked for by {actor.identity}: layout change of decode: tp2 to tp1"
    notes = [note for reason, _, note in scene.told() if reason.startswith("Scaled")]
    assert notes == [
        f"{DECODE}-tp1: 0 -> 1 worker, {by}",
        f"{DECODE}: 2 -> 1 worker, {by}",
        f"{DECODE}-tp1: 1 -> 2 workers, {by}",
        f"{DECODE}: 1 -> 0 workers, {by}",
    ]
    assert {stage for stage, fault in actor.state()["errors"].items() if fault["active"]} == set()


#: The writes of a change, in their order, as verb, object and subresource: a planner is killed before each. One GPU is
#: free, so that a first new worker makes room for the second.
WRITES = {
    "the new object": ("create", NEW, ""),
    "the first new worker": ("patch", NEW, "scale"),
    "the end of an old worker whose stead serves": ("patch", OLD, "scale"),
    "the second new worker": ("patch", NEW, "scale"),
    "the end of the last old worker": ("patch", OLD, "scale"),
    "the retirement of the old object": ("patch", OLD, ""),
}


def hold(proxy: Proxy, verb: str, name: str, subresource: str) -> Fault:
    """Let no planner do this until the proxy is healed."""
    if verb == "create":
        return proxy.delay(2 * PATIENCE_S, method="POST", path=r"/deployments(\?|$)")
    path = f"{name}/{subresource}" if subresource else name
    return proxy.delay(2 * PATIENCE_S, method="PATCH", path=rf"/deployments/{path}(\?|$)")


def test_a_change_goes_on_though_the_planner_is_killed_before_each_write(scene: Scene) -> None:
    wait_until(lambda: scene.objects() == {OLD: (2, False)}, "two workers are asked for", PATIENCE_S, every_s=0.1)
    killed, following = [], [*list(WRITES.values())[1:], None]
    held = hold(scene.proxy, *next(iter(WRITES.values())))
    for what, then in zip(WRITES, following, strict=True):
        wait_until(lambda held=held: held.hits > 0, f"a planner is about to write {what}", PATIENCE_S, every_s=0.02)
        holder = scene.made.lease.holder
        victim = next(one for one in scene.made.planners() if scene.identities.get(one.pod) == holder)
        killed_s = time.time()
        scene.made.delete_pod(victim.pod, killed=True)
        wait_until(lambda victim=victim: not victim.runs(), "it is dead", PATIENCE_S, every_s=0.02)
        killed.append(victim.pod)
        assert "layout-change" in scene.recorded()
        scene.proxy.heal()
        if then is not None:
            # Before the one that stands by takes over: on a busy machine that is sooner than the next planner's start.
            held = hold(scene.proxy, *then)
        scene.know()
        print(f"killed before {what}: two planners again after {time.time() - killed_s:.1f} s")
    wait_until(scene.changed, "the change ends", PATIENCE_S, every_s=0.2)
    seconds = scene.check()
    print(f"the same with {len(WRITES)} planners killed on the way: {seconds:.1f} s")
    assert len(set(killed)) == len(WRITES)
    # None was done twice, and none was left out.
    assert scene.writes() == list(WRITES.values())
