"""The overlays' Roles on a real API server: a planner asks for nothing else, uses all of it, and misses each part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from kubernetes import client

from planner.connectors.kubernetes import victims
from planner.connectors.kubernetes.cluster import Cluster
from planner.doctor.rights import Right, rights_for
from tests.integration.kubernetes.rights_graphs import GRAPHS, Graph, Object, config_of, role_of
from tests.integration.kubernetes.rights_scenario import Scenario, bind, user, without
from tests.kubernetes import crds
from tests.kubernetes.audit import ApiCall
from tests.kubernetes.cluster import Cluster as TestCluster
from tests.kubernetes.fixtures import new_namespace, running_operators
from tests.servers import wait_until

#: API group, resource with its subresource, verb.
Verb = tuple[str, str, str]

#: A planner that finds its pools by label looks for groups as well, where it was not told that there are none: once.
ASKED_IN_VAIN = [("leaderworkerset.x-k8s.io", "leaderworkersets", "list")]

#: Which of the scenario's features an optional right is for.
FEATURES = {
    ("", "pods"): "cost",
    ("events.k8s.io", "events"): "events",
    ("autoscaling", "horizontalpodautoscalers"): "hpa",
    ("keda.sh", "scaledobjects"): "keda",
    ("apps", "deployments"): "layout",
    ("leaderworkerset.x-k8s.io", "leaderworkersets"): "layout",
}

#: Each Role, and the graph whose planner is run without its verbs.
BY_ROLE = {"kubernetes": "deployments", "lws": "leader-worker-sets", "grove": "grove", "dynamo": "dgd-v1beta1-mixed"}


@pytest.fixture(autouse=True)
def deletion_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Older servers take the annotation as any other and do not act on it.
    monkeypatch.setattr(victims, "SINCE", (1, 0))


Run = Callable[..., None]


@pytest.fixture(scope="module")
def lasting(control_plane: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs operators until the module's end."""
    with ExitStack() as stack:
        there: set[str] = set()

        def run(name: str) -> None:
            if name not in there:
                there.add(name)
                stack.enter_context(running_operators(control_plane, tmp_path_factory.mktemp("operators"), name))

        yield run


@contextmanager
def operated(control_plane: TestCluster, folder: Path, lasting: Run) -> Iterator[Run]:
    """Runs operators; Dynamo's until the end of the context, for other tests do by hand what it does."""
    with ExitStack() as stack:

        def run(*names: str) -> None:
            for name in names:
                if name.startswith("dynamo"):
                    stack.enter_context(running_operators(control_plane, folder, name))
                else:
                    lasting(name)

        yield run


@pytest.fixture
def operators(control_plane: TestCluster, tmp_path: Path, lasting: Run) -> Iterator[Run]:
    """The same, until the test's end."""
    with operated(control_plane, tmp_path, lasting) as run:
        yield run


class Bed:
    """One planner's life under one Role."""

    def __init__(self, control_plane: TestCluster, api: client.ApiClient, namespace: str) -> None:
        self._control_plane, self._api, self._namespace = control_plane, api, namespace
        self._user, self._mark = user(namespace), control_plane.audit_mark()

    def lost(self, graph: Graph, role: Object) -> dict[str, str]:
        """What the planner could not do."""
        crds.install(self._api, *graph.definitions)
        admin = Cluster(self._namespace, kubeconfig=self._control_plane.kubeconfig, timeout_s=30.0)
        mine = bind(self._control_plane, self._api, self._namespace, role)
        try:
            scenario = Scenario(graph, mine, admin)
            scenario.install()
            return scenario.run()
        finally:
            mine.close()
            admin.close()

    def calls(self) -> list[ApiCall]:
        """What it asked for of the namespace's objects."""
        calls = self._control_plane.audit(self._mark, user=self._user, namespace=self._namespace)
        return [one for one in calls if one.group != "authorization.k8s.io"]

    def refused(self) -> list[Verb]:
        """What it was not allowed, oldest first."""
        return [verb_of(one) for one in self.calls() if one.code == 403]


@pytest.fixture
def bed(control_plane: TestCluster, api: client.ApiClient, namespace: str) -> Bed:
    control_plane.needs_own()
    control_plane.needs_controllers()
    return Bed(control_plane, api, namespace)


def verb_of(call: ApiCall) -> Verb:
    return call.group, "/".join(filter(None, [call.resource, call.subresource])), call.verb


def verbs_of(role: Object) -> set[Verb]:
    return {(rule["apiGroups"][0], rule["resources"][0], verb) for rule in role["rules"] for verb in rule["verbs"]}


