"""The test bed does what clusters do: real objects, real scheduling, pods that start and end, faults."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client

from tests.integration.kubernetes.objects import container, deployment, wishes
from tests.kubernetes.cluster import Cluster, ExistingCluster, new_client
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.fixtures import Kubelet, new_namespace
from tests.kubernetes.installation.actors import LeaseWatch
from tests.kubernetes.nodes import Node
from tests.kubernetes.proxy import Proxy
from tests.servers import get, wait_until

PATIENCE_S = 60.0
StartKubelet = Callable[..., Kubelet]


def ready(api: client.ApiClient, namespace: str, name: str = "w") -> int:
    return client.AppsV1Api(api).read_namespaced_deployment_status(name, namespace).status.ready_replicas or 0


def pods(api: client.ApiClient, namespace: str) -> list[Any]:
    return list(client.CoreV1Api(api).list_namespaced_pod(namespace).items)


def create(api: client.ApiClient, namespace: str, body: dict[str, Any]) -> None:
    client.AppsV1Api(api).create_namespaced_deployment(namespace, body)


def scale(api: client.ApiClient, namespace: str, replicas: int) -> None:
    client.AppsV1Api(api).patch_namespaced_deployment_scale("w", namespace, {"spec": {"replicas": replicas}})


def test_a_scaled_deployment_gets_pods_that_are_scheduled_start_and_become_ready(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet
) -> None:
    # Long enough in each phase to be seen by who asks again and again.
    kubelet(Node("gpu-a", 8), delay_s=2.0)
    create(api, namespace, deployment("w", 1, ready_delay_s="2"))
    wait_until(lambda: ready(api, namespace) == 1, "one is ready", PATIENCE_S)
    scale(api, namespace, 3)
    seen = set()
    end = time.monotonic() + PATIENCE_S
    while ready(api, namespace) < 3:
        assert time.monotonic() < end
        for pod in pods(api, namespace):
            conditions = {one.type: one.status for one in pod.status.conditions or []}
            seen.add((pod.status.phase, conditions.get("Ready")))
    assert {("Pending", "False"), ("Running", "False"), ("Running", "True")} <= seen
    assert {pod.spec.node_name for pod in pods(api, namespace)} == {"gpu-a"}
    assert len({pod.status.pod_ip for pod in pods(api, namespace)}) == 3


def test_a_pod_without_gpus_left_is_unschedulable_in_the_schedulers_words_until_a_node_comes(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet
) -> None:
    running = kubelet(Node("gpu-a", 4))
    create(api, namespace, deployment("w", 3, gpus=2))
    wait_until(lambda: ready(api, namespace) == 2, "two of three are ready", PATIENCE_S)
    (left,) = [pod.metadata.name for pod in pods(api, namespace) if pod.spec.node_name is None]

    def scheduled() -> list[Any]:
        conditions = client.CoreV1Api(api).read_namespaced_pod(left, namespace).status.conditions or []
        return [one for one in conditions if one.type == "PodScheduled"]

    wait_until(lambda: bool(scheduled()), "the scheduler has had its turn with the third", PATIENCE_S)
    (said,) = scheduled()
    assert (said.status, said.reason) == ("False", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in said.message
    running.add_nodes(Node("gpu-b", 4))
    wait_until(lambda: ready(api, namespace) == 3, "all are ready", PATIENCE_S)


def test_a_deleted_pod_drains_and_no_longer_than_its_grace(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet
) -> None:
    kubelet(Node("gpu-a", 8))
    create(api, namespace, deployment("w", 1, drain_s="3"))
    client.CoreV1Api(api).create_namespaced_pod(
        namespace,
        {
            "metadata": {"name": "stubborn", "annotations": wishes(drain_s="600")},
            "spec": {"containers": [container()], "terminationGracePeriodSeconds": 5},
        },
    )
    wait_until(lambda: sum(pod.status.phase == "Running" for pod in pods(api, namespace)) == 2, "both run", PATIENCE_S)
    asked = time.monotonic()
    scale(api, namespace, 0)
    client.CoreV1Api(api).delete_namespaced_pod("stubborn", namespace)

    def left(name: str) -> list[Any]:
        return [pod for pod in pods(api, namespace) if pod.metadata.name.startswith(name)]

    assert left("stubborn")[0].metadata.deletion_timestamp, "it is on its way out"
    wait_until(lambda: not left("w-"), "the worker is gone", PATIENCE_S)
    assert time.monotonic() - asked >= 3.0, "it had its drain"
    wait_until(lambda: not left("stubborn"), "the stubborn one is gone long before its drain", PATIENCE_S)


def test_crashing_and_unpullable_pods_say_so(namespace: str, api: client.ApiClient, kubelet: StartKubelet) -> None:
    kubelet(Node("gpu-a", 8))
    for name, wish in {
        "crash": {"crash": "true"},
        "pull": {"image_pull_fails": "true"},
        "twice": {"crash": "2"},
    }.items():
        client.CoreV1Api(api).create_namespaced_pod(
            namespace,
            {"metadata": {"name": name, "annotations": wishes(**wish)}, "spec": {"containers": [container()]}},
        )

    def state(name: str) -> Any:
        statuses = client.CoreV1Api(api).read_namespaced_pod(name, namespace).status.container_statuses
        return statuses[0] if statuses else None

    def waits_for(name: str, reason: str, restarts: int) -> bool:
        now = state(name)
        waiting = now and now.state.waiting
        return bool(waiting and waiting.reason == reason and now.restart_count >= restarts)

    wait_until(lambda: waits_for("crash", "CrashLoopBackOff", 2), "it crashes again and again", PATIENCE_S)
    assert state("crash").last_state.terminated.exit_code == 1
    wait_until(lambda: waits_for("pull", "ImagePullBackOff", 0), "its image cannot be pulled", PATIENCE_S)

    def recovered() -> bool:
        now = state("twice")
        return bool(now and now.ready and now.restart_count == 2)

    wait_until(recovered, "it recovers", PATIENCE_S)


def test_a_simulated_engine_serves_at_its_pods_address_and_its_health_is_the_pods_readiness(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet
) -> None:
    kubelet(Node("gpu-a", 8))
    create(api, namespace, deployment("w", 2, engine="simulated", engine_role="decode", ready_delay_s="1"))
    wait_until(lambda: ready(api, namespace) == 2, "two engines are healthy", PATIENCE_S)
    addresses = [pod.status.pod_ip for pod in pods(api, namespace)]
    for address in addresses:
        assert "vllm:num_requests_running" in get(f"http://{address}:8000/metrics")
    sick = container(readinessProbe={"httpGet": {"path": "/sick", "port": 8000}})
    body = {"metadata": {"name": "sick", "annotations": wishes(engine="simulated")}, "spec": {"containers": [sick]}}
    core = client.CoreV1Api(api)
    core.create_namespaced_pod(namespace, body)
    wait_until(lambda: core.read_namespaced_pod("sick", namespace).status.phase == "Running", "it runs", PATIENCE_S)
    address = core.read_namespaced_pod("sick", namespace).status.pod_ip
    wait_until(lambda: "vllm:" in get(f"http://{address}:8000/metrics"), "its engine answers", PATIENCE_S)
    assert not core.read_namespaced_pod("sick", namespace).status.container_statuses[0].ready
    core.delete_namespaced_pod("sick", namespace)
    scale(api, namespace, 0)
    wait_until(lambda: not pods(api, namespace), "they are gone", PATIENCE_S)
    with pytest.raises(urllib.error.URLError):
        get(f"http://{addresses[0]}:8000/metrics")


#: Answers 500 to as many requests as a file says, from the moment on at which it says something else, and then 200; how
#: many it has answered since then is in a second file.
SPOILT = """
import http.server, os, pathlib, sys
asked, answered = map(pathlib.Path, sys.argv[2:])
now, count = "", 0
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global now, count
        text = asked.read_text()
        now, count = text, count + 1 if text == now else 1
        self.send_response(500 if count <= int(text) else 200)
        self.end_headers()
        part = answered.with_suffix(".part")
        part.write_text(f"{count} of {text}")
        os.replace(part, answered)
