"""`planner doctor` against a real API server, a real Prometheus and simulated engines: first all is well, then not."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from typer.testing import CliRunner

from planner.cli import app
from planner.doctor.rights import rights_for
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.fixtures import Kubelet, new_namespace, running_kubelet
from tests.kubernetes.nodes import Node
from tests.servers import get, needs_prometheus, start_prometheus, wait_until, write_targets
from worker_graph.kubernetes.labels import labels_of

pytestmark = needs_prometheus

ROOT = Path(__file__).parents[3]
MEASURED = ROOT / "profiling_results" / "llama-3.1-8b-instruct" / "h100-sxm" / "vllm-0.26.0"
GRAPH, MODEL = "chat", "llama-3.1-8b-instruct"
PATIENCE_S = 90.0

#: The metrics that an smg gateway has counted some completions in.
SMG = 'smg_worker_liveness_fallback_total 0\nsmg_http_requests_total{method="POST",path="/v1/completions"} 7\n'


def engine_arguments(**changes: str) -> list[str]:
    flags = {"--max-num-seqs": "512", "--max-num-batched-tokens": "8192", "--block-size": "16",
             "--max-model-len": "16384", **changes}  # fmt: skip
    return ["vllm", "serve", MODEL, *(word for pair in flags.items() for word in pair)]


def worker(role: str, replicas: int = 1, *, command: list[str] | None = None, gpus: int = 1) -> dict[str, Any]:
    """A Deployment as `planner graph render` labels it, whose pods are simulated engines of the measured profile."""
    labels = labels_of(GRAPH, role, role, tp=1, dp=1)
    container = {
        "name": "main",
        "image": "engine:1",
        "command": command or engine_arguments(),
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
        "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
    }
    annotations = {"engine": "simulated", "engine-role": role, "engine-profile": str(MEASURED), "engine-model": MODEL}
    template = {
        "metadata": {"labels": labels, "annotations": {f"plimsoll.test/{k}": v for k, v in annotations.items()}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 120},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": f"{GRAPH}-{role}", "labels": labels}, "spec": spec}


def gateway() -> dict[str, Any]:
    """A gateway's Deployment; its pods serve nothing, the test does it at their address."""
    labels = labels_of(GRAPH, "Frontend", "gateway")
    container = {"name": "main", "image": "smg:1", "ports": [{"name": "metrics", "containerPort": 29000}]}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    return {"metadata": {"name": f"{GRAPH}-frontend", "labels": labels}, "spec": spec}


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = SMG.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass


