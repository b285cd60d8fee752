"""Layout changes as the cluster's users are told of them: an Event for each step, on the object it was taken on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from planner.connectors.base import ConnectorError
from planner.connectors.kubernetes import events
from planner.connectors.kubernetes.cluster import Object
from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.connectors.kubernetes.errors import ClusterError, ForbiddenError, NotFoundError, UnreachableError
from planner.connectors.kubernetes.resources import (
    DEPLOYMENTS,
    DYNAMO_GRAPHS_V1ALPHA1,
    DYNAMO_GRAPHS_V1BETA1,
    PODS,
    SCALING_ADAPTERS_V1ALPHA1,
    Resource,
)
from planner.connectors.kubernetes.settings import GraphObject, KubernetesSettings
from planner.core.layout_change import LayoutProposal
from planner.core.types import Pool, Role
from planner.service.layouts import going_on
from profiler.errors import InputError
from tests.unit.connectors.kubernetes.memory import Call, Clock, MemoryCluster
from tests.unit.connectors.kubernetes.test_view import nowhere, pod
from worker_graph.kubernetes import labels as names

ME, EVENTS = "planner-0", "events.events.k8s.io"
PREFILL, DECODE = Pool("prefill", Role.PREFILL, 1), Pool("decode", Role.DECODE, 2)
TO_TP4 = LayoutProposal(
    pool="decode", role=Role.DECODE, old=(2, 1), new=(4, 1), old_workers=2, new_workers=1, new_gpus=4,
    least_capacity=1.0, patience_s=60.0, duration_s=0.0, missing_s=0.0, peak_gpus=0,
)  # fmt: skip


class Server(MemoryCluster):
    """Gives objects a uid, as a real one does, and knows Dynamo's graphs in their first version alone."""

    def read(self, resource: Resource, name: str, subresource: str = "") -> Object:
        if resource == DYNAMO_GRAPHS_V1BETA1:
            raise NotFoundError("no such version")
        return super().read(resource, name, subresource)

    def create(self, resource: Resource, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        meta = {**body["metadata"], "uid": f"of {body['metadata']['name']}"}
        return super().create(resource, {**body, "metadata": meta}, dry_run=dry_run)


def deployment(pool: str, replicas: int, tp: int) -> dict[str, Any]:
    own = {names.GRAPH: "chat", names.POOL: pool, names.LAYOUT: names.layout(tp, 1)}
    container = {
        "name": "main",
        "command": ["vllm", "serve", "m"],
        "args": ["--tensor-parallel-size", str(tp)],
        "resources": {"limits": {"nvidia.com/gpu": str(tp)}},
    }
    template = {"metadata": {"labels": own}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": own}, "template": template}
    return {"metadata": {"name": f"chat-{pool}", "labels": own}, "spec": spec}


class Bed:
    """A connector on a server in memory, whose controllers run when they are told to."""

    def __init__(self, *pools: Pool, max_gpus: int = 9, settings: KubernetesSettings | None = None) -> None:
        self.cluster, self.steady, self.wall_s = Server(), Clock(), 1_770_000_000.0
        self.cluster.kubernetes = (1, 20)
        self.connector = KubernetesConnector(
            self.cluster, "chat", pools, settings or KubernetesSettings(), max_gpus,
            steady=self.steady, wall=lambda: self.wall_s,
        )  # fmt: skip

    def run_controllers(self, *, start: bool = True) -> None:
        """Pods become what is asked for; without `start`, new ones of TP4 find no node."""
        for key in [key for key in self.cluster.objects if key[0] == PODS.name]:
            del self.cluster.objects[key]
        for (kind, name), one in list(self.cluster.objects.items()):
            if kind != DEPLOYMENTS.name:
                continue
            labels = one["spec"]["template"]["metadata"]["labels"]
            gpus = int(labels[names.LAYOUT][2])
            for i in range(one["spec"]["replicas"]):
                made = pod(f"{name}-{i}", labels, gpus=gpus)
                if gpus == 4 and not start:
                    made = nowhere(f"{name}-{i}", labels, "0/1 nodes are available")
                self.cluster.put(PODS, made)

    def tick(self, plan: Mapping[str, int], *, start: bool = True) -> Mapping[str, str]:
        self.run_controllers(start=start)
        return self.step(plan)

    def step(self, plan: Mapping[str, int]) -> Mapping[str, str]:
        """A tick without controllers."""
        self.wall_s += 15.0
        self.connector.read()
        self.connector.lease(ME, 45)
        return self.connector.apply(plan, ME)

    def change(self, plan: Mapping[str, int], *, start: bool = True) -> None:
        """Ticks until it has ended."""
        for _ in range(20):
            self.tick(plan, start=start)
            if not self.connector.read().layout_change.under_way:
                return
        raise AssertionError("the change does not end")

    def events(self, *but: str) -> list[tuple[str, str, str]]:
        """Reason, object and note, oldest first."""
        found = [one for (kind, _), one in self.cluster.objects.items() if kind == EVENTS]
        return [(one["reason"], one["regarding"]["name"], one["note"]) for one in found if one["reason"] not in but]

    def event(self, reason: str) -> dict[str, Any]:
        (found,) = (
            one for (kind, _), one in self.cluster.objects.items() if kind == EVENTS and one["reason"] == reason
        )
        return found

    def writes(self) -> list[Call]:
        """Of anything but leases and Events."""
        found = [call for call in self.cluster.calls if call[0] in {"create", "patch", "update"}]
        return [call for call in found if call[1] != EVENTS and not call[1].startswith("leases")]


def two_pools(max_gpus: int = 9) -> Bed:
    bed = Bed(PREFILL, DECODE, max_gpus=max_gpus)
    bed.cluster.create(DEPLOYMENTS, deployment("prefill", 1, 1))
    bed.cluster.create(DEPLOYMENTS, deployment("decode", 2, 2))
    bed.run_controllers()
    bed.connector.lease(ME, 45)
    del bed.cluster.calls[:]
    return bed


PLAN = {"prefill": 1, "decode": 2}


def test_each_step_is_told_on_the_object_that_it_was_taken_on() -> None:
    bed = two_pools()
    bed.connector.change_layout(TO_TP4, ME)
    bed.change(PLAN)
    by = "asked for by planner-0: layout change of decode: tp2 to tp4"
    assert bed.events() == [
        ("LayoutChangeStarted", "chat-decode",
         "decode: tp2 to tp4: 2 workers of 2 GPUs to 1 of 4; 100% of the capacity or more serves meanwhile"),
        ("LayoutObjectCreated", "chat-decode-tp4",
         "decode: chat-decode-tp4 is made from chat-decode, for workers of tp4"),
        ("ScaledUp", "chat-decode-tp4", f"decode-tp4: 0 -> 1 worker, {by}"),
        ("ScaledDown", "chat-decode", f"decode: 2 -> 1 worker, {by}"),
        ("ScaledDown", "chat-decode", f"decode: 1 -> 0 workers, {by}"),
        ("LayoutObjectRetired", "chat-decode",
         "decode: chat-decode is kept without workers; chat-decode-tp4 stands for it"),
        ("LayoutChangeCompleted", "chat-decode-tp4", "decode: tp2 to tp4, after 60 s"),
    ]  # fmt: skip
    created = bed.event("LayoutObjectCreated")
    assert created["regarding"]["uid"] == "of chat-decode-tp4"
    assert (created["type"], created["action"], created["reportingInstance"]) == ("Normal", "ChangeLayout", ME)


def test_a_change_that_turns_back_says_why() -> None:
    bed = two_pools()
    bed.connector.change_layout(TO_TP4, ME)
    bed.change(PLAN, start=False)
    said = bed.events("ScaledUp", "ScaledDown", "LayoutChangeStarted", "LayoutObjectCreated", "Unschedulable")
    why = "no further worker of tp4 served within 60 s: 0/1 nodes are available"
    back = f"decode: back to tp2 from tp4 ({why})"
    assert [one[:2] for one in said] == [
        ("LayoutChangeRollingBack", "chat-decode"),
        ("LayoutObjectRetired", "chat-decode-tp4"),
        ("LayoutChangeRolledBack", "chat-decode"),
    ]
    assert said[0][2] == back
    assert said[2][2].startswith(f"{back}, after ")
    assert {bed.event(reason)["type"] for reason, _, _ in (said[0], said[2])} == {"Warning"}


def test_a_change_that_is_turned_back_by_hand_says_so_once() -> None:
    bed = two_pools()
    bed.connector.change_layout(TO_TP4, ME)
    bed.tick(PLAN)
    for _ in range(2):
        bed.connector.roll_back_layout("the new engine is slower", ME)
    assert bed.event("LayoutChangeRollingBack")["note"] == "decode: back to tp2 from tp4 (the new engine is slower)"


def test_capacity_that_is_missing_meanwhile_is_told() -> None:
    bed = two_pools(max_gpus=7)
    bed.connector.change_layout(LayoutProposal(**{**_facts(TO_TP4), "least_capacity": 0.5}), ME)
    bed.change(PLAN)
    down = next(note for reason, _, note in bed.events() if reason == "ScaledDown")
    assert down.startswith("decode: 2 -> 1 worker, ")
    assert down.endswith("; 50% of the capacity is missing meanwhile")


@pytest.mark.parametrize("error", [ForbiddenError("may not"), UnreachableError("timed out")])
def test_events_that_cannot_be_written_neither_stop_nor_repeat_a_step(
    error: ClusterError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAUSE_S", -1.0)  # each one is tried

    def run(*, fails: bool) -> tuple[list[Call], Mapping[str, Any]]:
        bed = two_pools()

        def refuse(call: Call) -> None:
            if fails and call[1] == EVENTS:
                raise error

        bed.cluster.before = refuse
        bed.connector.change_layout(TO_TP4, ME)
        bed.change(PLAN)
        assert bool(bed.events()) is not fails
        assert len(bed.cluster.called("create", EVENTS)) == 7
        return bed.writes(), bed.cluster.objects[DEPLOYMENTS.name, "chat-decode-tp4"]["spec"]

    assert run(fails=True) == run(fails=False)


def test_a_refusal_is_told_and_counted_and_over_with_the_beginning() -> None:
    bed = two_pools()
    bad = LayoutProposal(**{**_facts(TO_TP4), "old": (8, 1)})
    for _ in range(2):
        with pytest.raises(ConnectorError, match="has layout tp2-dp1, not tp8-dp1"):
            bed.connector.change_layout(bad, ME)
    refused = bed.event("LayoutChangeRefused")
    assert refused["note"] == "decode: no change to tp4: pool decode has layout tp2-dp1, not tp8-dp1"
    assert (refused["type"], refused["series"]["count"]) == ("Warning", 2)
    bed.connector.change_layout(TO_TP4, ME)
    with pytest.raises(ConnectorError, match="is under way"):
        bed.connector.change_layout(TO_TP4, ME)
    assert [one[0] for one in bed.events()] == ["LayoutChangeRefused", "LayoutChangeStarted", "LayoutChangeRefused"]


def test_arguments_that_cannot_be_changed_are_told() -> None:
    bed = two_pools()
    bed.cluster.objects[DEPLOYMENTS.name, "chat-decode"]["spec"]["template"]["spec"]["containers"][0]["args"] = [
        "--tensor-parallel-size", "$(TP)"
    ]  # fmt: skip
    with pytest.raises(InputError):
        bed.connector.change_layout(TO_TP4, ME)
    assert "no change to tp4" in bed.event("LayoutChangeRefused")["note"]


def test_a_write_that_the_server_refuses_is_told_until_it_goes_on() -> None:
    bed = two_pools()
    bed.connector.change_layout(TO_TP4, ME)

    def forbid(call: Call) -> None:
        if call[:2] == ("create", DEPLOYMENTS.name):
            raise ForbiddenError("cannot create deployments")

    bed.cluster.before = forbid
    for _ in range(2):
        assert bed.tick(PLAN)["decode"] == "layout change: cannot create deployments"
    blocked = bed.event("LayoutChangeBlocked")
    assert blocked["note"] == "layout change of decode: tp2 to tp4 cannot go on: cannot create deployments"
    assert (blocked["regarding"]["name"], blocked["series"]["count"]) == ("chat-decode", 2)
    bed.cluster.before = lambda _: None
    bed.change(PLAN)
    assert bed.events()[-1][0] == "LayoutChangeCompleted"


def test_a_server_that_does_not_answer_is_not_told_of_it() -> None:
    bed = two_pools()
    bed.connector.change_layout(TO_TP4, ME)

    def silent(call: Call) -> None:
        if call[:2] == ("create", DEPLOYMENTS.name):
            raise UnreachableError("timed out")

    bed.cluster.before = silent
    assert bed.tick(PLAN)["decode"] == "layout change: timed out"
    assert [one[0] for one in bed.events()] == ["LayoutChangeStarted"]


def test_another_pool_that_may_not_be_written_leaves_no_change_half_done() -> None:
    bed = two_pools(max_gpus=12)
    bed.connector.change_layout(TO_TP4, ME)

    def forbid(call: Call) -> None:
        if call == ("patch", DEPLOYMENTS.name, "chat-prefill"):
            raise ForbiddenError("cannot patch deployments/scale")

    bed.cluster.before = forbid
    for _ in range(10):
        if not bed.connector.read().layout_change.under_way:
            break
        with pytest.raises(ForbiddenError):  # and still it is an error
            bed.tick({"prefill": 2, "decode": 2})
    assert bed.events()[-1][0] == "LayoutChangeCompleted"


def test_without_a_plan_it_ends_as_with_one_and_keeps_what_it_grew_to() -> None:
    def ends_with(wanted: int, *, planned: bool) -> list[tuple[str, str, str]]:
        bed = two_pools(max_gpus=13)
        bed.connector.change_layout(TO_TP4, ME)
        bed.tick({"prefill": 1, "decode": wanted})
        for _ in range(10):
            supply = bed.connector.read()
            if not supply.layout_change.under_way:
                break
            bed.tick({"prefill": 1, "decode": wanted} if planned else going_on(supply))
        assert bed.cluster.objects[DEPLOYMENTS.name, "chat-prefill"]["spec"]["replicas"] == 1
        assert bed.cluster.objects[DEPLOYMENTS.name, "chat-decode-tp4"]["spec"]["replicas"] == wanted / 2
        return bed.events()

    for wanted in (2, 4):
        said = ends_with(wanted, planned=False)
        assert said[-1][0] == "LayoutChangeCompleted"
        assert said == ends_with(wanted, planned=True)


def test_new_workers_that_find_no_node_are_told_in_a_graph_of_one_pool() -> None:
    bed = Bed(Pool("decode", Role.AGGREGATED, 2))
    bed.cluster.create(DEPLOYMENTS, deployment("decode", 2, 2))
    bed.run_controllers()
    bed.connector.lease(ME, 45)
    bed.connector.change_layout(TO_TP4, ME)
    for _ in range(3):
        bed.tick({"decode": 2}, start=False)
    event = bed.event("Unschedulable")
    assert event["note"] == "decode-tp4: 1 worker unschedulable: 0/1 nodes are available"
    assert event["regarding"]["name"] == "chat-decode-tp4"


@pytest.mark.parametrize("adapter", ["", "dis-engine"])
def test_a_component_of_a_graph_is_told_of_on_what_holds_it_and_its_template_on_the_graph(adapter: str) -> None:
    bed = Bed(
        Pool("decode", Role.AGGREGATED, 2),
        max_gpus=12,
        settings=KubernetesSettings(graph=GraphObject(kind="DynamoGraphDeployment", name="dis")),
    )
    main = {"command": ["python3", "-m", "dynamo.vllm"], "args": ["--tensor-parallel-size", "2"]}
    worker = {
        "componentType": "worker",
        "replicas": 2,
        "resources": {"limits": {"gpu": "2"}},
        "extraPodSpec": {"mainContainer": main},
        "scalingAdapter": {"enabled": bool(adapter)},
    }
    if adapter:
        spec = {"replicas": 2, "dgdRef": {"name": "dis", "serviceName": "Engine"}}
        bed.cluster.create(SCALING_ADAPTERS_V1ALPHA1, {"metadata": {"name": adapter}, "spec": spec})
    bed.cluster.create(DYNAMO_GRAPHS_V1ALPHA1, {"metadata": {"name": "dis"}, "spec": {"services": {"Engine": worker}}})
    labels = {"nvidia.com/dynamo-graph-deployment-name": "dis", "nvidia.com/dynamo-component": "Engine"}
    serial = itertools.count()

    def operate() -> None:
        """Workers become the template's at once."""
        spec = bed.cluster.objects[DYNAMO_GRAPHS_V1ALPHA1.name, "dis"]["spec"]["services"]["Engine"]
        for key in [key for key in bed.cluster.objects if key[0] == PODS.name]:
            del bed.cluster.objects[key]
        for _ in range(spec["replicas"]):
            gpus = int(spec["resources"]["limits"]["gpu"])
            bed.cluster.put(PODS, pod(f"p{next(serial)}", labels, gpus=gpus))

    operate()
    bed.connector.lease(ME, 45)
    bed.connector.change_layout(LayoutProposal(**{**_facts(TO_TP4), "new_workers": 2}), ME)
    bed.cluster.calls.clear()
    for _ in range(6):
        bed.step({"decode": 2})
        operate()
    assert [one[:2] for one in bed.events()] == [
        ("LayoutChangeStarted", adapter or "dis"),
        ("LayoutTemplatePatched", "dis"),
        ("LayoutChangeCompleted", adapter or "dis"),
    ]
    assert bed.event("LayoutTemplatePatched")["note"] == (
        "decode: the template of Engine has tp4; workers are replaced"
    )
    assert bed.event("LayoutTemplatePatched")["regarding"]["uid"] == "of dis"


def _facts(proposal: LayoutProposal) -> dict[str, Any]:
    return {name: getattr(proposal, name) for name in proposal.__dataclass_fields__}