http.server.HTTPServer((sys.argv[1], 8000), Page).serve_forever()
"""


def test_a_pod_that_is_ready_is_no_longer_after_three_bad_answers_and_not_before(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet, tmp_path: Path
) -> None:
    kubelet(Node("gpu-a", 8))
    asked, answered = tmp_path / "asked", tmp_path / "answered"

    def spoil(answers: int) -> None:
        (tmp_path / "new").write_text(str(answers))
        (tmp_path / "new").replace(asked)

    def since(answers: int) -> int:
        """Answers since so many were to be bad."""
        count, _, of = answered.read_text().partition(" of ")
        return int(count) if int(of) == answers else 0

    spoil(0)
    main = container(
        command=["python", "-c", SPOILT, "$(IP)", str(asked), str(answered)],
        env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        readinessProbe={"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
    )
    core = client.CoreV1Api(api)
    body = {"metadata": {"name": "s", "annotations": wishes(exec="true")}, "spec": {"containers": [main]}}
    core.create_namespaced_pod(namespace, body)

    def serves() -> bool:
        statuses = core.read_namespaced_pod("s", namespace).status.container_statuses
        return bool(statuses and statuses[0].ready)

    wait_until(serves, "it is ready", PATIENCE_S)
    version = core.read_namespaced_pod("s", namespace).metadata.resource_version
    spoil(2)
    wait_until(lambda: since(2) > 2, "two bad answers and a good one", PATIENCE_S)
    assert core.read_namespaced_pod("s", namespace).metadata.resource_version == version, "nothing was told of it"
    spoil(1000)
    wait_until(lambda: not serves(), "it is not ready", PATIENCE_S)
    assert since(1000) >= 3
    spoil(0)
    wait_until(serves, "it is ready again", PATIENCE_S)


def test_a_jobs_commands_run_with_their_index_volumes_and_account(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet, tmp_path: Path
) -> None:
    running = kubelet(Node("gpu-a", 8))
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "plan"}, "data": {"layouts": "tp1 tp2 tp4"}})
    script = (
        "import os, pathlib, sys; index = int(os.environ['JOB_COMPLETION_INDEX']);"
        "layout = pathlib.Path(sys.argv[1]).read_text().split()[index];"
        "pathlib.Path(sys.argv[2]).joinpath(layout).write_text(os.environ['POD']);"
        "from kubernetes import client, config; config.load_kube_config();"
        "status = 0\ntry: client.CoreV1Api().list_namespaced_pod(os.environ['NAMESPACE'])\n"
        "except client.ApiException as error: status = error.status\n"
        "print('as the account:', status)"
    )
    fields = {"POD": "metadata.name", "NAMESPACE": "metadata.namespace"}
    main = container(
        2,
        command=["python", "-c", script],
        args=["/etc/plan/layouts", "/results"],
        env=[{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()],
        volumeMounts=[{"name": "plan", "mountPath": "/etc/plan"}, {"name": "results", "mountPath": "/results"}],
    )
    results = tmp_path / "results"
    results.mkdir()
    annotations = wishes(exec="true", indexed="true") | {"plimsoll.test/volume-results": str(results)}
    template = {
        "metadata": {"annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "containers": [main],
            "volumes": [{"name": "plan", "configMap": {"name": "plan"}}, {"name": "results", "emptyDir": {}}],
        },
    }
    jobs = client.BatchV1Api(api)
    body = {"metadata": {"name": "profile"}, "spec": {"completions": 3, "parallelism": 3, "template": template}}
    jobs.create_namespaced_job(namespace, body)
    wait_until(lambda: jobs.read_namespaced_job_status("profile", namespace).status.succeeded == 3, "done", PATIENCE_S)
    assert sorted(file.name for file in results.iterdir()) == ["tp1", "tp2", "tp4"]
    names = {pod.metadata.name for pod in pods(api, namespace)}
    assert {file.read_text() for file in results.iterdir()} == names
    assert all("as the account: 403" in running.log(namespace, name, "main") for name in names)


def test_a_failing_command_fails_its_pod_with_its_last_words(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet
) -> None:
    kubelet(Node("gpu-a", 8))
    main = container(command=["sh", "-c", "echo out of memory >&2; exit 7"])
    spec = {"containers": [main], "restartPolicy": "Never"}
    body = {"metadata": {"name": "fails", "annotations": wishes(exec="true")}, "spec": spec}
    client.CoreV1Api(api).create_namespaced_pod(namespace, body)
    wait_until(lambda: pods(api, namespace)[0].status.phase == "Failed", "it fails", PATIENCE_S)
    ended = pods(api, namespace)[0].status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.message) == (7, "out of memory")


def test_a_pre_stop_command_runs_before_the_engine_ends(
    namespace: str, api: client.ApiClient, kubelet: StartKubelet, tmp_path: Path
) -> None:
    kubelet(Node("gpu-a", 8))
    heard = tmp_path / "heard"
    fetch = "import sys, urllib.request as u; open(sys.argv[2], 'w').write(str(u.urlopen(sys.argv[1]).status))"
    hook = {"exec": {"command": ["python", "-c", fetch, "http://$(IP):8000/health", str(heard)]}}
    address = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    main = container(env=address, lifecycle={"preStop": hook})
    annotations = wishes(engine="simulated", pre_stop="true")
    body = {"metadata": {"name": "e", "annotations": annotations}, "spec": {"containers": [main]}}
    client.CoreV1Api(api).create_namespaced_pod(namespace, body)

    def serves() -> bool:
        statuses = pods(api, namespace)[0].status.container_statuses
        return bool(statuses and statuses[0].ready)

    wait_until(serves, "it serves", PATIENCE_S)
    client.CoreV1Api(api).delete_namespaced_pod("e", namespace)
    wait_until(lambda: not pods(api, namespace), "it is gone", PATIENCE_S)
    assert heard.read_text() == "200"


def test_an_api_server_that_is_killed_comes_back_with_its_data_and_pods_go_on(
    control_plane: Cluster, namespace: str, api: client.ApiClient, kubelet: StartKubelet
) -> None:
    kubelet(Node("gpu-a", 8))
    create(api, namespace, deployment("w", 1))
    wait_until(lambda: ready(api, namespace) == 1, "one is ready", PATIENCE_S)
    control_plane.kill_api_server()
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.CoreV1Api(api).list_namespaced_pod(namespace, _request_timeout=5)
    control_plane.start_api_server()
    scale(api, namespace, 2)
    wait_until(lambda: ready(api, namespace) == 2, "the kubelet and the controllers are back", PATIENCE_S)


def test_who_held_a_lease_is_seen_without_a_gap_whatever_the_api_server_does(
    control_plane: Cluster, namespace: str, api: client.ApiClient, proxy: Proxy, tmp_path: Path
) -> None:
    leases = client.CoordinationV1Api(api)
    leases.create_namespaced_lease(namespace, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})
    seen = LeaseWatch(ExistingCluster(proxy.kubeconfig(control_plane.kubeconfig), tmp_path), namespace, "l")
    seen.start()
    try:
        wait_until(lambda: seen.holder == "a", "it is watched", PATIENCE_S)
        # It changes hands while the watch is broken, before and after the server starts anew.
        proxy.cut()
        leases.patch_namespaced_lease("l", namespace, {"spec": {"holderIdentity": "b"}})
        control_plane.kill_api_server()
        control_plane.start_api_server()
        for holder in "cd":
            leases.patch_namespaced_lease("l", namespace, {"spec": {"holderIdentity": holder}})
        proxy.heal()
        seen.catch_up()
        assert [one.holder for one in seen.tenures] == ["a", "b", "c", "d"]
    finally:
        proxy.heal()
        seen.stop()


def test_a_paused_api_server_answers_when_it_goes_on(control_plane: Cluster, api: client.ApiClient) -> None:
    control_plane.pause_api_server()
    try:
        with pytest.raises(urllib3.exceptions.HTTPError):
            client.VersionApi(api).get_code(_request_timeout=1)
    finally:
        control_plane.resume_api_server()
    assert client.VersionApi(api).get_code(_request_timeout=30).major == str(control_plane.version[0])


def test_api_calls_are_counted_by_user(control_plane: Cluster, namespace: str, api: client.ApiClient) -> None:
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "planner"}})
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "reads"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "planner", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reads"}
    binding = {"metadata": {"name": "reads"}, "subjects": [subject], "roleRef": reference}
    rbac.create_namespaced_role_binding(namespace, binding)
    who = f"system:serviceaccount:{namespace}:planner"
    right = {"namespace": namespace, "verb": "list", "resource": "pods"}
    review: Any = {"spec": {"user": who, "resourceAttributes": right}}
    asked = client.AuthorizationV1Api(api)
    wait_until(lambda: asked.create_subject_access_review(review).status.allowed, "the Role holds")
    mark = control_plane.audit_mark()
    with new_client(control_plane.kubeconfig_for_service_account(namespace, "planner")) as planner:
        client.CoreV1Api(planner).list_namespaced_pod(namespace)
        client.CoreV1Api(planner).list_namespaced_pod(namespace)
        with pytest.raises(client.ApiException, match="403"):
            client.CoreV1Api(planner).delete_collection_namespaced_pod(namespace)
    # The log is written behind the answer.
    wait_until(lambda: len(control_plane.audit(mark, user=who)) >= 3, "the audit log is complete")
    assert [(call.verb, call.resource, call.code) for call in control_plane.audit(mark, user=who)] == [
        ("list", "pods", 200),
        ("list", "pods", 200),
        ("deletecollection", "pods", 403),
    ]


def test_a_user_of_any_name_has_no_rights(control_plane: Cluster, namespace: str) -> None:
    control_plane.needs_own()
    kubeconfig = control_plane.kubeconfig_for("mallory", ["somebody"])
    with new_client(kubeconfig) as mallory, pytest.raises(client.ApiException) as refused:
        client.CoreV1Api(mallory).list_namespaced_pod(namespace)
    assert refused.value.status == 403
    assert "mallory" in refused.value.body


# The proxy.


@pytest.fixture
def spoilt(control_plane: Cluster, proxy: Proxy) -> Any:
    """A client that speaks through the proxy."""
    with new_client(proxy.kubeconfig(control_plane.kubeconfig)) as made:
        made.rest_client.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(0)
        yield made


def test_the_proxy_answers_so_many_requests_and_passes_the_others(proxy: Proxy, namespace: str, spoilt: Any) -> None:
    core = client.CoreV1Api(spoilt)
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}})
    conflict = proxy.answer(409, times=2, method="PATCH", path=f"{namespace}/configmaps/c")
    for _ in range(2):
        with pytest.raises(client.ApiException, match="409"):
            core.patch_namespaced_config_map("c", namespace, {"data": {"a": "1"}})
        assert core.read_namespaced_config_map("c", namespace).data is None
    core.patch_namespaced_config_map("c", namespace, {"data": {"a": "1"}})
    assert core.read_namespaced_config_map("c", namespace).data == {"a": "1"}
    assert conflict.hits == 2


def test_the_proxy_cuts_connections_and_loses_answers(proxy: Proxy, namespace: str, spoilt: Any) -> None:
    core = client.CoreV1Api(spoilt)
    proxy.lose_answer(method="POST")
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "done"}})
    assert core.read_namespaced_config_map("done", namespace).metadata.name == "done"
    proxy.cut()
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.read_namespaced_config_map("done", namespace)
    proxy.heal()
    assert core.read_namespaced_config_map("done", namespace).metadata.name == "done"
    proxy.hang()
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.read_namespaced_config_map("done", namespace, _request_timeout=0.5)
    proxy.heal()
    assert core.read_namespaced_config_map("done", namespace).metadata.name == "done"


def test_watches_stream_through_the_proxy_and_break_with_it(proxy: Proxy, namespace: str, spoilt: Any) -> None:
    core = client.CoreV1Api(spoilt)
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    answer = core.list_namespaced_config_map(namespace, watch=True, timeout_seconds=60, _preload_content=False)
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}})
    lines = iter(answer)
    assert any(b'"name":"c"' in next(lines) for _ in range(2)), "it comes while the watch goes on"
    proxy.drop_connections()
    with pytest.raises(urllib3.exceptions.HTTPError):
        for _ in lines:
            pass
    proxy.break_watches(410, path=path)
    expired = core.list_namespaced_config_map(namespace, watch=True, timeout_seconds=60, _preload_content=False)
    assert b'"code": 410' in expired.read()


# What is left behind.


def test_a_test_run_that_is_killed_leaves_no_programs(control_plane: Cluster, tmp_path: Path) -> None:
    control_plane.needs_own()
    assert isinstance(control_plane, ControlPlane)
    folder = tmp_path / "killed"
    code = (
        "import pathlib, sys, time\nfrom tests.kubernetes import binaries\n"
        "from tests.kubernetes.control_plane import ControlPlane\n"
        f"plane = ControlPlane(binaries.find(), pathlib.Path({str(folder)!r}))\n"
        "plane.etcd.start()\nprint(plane.etcd.pid, flush=True)\ntime.sleep(600)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3], text=True
    )
    assert run.stdout is not None
    etcd = Path(f"/proc/{run.stdout.readline().strip()}")
    assert etcd.exists()
    run.kill()
    run.wait()
    run.stdout.close()
    wait_until(lambda: not etcd.exists(), "etcd has ended too", PATIENCE_S)


def test_a_namespace_goes_with_its_pods(control_plane: Cluster, api: client.ApiClient, kubelet: StartKubelet) -> None:
    kubelet(Node("gpu-a", 8))
    with new_namespace(control_plane) as name:
        create(api, name, deployment("w", 1, drain_s="600", grace_s=600))
        wait_until(lambda: ready(api, name) == 1, "one is ready", PATIENCE_S)

    def gone() -> bool:
        return name not in {one.metadata.name for one in client.CoreV1Api(api).list_namespace().items}

    wait_until(gone, "the namespace is gone", PATIENCE_S)
