"""What this machine cannot do is named with its line; what matters is an error, the rest a note."""

from pathlib import Path

import pytest

from tests.unit.worker_graph.spec.graphs import Data, alpha, as_beta, read, worker
from worker_graph.spec import Severity, load_graph, unsupported_locally

MANIFESTS = Path(__file__).parents[4] / "manifests"


def found(tmp_path: Path, graph: Data, last: str | int) -> tuple[str, str, int | None]:
    """Severity, reason and line of the one report about a field."""
    reports = [report for report in unsupported_locally(read(tmp_path, graph)) if report.place[-1] == last]
    assert len(reports) == 1, reports
    return reports[0].severity, reports[0].why, reports[0].line


def lines(tmp_path: Path, text: str) -> list[int]:
    numbered = enumerate((tmp_path / "graph.yaml").read_text().splitlines(), 1)
    return [number for number, line in numbered if text in line]


@pytest.mark.parametrize(
    ("key", "value", "severity", "why"),
    [
        ("multinode", {"nodeCount": 2}, Severity.ERROR, "spans 2 nodes"),
        ("envFromSecret", "s", Severity.NOTE, "taken from your environment"),
        ("readinessProbe", {}, Severity.NOTE, "ready when its server says so"),
        ("scalingAdapter", {"enabled": True}, Severity.NOTE, "sets the counts itself"),
        ("autoscaling", {"enabled": True}, Severity.NOTE, "sets the counts itself"),
        ("someNewField", 1, Severity.NOTE, "not used on this machine"),
    ],
)
def test_fields_of_a_component(tmp_path: Path, key: str, value: object, severity: Severity, why: str) -> None:
    service = {**worker([]), key: value}
    said = found(tmp_path, alpha({"W": service}), key)
    assert said[0] == severity
    assert why in said[1]
    assert [said[2]] == lines(tmp_path, f"{key}:")


def test_mounts_matter_when_their_folder_is_not_here(tmp_path: Path) -> None:
    service = worker([])
    service["volumeMounts"] = [{"name": "a", "mountPoint": str(tmp_path)}, {"name": "b", "mountPoint": "/no/such"}]
    service["extraPodSpec"]["mainContainer"]["volumeMounts"] = [{"name": "c", "mountPath": "/no/such/too"}]
    reports = [r for r in unsupported_locally(read(tmp_path, alpha({"W": service}))) if "volumeMounts" in r.place]
    assert [report.severity for report in reports] == [Severity.ERROR, Severity.NOTE, Severity.ERROR]
    assert "/no/such/too does not exist" in reports[0].why
    assert f"{tmp_path} of this machine is used" in reports[1].why


def test_containers_beside_the_main_one(tmp_path: Path) -> None:
    graph = as_beta(alpha())
    pod = graph["spec"]["components"][1]["podTemplate"]["spec"]
    pod["initContainers"] = [{"name": "download"}]
    pod["tolerations"] = []
    pod["containers"][1]["envFrom"].append({"configMapRef": {"name": "c"}})
    reports = {
        report.place[3:]: report for report in unsupported_locally(read(tmp_path, graph)) if report.place[2] == 1
    }
    assert reports["podTemplate", "spec", "containers", 0].severity is Severity.ERROR
    assert reports["podTemplate", "spec", "initContainers"].severity is Severity.ERROR
    assert reports["podTemplate", "spec", "tolerations"].severity is Severity.NOTE
    assert reports["podTemplate", "spec", "containers", 1, "envFrom", 0].severity is Severity.NOTE
    assert reports["podTemplate", "spec", "containers", 1, "envFrom", 1].severity is Severity.ERROR


def test_components_that_serve_nothing(tmp_path: Path) -> None:
    graph = alpha()
    graph["spec"]["services"]["Epp"] = {"componentType": "epp"}
    assert found(tmp_path, graph, "Epp")[0] == Severity.ERROR


@pytest.mark.parametrize("name", ["agg", "disagg", "disagg_router", "disagg_planner"])
def test_manifests_run_here(name: str) -> None:
    reports = unsupported_locally(load_graph(MANIFESTS / f"{name}.yaml"))
    assert reports
    assert all(report.severity is Severity.NOTE and report.line for report in reports)
