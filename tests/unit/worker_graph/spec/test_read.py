"""A graph of either version means the same, and nothing of the file is lost."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.errors import InputError
from tests.unit.worker_graph.spec.graphs import Data, alpha, as_beta, read, worker
from worker_graph.spec import Kind, Role, load_graph, with_replicas, words_of

MANIFESTS = Path(__file__).parents[4] / "manifests"
ROUND_TRIP = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.text("abcXYZ-. 09:/é'\"#{}", max_size=12)
unknown = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(words, below, max_size=3),
    max_leaves=6,
)


def test_both_versions_of_a_graph_have_equal_components(tmp_path: Path) -> None:
    graph = alpha()
    graph["spec"]["envs"] = [{"name": "HF_HOME", "value": "/models"}, {"name": "OMP_NUM_THREADS", "value": "1"}]
    graph["spec"]["services"]["VllmDecodeWorker"]["multinode"] = {"nodeCount": 2}
    first, second = read(tmp_path, graph), read(tmp_path, as_beta(graph))
    assert first.components == second.components
    assert first.components[0].place != second.components[0].place
    assert [c.name for c in first] == ["Frontend", "VllmPrefillWorker", "VllmDecodeWorker"]
    assert [c.role for c in first] == [None, Role.PREFILL, Role.DECODE]
    assert first["VllmDecodeWorker"].gpus_per_worker == 2
    assert first["VllmDecodeWorker"].nodes == 2
    assert first["VllmPrefillWorker"].env == {"HF_HOME": "/models", "OMP_NUM_THREADS": "4"}
    assert first["VllmPrefillWorker"].env_from_secret == ("hf-token-secret",)


@given(counts=st.lists(st.integers(0, 40), min_size=3, max_size=3), gpus=st.sampled_from(["0", "1", "8"]))
@ROUND_TRIP
def test_versions_agree_for_any_counts(tmp_path: Path, counts: list[int], gpus: str) -> None:
    graph = alpha()
    for service, count in zip(graph["spec"]["services"].values(), counts, strict=True):
        service["replicas"] = count
        if "resources" in service:
            service["resources"] = {"requests": {"gpu": gpus}}
    first, second = read(tmp_path, graph), read(tmp_path, as_beta(graph))
    assert first.components == second.components
    assert [component.replicas for component in first] == counts
    assert first["VllmDecodeWorker"].gpus_per_worker == int(gpus)


@pytest.mark.parametrize("beta", [False, True])
@given(extra=st.dictionaries(words.map("x-{}".format), unknown, max_size=3), count=st.integers(0, 99))
@ROUND_TRIP
def test_unknown_fields_survive(tmp_path: Path, beta: bool, extra: Data, count: int) -> None:
    graph = as_beta(alpha()) if beta else alpha()
    config = {"kind": "ConfigMap", "data": {"a": "1"}}
    graph.update(extra)
    graph["spec"].update(extra)
    parts: Any = graph["spec"]["components"] if beta else list(graph["spec"]["services"].values())
    for part in parts:
        part.update(extra)
    spec = read(tmp_path, config, graph)
    assert list(yaml.safe_load_all(spec.to_yaml())) == [config, graph]
    changed = with_replicas(spec, {"VllmDecodeWorker": count})
    assert spec["VllmDecodeWorker"].replicas == 3
    assert changed["VllmDecodeWorker"].replicas == count
    parts[2]["replicas"] = count
    assert list(yaml.safe_load_all(changed.to_yaml())) == [config, graph]
    (tmp_path / "again.yaml").write_text(changed.to_yaml())
    assert load_graph(tmp_path / "again.yaml").components == changed.components


def test_components_that_share_an_alias_do_not_share_their_counts(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(
        """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: graph}
spec:
  services:
    Frontend: {componentType: frontend}
    VllmPrefillWorker: &worker
      componentType: worker
      replicas: 1
      extraPodSpec: {mainContainer: {args: [--model, m]}}
    VllmDecodeWorker: *worker
