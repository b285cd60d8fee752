"""Whatever is wrong with a graph is said with its line, its field and what would be right."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from profiler.errors import InputError
from tests.unit.worker_graph.spec.graphs import Data, alpha, as_beta, worker
from worker_graph.spec import load_graph

#: Stands for a field that is taken away.
GONE = object()
KIND = "DynamoGraphDeployment"
SERVICES, COMPONENTS = "spec.services", "spec.components"
PREFILL, DECODE = f"{SERVICES}.VllmPrefillWorker", f"{SERVICES}.VllmDecodeWorker"
GPU = f"{PREFILL}.resources.limits.gpu"
MAIN = f"{PREFILL}.extraPodSpec.mainContainer"
POD = f"{COMPONENTS}.1.podTemplate.spec"
ROLES = ["--is-prefill-worker", "--is-decode-worker"]


def line_of(path: Path, field: str) -> int:
    """Line of a field, from the events of the YAML, by a walk of its own."""
    node: Any = yaml.compose(path.read_text())
    line = int(node.start_mark.line)
    for part in field.split(".") if field else []:
        if isinstance(node, yaml.MappingNode):
            key, node = next((k, v) for k, v in node.value if k.value == part)
            line = key.start_mark.line
        else:
            node = node.value[int(part)]
            line = node.start_mark.line
    return line + 1


def refused(tmp_path: Path, graph: Data, field: str, said: str) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump(graph, sort_keys=False))
    with pytest.raises(InputError) as caught:
        load_graph(path)
    error = caught.value
    assert said in str(error)
    assert (error.field or "") == field
    assert error.line == line_of(path, field)
    assert error.source == str(path)


def change(graph: Data, changes: Data) -> Data:
    """The graph with other values at these fields."""
    for field, value in changes.items():
        *above, last = [int(part) if part.isdigit() else part for part in field.split(".")]
        at: Any = graph
        for part in above:
            at = at[part]
        if value is GONE:
            del at[last]
        else:
            at[last] = value
    return graph


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("apiVersion", "nvidia.com/v1alpha2", "(did you mean 'nvidia.com/v1alpha1'?)"),
        ("apiVersion", 1, "is 1; expected nvidia.com/v1alpha1 or nvidia.com/v1beta1"),
        ("kind", "DynamoGraphDeploymnet", f"did you mean '{KIND}'?"),
        ("kind", "Pod", f"is 'Pod'; expected {KIND}"),
        ("metadata", {}, "has no name"),
        ("metadata.name", "A_b", "lower-case letters"),
        ("spec", {}, "has no services"),
        ("spec", {"components": []}, "v1beta1 has components"),
        ("spec.backendFramework", "sglang", "expected vllm"),
        (SERVICES, [], "is []; expected a mapping"),
        (f"{SERVICES}.X", None, "is None; expected a mapping"),
        (f"{SERVICES}.a_b", worker([]), "is named 'a_b'"),
        (f"{SERVICES}.frontend", worker([]), "is named like Frontend"),
        (f"{SERVICES}.B", worker([], sub="prefill"), "is a second prefill worker, after VllmPrefillWorker"),
        (f"{SERVICES}.B", worker([]), "is a second decode worker"),
        (f"{PREFILL}.componentType", "workr", "did you mean 'worker'?"),
        (f"{PREFILL}.componentType", 1, "is 1; expected text"),
        (f"{PREFILL}.subComponentType", "prefil", "did you mean 'prefill'?"),
        (f"{PREFILL}.replicas", -1, "is -1; expected a whole number from 0"),
        (f"{PREFILL}.replicas", "two", "is 'two'"),
        (f"{PREFILL}.replicas", True, "is True"),
        (GPU, "abc", "is 'abc'; expected a whole number of GPUs"),
        (GPU, 0.5, "is 0.5"),
        (GPU, -1, "is -1"),
        (f"{PREFILL}.resources", "1", "expected a mapping"),
        (f"{PREFILL}.multinode", 2, "expected a mapping"),
        (f"{PREFILL}.envs", {"A": "1"}, "expected a list"),
        (f"{PREFILL}.envFromSecret", ["a"], "expected text"),
        (f"{MAIN}.command", "vllm serve", "is 'vllm serve'; expected a list"),
        (f"{MAIN}.image", 3, "is 3"),
    ],
)
def test_a_wrong_value(tmp_path: Path, field: str, value: object, said: str) -> None:
    refused(tmp_path, change(alpha(), {field: value}), field, said)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"apiVersion": GONE}, "", "has no apiVersion"),
        ({"spec": GONE}, "", "has no spec"),
        ({f"{SERVICES}.Frontend": GONE}, SERVICES, "has no frontend"),
        ({PREFILL: GONE, DECODE: GONE}, SERVICES, "has no worker"),
        ({DECODE: GONE}, PREFILL, "prefills, and no worker decodes"),
        ({f"{PREFILL}.multinode": {"nodeCount": 1}}, f"{PREFILL}.multinode.nodeCount", "a whole number from 2"),
        ({f"{PREFILL}.envs": [{"name": "A", "value": 1}]}, f"{PREFILL}.envs.0.value", "is 1; expected text"),
        ({f"{PREFILL}.envs": [{"value": "1"}]}, f"{PREFILL}.envs.0", "has no name"),
        (
            {f"{PREFILL}.envs": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {}}}]},
            f"{PREFILL}.envs.0",
            "has both value and valueFrom",
        ),
        ({f"{MAIN}.args": ["--model", 8]}, f"{MAIN}.args.1", "is 8; expected text, in quotes"),
        ({f"{MAIN}.args": ROLES}, f"{MAIN}.args.1", "asks for decode, and an argument before it for prefill"),
        ({f"{MAIN}.args": ["--disaggregation-mode", "prefil"]}, f"{MAIN}.args.1", "did you mean 'prefill'?"),
        ({f"{MAIN}.args": ["--disaggregation-mode"]}, f"{MAIN}.args.0", "expected prefill, decode or agg"),
        ({f"{MAIN}.args": ROLES[1:]}, f"{MAIN}.args.0", "asks for decode, and the component says prefill"),
        ({f"{PREFILL}.componentType": "decode"}, f"{PREFILL}.subComponentType", "componentType says decode"),
        (
            {f"{DECODE}.subComponentType": GONE, f"{DECODE}.extraPodSpec": {"mainContainer": {"args": [
                "--disaggregation-mode=agg"]}}},
            DECODE,
            "is aggregated beside a prefill worker",
        ),
        (
            {f"{MAIN}.command": ["sh", "-c"], f"{MAIN}.args": ["vllm serve m && true"]},
            f"{MAIN}.args.0",
            "is more than one plain command",
        ),
        ({f"{MAIN}.command": ["sh", "-c"], f"{MAIN}.args": ["a 'b"]}, f"{MAIN}.args.0", "cannot be split"),
        ({f"{MAIN}.command": ["sh", "-c", "a"], f"{MAIN}.args": ["b"]}, f"{MAIN}.command.1", "followed by 2 words"),
    ],
)  # fmt: skip
def test_a_wrong_graph(tmp_path: Path, changes: Data, field: str, said: str) -> None:
    refused(tmp_path, change(alpha(), changes), field, said)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"spec": {"services": {}}}, "spec", "v1alpha1 has services"),
        ({COMPONENTS: {}}, COMPONENTS, "is {}; expected a list"),
        ({f"{COMPONENTS}.1.name": GONE}, f"{COMPONENTS}.1", "has no name"),
        ({f"{COMPONENTS}.2.name": "vllmprefillworker"}, f"{COMPONENTS}.2.name", "is named like VllmPrefillWorker"),
        ({f"{COMPONENTS}.0.type": "fronted"}, f"{COMPONENTS}.0.type", "did you mean 'frontend'?"),
        ({f"{COMPONENTS}.1.replicas": 1.5}, f"{COMPONENTS}.1.replicas", "is 1.5"),
        ({f"{POD}.containers.1": GONE}, f"{POD}.containers", "has no container named main"),
        ({f"{COMPONENTS}.1.type": "decode"}, f"{POD}.containers.1.args.2", "asks for prefill, and the component says"),
        ({f"{COMPONENTS}.2": GONE}, f"{COMPONENTS}.1", "prefills, and no worker decodes"),
        ({f"{COMPONENTS}.0": GONE}, COMPONENTS, "has no frontend"),
    ],
)
def test_a_wrong_graph_of_v1beta1(tmp_path: Path, changes: Data, field: str, said: str) -> None:
    refused(tmp_path, change(as_beta(alpha()), changes), field, said)


def test_a_wrong_number_of_gpus_in_v1beta1(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    limits = f"{POD}.containers.1.resources.limits"
    path.write_text(yaml.safe_dump(change(as_beta(alpha()), {limits: {"nvidia.com/gpu": "x"}}), sort_keys=False))
    with pytest.raises(InputError, match="is 'x'") as caught:
        load_graph(path)
    assert caught.value.field == f"{limits}.nvidia.com/gpu"
    assert caught.value.line == line_of(path, limits) + 1


@pytest.mark.parametrize(
    ("documents", "said"),
    [([], "holds no DynamoGraphDeployment"), ([{"kind": "ConfigMap"}, {"a": 1}], "holds no DynamoGraphDeployment"),
     ([[1]], "holds no DynamoGraphDeployment"), ([{"a": 1}], "has no kind"),
     ([alpha(), alpha()], "is a second DynamoGraphDeployment")],
)  # fmt: skip
def test_a_file_holds_one_graph(tmp_path: Path, documents: list[object], said: str) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    with pytest.raises(InputError, match=said):
        load_graph(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_graph(tmp_path / "none.yaml")