#: Used under the Role of each graph, by the graph's name.
USED: dict[str, set[Verb]] = {}


def use_all(bed: Bed, graph: Graph) -> None:
    """Everything that a planner does, and which verbs it needs for it."""
    assert bed.lost(graph, role_of(graph.overlay)) == {}
    expected = ASKED_IN_VAIN if graph.overlay == "kubernetes" else []
    # The last call is the lease's release, and the log is written behind the answer.
    wait_until(lambda: [one.verb for one in bed.calls()[-1:]] == ["update"], "the audit log is complete")
    assert bed.refused() == expected
    USED[graph.name] = {verb_of(one) for one in bed.calls()} - set(expected)
    assert USED[graph.name] <= verbs_of(role_of(graph.overlay))


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_a_planner_does_everything_under_its_role(bed: Bed, graph: Graph, operators: Run) -> None:
    operators(*graph.operators)
    use_all(bed, graph)


@pytest.mark.parametrize("overlay", BY_ROLE)
def test_nothing_of_a_role_is_never_used(
    overlay: str, control_plane: TestCluster, api: client.ApiClient, lasting: Run, tmp_path: Path
) -> None:
    control_plane.needs_own()
    control_plane.needs_controllers()
    graphs = [one for one in GRAPHS.values() if one.overlay == overlay]
    for graph in graphs:
        if graph.name in USED:
            continue
        # This test is run without the one before, or that one has failed.
        with operated(control_plane, tmp_path, lasting) as run, new_namespace(control_plane) as namespace:
            run(*graph.operators)
            use_all(Bed(control_plane, api, namespace), graph)
    used = set[Verb]().union(*(USED[one.name] for one in graphs))
    assert sorted(verbs_of(role_of(overlay)) - used) == []


def removals() -> Iterator[tuple[str, int, str]]:
    """Every verb of every Role; those that several Roles have, of the first alone."""
    seen: set[tuple[str, tuple[str, ...], str]] = set()
    for overlay in BY_ROLE:
        for i, rule in enumerate(role_of(overlay)["rules"]):
            for verb in rule["verbs"]:
                # The same right on an object of another name is the same right.
                key = (rule["resources"][0], ("named",) if "resourceNames" in rule else (), verb)
                if key not in seen:
                    seen.add(key)
                    yield overlay, i, verb


def _id(overlay: str, i: int, verb: str) -> str:
    return f"{overlay}-{verb}-{role_of(overlay)['rules'][i]['resources'][0].replace('/', '-')}"


REMOVALS = [pytest.param(*one, id=_id(*one)) for one in removals()]


def right_of(overlay: str, removed: Verb) -> Right:
    """The table's entry of a verb."""
    config = config_of(overlay)
    kinds = ("Deployment", "LeaderWorkerSet")
    table = rights_for(config.connector.kubernetes, config.graph, config.service.checkpoint_config_map, kinds=kinds)
    return next(one for one in table if (one.group, one.resource) == removed[:2] and removed[2] in one.verbs)


@pytest.mark.parametrize(("overlay", "rule", "verb"), REMOVALS)
def test_without_one_verb_something_is_lost(bed: Bed, overlay: str, rule: int, verb: str, operators: Run) -> None:
    graph, role = GRAPHS[BY_ROLE[overlay]], role_of(overlay)
    operators(*graph.operators)
    removed = (role["rules"][rule]["apiGroups"][0], role["rules"][rule]["resources"][0], verb)
    lost = bed.lost(graph, without(role, verb, rule))
    print(f"without {verb} {removed[1]}: {lost}")
    wait_until(lambda: removed in bed.refused(), "the refusal is in the audit log")
    assert set(bed.refused()) - set(ASKED_IN_VAIN) <= {removed}
    # The planner says so, with the server's words.
    assert all("403" in text for text in lost.values()), lost
    if right_of(overlay, removed).optional:
        # What the table says is lost is, and all else works.
        assert list(lost) == [FEATURES[removed[:2]]]
    else:
        assert lost.keys() & {"read", "lease", "scale", "state"}, lost


def test_a_role_without_a_verb_is_another_role() -> None:
    role = role_of("kubernetes")
    assert len(verbs_of(without(role, "list", 0))) == len(verbs_of(role)) - 1


def test_the_features_of_all_optional_rights_are_known() -> None:
    kinds = ("Deployment", "LeaderWorkerSet")
    optional = {(one.group, one.resource) for one in rights_for(None, kinds=kinds) if one.optional}
    assert optional == FEATURES.keys()