"""
    )
    changed = with_replicas(load_graph(path), {"VllmDecodeWorker": 7})
    assert changed.raw["spec"]["services"]["VllmPrefillWorker"]["replicas"] == 1
    assert changed.raw["spec"]["services"]["VllmDecodeWorker"]["replicas"] == 7


@pytest.mark.parametrize(
    ("counts", "said"),
    [({"VllmDecodeWorkr": 1}, "did you mean 'VllmDecodeWorker'?"), ({"VllmDecodeWorker": -1}, "whole number from 0")],
)
def test_counts_that_cannot_be(tmp_path: Path, counts: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        with_replicas(read(tmp_path, alpha()), counts)


@pytest.mark.parametrize(
    ("services", "roles"),
    [
        ({"VllmDecodeWorker": worker([])}, [Role.AGGREGATED]),
        ({"VllmDecodeWorker": worker(["--is-decode-worker"])}, [Role.AGGREGATED]),
        ({"W": worker(["--disaggregation-mode", "agg"])}, [Role.AGGREGATED]),
        ({"VllmDecodeWorker": worker([]), "VllmPrefillWorker": worker([])}, [Role.DECODE, Role.PREFILL]),
        ({"a": worker(["--is-prefill-worker"]), "b": worker([])}, [Role.PREFILL, Role.DECODE]),
        ({"a": worker(["--disaggregation-mode=decode"]), "b": worker(["--is_prefill_worker"])},
         [Role.DECODE, Role.PREFILL]),
        ({"VllmPrefillWorker": worker([], sub="decode"), "VllmDecodeWorker": worker([], sub="prefill")},
         [Role.DECODE, Role.PREFILL]),
    ],
)  # fmt: skip
def test_roles(tmp_path: Path, services: Data, roles: list[Role]) -> None:
    assert [component.role for component in read(tmp_path, alpha(services)).workers] == roles


def test_words_are_expanded_as_kubernetes_does(tmp_path: Path) -> None:
    service = worker(["--served-model-name", "$(NAME)-$(MISSING)-$$(NAME)"])
    service["envs"] = [{"name": "BASE", "value": "llama"}, {"name": "NAME", "value": "$(BASE)-8b"}]
    component = read(tmp_path, alpha({"W": service}))["W"]
    assert component.args[-1] == "llama-8b-$(MISSING)-$(NAME)"


@pytest.mark.parametrize("script", ["python3 -m dynamo.vllm --model m", "exec vllm serve 'm' \\\n --port 80"])
def test_a_shell_that_runs_one_command_is_that_command(tmp_path: Path, script: str) -> None:
    service = worker([])
    service["extraPodSpec"]["mainContainer"] = {"command": ["/bin/sh", "-c"], "args": [script]}
    component = read(tmp_path, alpha({"W": service}))["W"]
    assert [word.text for word in words_of(component)][:2] in (["python3", "-m"], ["vllm", "serve"])


def test_a_variable_of_the_container_replaces_the_component_s(tmp_path: Path) -> None:
    service = worker([])
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    service["envs"] = [{"name": "A", "value": "1"}, token, {"name": "B", "valueFrom": {"fieldRef": {}}}]
    service["extraPodSpec"]["mainContainer"]["env"] = [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]
    component = read(tmp_path, alpha({"W": service}))["W"]
    assert component.env == {"A": "2", "B": "3"}
    assert component.env_elsewhere == ("HF_TOKEN",)


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("agg", [(Role.AGGREGATED, 1)]),
        ("disagg", [(Role.PREFILL, 1), (Role.DECODE, 1)]),
        ("disagg_router", [(Role.PREFILL, 2), (Role.DECODE, 2)]),
        ("disagg_planner", [(Role.PREFILL, 1), (Role.DECODE, 1)]),
    ],
)
def test_manifests(name: str, roles: list[tuple[Role, int]]) -> None:
    path = MANIFESTS / f"{name}.yaml"
    spec = load_graph(path)
    assert [(component.role, component.replicas) for component in spec.workers] == roles
    assert len(spec.frontends) == 1
    assert f"planner graph up manifests/{name}.yaml" in path.read_text()
    assert (spec.components[1].kind is Kind.PLANNER) == (name == "disagg_planner")