@contextmanager
def serving(host: str, port: int) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer((host, port), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Rig:
    """A graph that serves, the Prometheus that scrapes it, and a planner's configuration."""

    cluster: ControlPlane
    namespace: str
    folder: Path
    targets: Path
    prometheus: str
    kubelet: Kubelet

    def config(self, **changes: Any) -> Path:
        made = {
            "graph": GRAPH,
            "model": MODEL,
            "connector": {
                "kind": "kubernetes",
                "kubernetes": {"kubeconfig": str(self.cluster.kubeconfig), "namespace": self.namespace},
            },
            "metrics": {"source": "prometheus", "prometheus": {"url": self.prometheus}},
            "profiles": [str(MEASURED)],
            "sla": {"ttft_ms": 500, "itl_ms": 25},
            "budget": {"max_gpus": 4},
            "pools": {"prefill": {"role": "prefill"}, "decode": {"role": "decode"}},
            **changes,
        }
        path = self.folder / "planner.yaml"
        path.write_text(yaml.safe_dump(made))
        return path

    def pods(self, label: str) -> list[Any]:
        with self.cluster.client() as api:
            return list(client.CoreV1Api(api).list_namespaced_pod(self.namespace, label_selector=label).items)

    def addresses(self) -> dict[str, list[str]]:
        """host:port by pool; the gateway's as `gateway`."""
        found: dict[str, list[str]] = {}
        for role, port in (("prefill", 8000), ("decode", 8000), ("gateway", 29000)):
            pods = self.pods(f"plimsoll.io/graph={GRAPH},plimsoll.io/role={role}")
            found[role] = [f"{pod.status.pod_ip}:{port}" for pod in pods if pod.status.pod_ip]
        return found


@pytest.fixture(scope="module")
def rig(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    control_plane.needs_own()
    assert isinstance(control_plane, ControlPlane)
    folder = tmp_path_factory.mktemp("doctor")
    targets = folder / "targets.json"
    write_targets(targets, {})
    with ExitStack() as stack:
        namespace = stack.enter_context(new_namespace(control_plane, "doctor"))
        running = stack.enter_context(running_kubelet(control_plane, folder / "kubelet", (Node("gpu-a", 4),), 0.2))
        with control_plane.client() as api:
            for body in (worker("prefill"), worker("decode", 2), gateway()):
                client.AppsV1Api(api).create_namespaced_deployment(namespace, body)
        server = stack.enter_context(start_prometheus(folder, targets, scrape_s=0.5))
        made = Rig(control_plane, namespace, folder, targets, server.url, running)

        def ready() -> bool:
            pods = made.pods(f"plimsoll.io/graph={GRAPH}")
            conditions = [{one.type: one.status for one in pod.status.conditions or ()} for pod in pods]
            return len(pods) == 4 and all(one.get("Ready") == "True" for one in conditions)

        wait_until(ready, "the graph serves", PATIENCE_S)
        found = made.addresses()
        host, _, port = found["gateway"][0].rpartition(":")
        stack.enter_context(serving(host, int(port)))
        write_targets(targets, found)

        def scraped() -> bool:
            body = json.loads(get(f"{server.url}/api/v1/query?query=count_over_time(up[10s])>2"))
            return len(body["data"]["result"]) == 4

        wait_until(scraped, "all are scraped", PATIENCE_S)
        yield made


@dataclass
class Told:
    """What the command said."""

    code: int
    checks: list[dict[str, str]]

    def of(self, name: str) -> list[tuple[str, str, str]]:
        """(verdict, found, fix) of the checks of a name."""
        return [(one["verdict"], one["found"], one["fix"]) for one in self.checks if one["name"] == name]

    def failed(self) -> list[str]:
        return [f"{one['group']}/{one['name']}: {one['found']}" for one in self.checks if one["verdict"] == "FAIL"]


def doctor(*arguments: object) -> Told:
    done = CliRunner().invoke(app, ["doctor", *map(str, arguments), "--output", "json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.exit_code
    assert all(one["fix"] for one in report["checks"] if one["verdict"] in {"FAIL", "WARN"})
    return Told(done.exit_code, report["checks"])


def test_a_graph_that_is_well_fails_nothing(rig: Rig) -> None:
    told = doctor("--config", rig.config())
    assert told.failed() == []
    assert told.code == 0
    assert {one["group"] for one in told.checks} >= {"cluster", "crds", "rights", "graph", "metrics", "profile"}
    assert told.of("GPU nodes")[0][1].startswith("4 NVIDIA-H100-80GB-HBM3 on 1 node")
    assert told.of("free GPUs")[0][:2] == ("PASS", "1 of 4 are not asked for by any pod (gpu-a 1)")
    assert told.of("pool decode")[0][1] == "Deployment chat-decode: 2 workers with 1 GPU each, as in the profile"
    assert told.of("pods decode") == [("PASS", "2 ready", "")]
    assert told.of("targets") == [("PASS", "all 4 targets answer", "")]
    assert [one[0] for one in told.of("worker series")] == ["PASS"]
    assert told.of("GPU decode")[0][:2] == ("PASS", "NVIDIA-H100-80GB-HBM3, as in the profile")
    assert told.of("arguments decode")[0][0] == "PASS"
    assert told.of("model decode")[0][0] == "PASS"
    assert told.of("KV cache decode")[0][0] == "PASS"
    assert told.of("version")[0][0] == ("WARN" if rig.cluster.version < (1, 29) else "PASS")
    # The administrator's rights are more than a planner needs.
    assert [one[0] for one in told.of("verbs")] == ["PASS"]
    assert [one[0] for one in told.of("too much")] == ["WARN"]


def test_a_target_that_is_not_scraped_is_named_with_the_reason(rig: Rig) -> None:
    found = rig.addresses()
    lost, relabelled = found["decode"]

    def gone(address: str) -> Callable[[], bool]:
        return lambda: f'"instance":"{address}"' not in get(f"{rig.prometheus}/api/v1/targets")

    short = rig.config(
        metrics={"source": "prometheus", "prometheus": {"url": rig.prometheus}},
        tuning={"interval_s": 1.0, "stale_after_s": 2.0},
        service={"lease_s": 10},
    )
    groups = [{"targets": [*found["prefill"], *found["gateway"]]}]
    groups += [{"targets": [relabelled], "labels": {"instance": "decode-1"}}]
    rig.targets.write_text(json.dumps(groups))
    try:
        wait_until(gone(lost), "Prometheus has forgotten it", PATIENCE_S)
        wait_until(
            lambda: len(json.loads(get(f"{rig.prometheus}/api/v1/query?query=up"))["data"]["result"]) == 3,
            "what is left is scraped", PATIENCE_S,
        )  # fmt: skip

        def told() -> Told:
            return doctor("--config", short, "--only", "metrics")

        wait_until(
            lambda: len(told().of("target")) == 2, "the old samples are out of the span", PATIENCE_S, every_s=1.0
        )
        texts = {text for _, text, _ in told().of("target")}
        assert any(lost in text and "not discovered" in text for text in texts), texts
        assert any(relabelled in text and "its label instance is 'decode-1'" in text for text in texts), texts
        # Match labels that no series has hide all targets.
        hidden = rig.config(
            metrics={"source": "prometheus", "prometheus": {"url": rig.prometheus, "match": {"namespace": "x"}}}
        )
        report = doctor("--config", hidden, "--only", "metrics")
        assert report.code == 1
        assert any("metrics.prometheus.match" in text for _, text, _ in report.of("target"))
    finally:
        write_targets(rig.targets, found)


def test_without_prometheus_every_endpoint_is_tried(rig: Rig) -> None:
    told = doctor("--config", rig.config(metrics={"source": "scrape"}), "--only", "metrics")
    assert told.failed() == []
    assert told.of("targets") == [("PASS", "all 4 targets answer", "")]


def test_a_prometheus_that_is_not_there_fails_and_nothing_ends_in_a_traceback(rig: Rig) -> None:
    config = rig.config(metrics={"source": "prometheus", "prometheus": {"url": "http://user:hunter2@127.0.0.1:9"}})
    done = CliRunner().invoke(app, ["doctor", "--config", str(config), "--only", "metrics"])
    assert done.exit_code == 1
    assert "Connection refused" in done.stdout
    assert "Traceback" not in done.stdout
    assert "hunter2" not in done.stdout


def test_competing_controllers_budgets_and_trouble_of_pods_are_found(rig: Rig) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat-decode"}
    with rig.cluster.client() as api:
        apps, scaling = client.AppsV1Api(api), client.AutoscalingV1Api(api)
        spec = {"scaleTargetRef": target, "maxReplicas": 4}
        scaling.create_namespaced_horizontal_pod_autoscaler(rig.namespace, {"metadata": {"name": "h"}, "spec": spec})
        apps.patch_namespaced_deployment_scale("chat-prefill", rig.namespace, {"spec": {"replicas": 3}})
        try:
            waiting = "plimsoll.io/pool=prefill"
            wait_until(
                lambda: any(
                    one.reason == "Unschedulable" for pod in rig.pods(waiting) for one in pod.status.conditions or ()
                ),
                "no node for one", PATIENCE_S,
            )  # fmt: skip
            told = doctor("--config", rig.config(), "--only", "graph")
        finally:
            scaling.delete_namespaced_horizontal_pod_autoscaler("h", rig.namespace)
            apps.patch_namespaced_deployment_scale("chat-prefill", rig.namespace, {"spec": {"replicas": 1}})
        wait_until(lambda: len(rig.pods(waiting)) == 1, "one again", PATIENCE_S)
    assert told.code == 1
    [(verdict, text, _)] = told.of("competing decode")
    assert verdict == "FAIL"
    assert text == "HorizontalPodAutoscaler h also sets the replicas of Deployment chat-decode"
    [(verdict, text, _)] = told.of("pods prefill")
    assert verdict == "FAIL"
    assert "unschedulable" in text
    assert "Insufficient nvidia.com/gpu" in text
    assert told.of("disruption decode")[0][0] == "WARN"
    assert told.of("secrets")[0][0] == "PASS"


def test_another_engine_than_the_profiles_fails(rig: Rig) -> None:
    other = ROOT / "profiling_results" / "llama-3.1-8b-instruct" / "h200-sxm" / "vllm-0.26.0"
    folders = [other / "prefill-tp1-dp1", other / "decode-tp1-dp1"]
    if not all(one.is_dir() for one in folders):
        pytest.skip("no profile of another GPU")
    told = doctor("--config", rig.config(profiles=[str(one) for one in folders]), "--only", "profile")
    assert told.code == 1
    [(verdict, text, _)] = told.of("GPU decode")
    assert verdict == "FAIL"
    assert text == "workers run on NVIDIA-H100-80GB-HBM3; the profile is of h200-sxm"
    assert told.of("KV cache decode")[0][0] == "FAIL"
    with rig.cluster.client() as api:
        apps = client.AppsV1Api(api)
        body = worker("decode", 0, command=engine_arguments(**{"--max-num-batched-tokens": "2048"}))
        body["metadata"]["name"] = "fast"
        labels = labels_of("fast", "decode", "decode", tp=1, dp=1)
        body["metadata"]["labels"] = body["spec"]["selector"]["matchLabels"] = labels
        body["spec"]["template"]["metadata"]["labels"] = labels
        apps.create_namespaced_deployment(rig.namespace, body)
    objects = {"prefill": {"name": "chat-prefill"}, "decode": {"name": "fast"}}
    at = {"kubeconfig": str(rig.cluster.kubeconfig), "namespace": rig.namespace, "objects": objects}
    told = doctor("--config", rig.config(connector={"kind": "kubernetes", "kubernetes": at}), "--only", "profile")
    [(verdict, text, _)] = told.of("arguments decode")
    assert verdict == "FAIL"
    assert "--max-num-batched-tokens is 2048, measured with 8192" in text


def role_of(rig: Rig, *, without: tuple[str, str] | None = None) -> list[dict[str, Any]]:
    """Rules of a Role with the planner's rights, but for one verb on one kind."""
    return [
        {
            "apiGroups": [right.group],
            "resources": [right.resource],
            "verbs": [verb for verb in right.verbs if (right.resource, verb) != without] or ["watch"],
            **({"resourceNames": [right.named]} if right.named else {}),
        }
        for right in rights_for(None, GRAPH)
    ]


def test_the_planners_own_role_is_enough_and_no_more_and_a_verb_that_is_missing_is_named(rig: Rig) -> None:
    with rig.cluster.client() as api:
        core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
        core.create_namespaced_service_account(rig.namespace, {"metadata": {"name": "planner"}})
        role = {"metadata": {"name": "planner"}, "rules": role_of(rig)}
        rbac.create_namespaced_role(rig.namespace, role)
        binding = {
            "metadata": {"name": "planner"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "planner"},
            "subjects": [{"kind": "ServiceAccount", "name": "planner", "namespace": rig.namespace}],
        }
        rbac.create_namespaced_role_binding(rig.namespace, binding)
        kubeconfig = rig.cluster.kubeconfig_for_service_account(rig.namespace, "planner")
        told = doctor("--config", rig.config(), "--kubeconfig", kubeconfig)
        assert told.failed() == []
        assert [one[0] for one in told.of("verbs") + told.of("too much")] == ["PASS", "PASS"]
        # What such a role cannot see is skipped with the reason, not failed.
        verdict, text, fix = told.of("GPU nodes")[0]
        assert verdict == "SKIP"
        assert "nodes is forbidden" in text
        assert fix
        for resource, verb in (("pods", "list"), ("leases", "update"), ("deployments/scale", "patch")):
            role["rules"] = role_of(rig, without=(resource, verb))
            rbac.replace_namespaced_role("planner", rig.namespace, role)
            wait_until(
                lambda: doctor("--config", rig.config(), "--kubeconfig", kubeconfig, "--only", "rights").code == 1,
                f"{verb} {resource} is missed", PATIENCE_S,
            )  # fmt: skip
            told = doctor("--config", rig.config(), "--kubeconfig", kubeconfig, "--only", "rights")
            [(verdict, text, fix)] = [one for one in told.of(resource) if one[0] == "FAIL"]
            assert f"may not {verb} " in text
            assert f"resources: [{resource}]" in fix
        role["rules"] = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        rbac.replace_namespaced_role("planner", rig.namespace, role)
        wait_until(
            lambda: doctor("--kubeconfig", kubeconfig, "--namespace", rig.namespace, "--only", "rights").code == 0,
            "all rights are there", PATIENCE_S,
        )  # fmt: skip
        told = doctor("--kubeconfig", kubeconfig, "--namespace", rig.namespace, "--only", "rights")
        [(verdict, text, _)] = told.of("too much")
        assert verdict == "WARN"
        assert "everything in the namespace" in text


def test_a_cluster_that_does_not_answer_is_exit_code_3_and_wrong_usage_2(rig: Rig, tmp_path: Path) -> None:
    dead = tmp_path / "dead.kubeconfig"
    settings = yaml.safe_load(rig.cluster.kubeconfig.read_text())
    settings["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    dead.write_text(yaml.safe_dump(settings))
    told = doctor("--kubeconfig", dead, "--only", "cluster", "--only", "rights")
    assert told.code == 3
    assert [one["verdict"] for one in told.checks] == ["FAIL", "SKIP"]
    assert "refused" in told.checks[0]["found"]
    # With the profiles there is something that can be looked at.
    assert doctor("--config", rig.config(), "--kubeconfig", dead, "--only", "cluster", "--only", "profile").code == 1
    # A token that has run out.
    settings = yaml.safe_load(rig.cluster.kubeconfig.read_text())
    settings["users"][0]["user"] = {"token": "hf_abcdefghijklmnop"}
    dead.write_text(yaml.safe_dump(settings))
    told = doctor("--kubeconfig", dead, "--only", "cluster")
    assert told.code == 3
    assert "401" in told.checks[0]["found"]
    assert "abcdefghijklmnop" not in json.dumps(told.checks)
