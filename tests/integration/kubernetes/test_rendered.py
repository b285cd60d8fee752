"""What `planner graph render` writes, on a real API server: accepted, and the gateway finds its workers by it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from kubernetes import client, dynamic

from tests.kubernetes import crds
from tests.kubernetes.cluster import Cluster
from tests.servers import free_port, needs_smg, program
from tests.unit.worker_graph.simulated.test_server import running
from worker_graph.kubernetes.options import RenderOptions, Target
from worker_graph.kubernetes.render import render
from worker_graph.spec import GraphSpec, load_graph

MANIFESTS = Path(__file__).parents[3] / "manifests"
GRAPHS = ("agg.yaml", "disagg.yaml", "disagg_planner.yaml", "disagg_router.yaml")
PATIENCE_S = 60.0


def graph(name: str) -> GraphSpec:
    return load_graph(MANIFESTS / name)


def make(api: client.ApiClient, body: dict[str, Any], namespace: str, **options: Any) -> Any:
    """Create an object of any kind; a budget in the API that a server before 1.21 has."""
    known = dynamic.DynamicClient(api)
    if body["kind"] == "PodDisruptionBudget":
        groups = [one.name for one in client.ApisApi(api).get_api_versions().groups if one.name == "policy"]
        versions = client.PolicyApi(api).get_api_group().versions if groups else []
        if "policy/v1" not in {one.group_version for one in versions}:
            body = {**body, "apiVersion": "policy/v1beta1"}
    return known.resources.get(api_version=body["apiVersion"], kind=body["kind"]).create(
        body=body, namespace=namespace, **options
    )


@pytest.mark.parametrize(
    ("target", "version", "needed"),
    [
        (Target.KUBERNETES, None, ()),
        (Target.LWS, None, ("leaderworkerset",)),
        (Target.GROVE, None, ("grove",)),
        (Target.DYNAMO, "v1alpha1", ("dynamo-v1alpha1",)),
        (Target.DYNAMO, "v1beta1", ("dynamo-v1beta1",)),
    ],
)
def test_the_api_server_accepts_everything(
    target: Target, version: str | None, needed: tuple[str, ...], api: client.ApiClient, namespace: str
) -> None:
    crds.install(api, *needed)
    for name in GRAPHS:
        options = RenderOptions(namespace=namespace, api_version=version, groups_for_all=target is Target.LWS)
        for body in render(graph(name), target, options):
            made = make(api, body, namespace, dry_run="All").to_dict()
            # Nothing was dropped on the way: what the server knows not, it prunes.
            assert (
                made["spec" if "spec" in body else "metadata"].keys()
                >= body["spec" if "spec" in body else "metadata"].keys()
            )
            if body["kind"] == "Deployment":
                container = body["spec"]["template"]["spec"]["containers"][0]
                assert made["spec"]["template"]["spec"]["containers"][0].keys() >= container.keys()


@contextmanager
def account(cluster: Cluster, api: client.ApiClient, namespace: str, name: str, folder: Path) -> Iterator[Path]:
    """A kubeconfig of a ServiceAccount, as its pods have its rights."""
    token = client.CoreV1Api(api).create_namespaced_service_account_token(
        name, namespace, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    )
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text(encoding="utf-8"))
    config["users"] = [{"name": "account", "user": {"token": token.status.token}}]
    config["contexts"][0]["context"] |= {"user": "account", "namespace": namespace}
    config["current-context"] = config["contexts"][0]["name"]
    path = folder / "account.kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    yield path


def serving_pod(api: client.ApiClient, namespace: str, name: str, template: dict[str, Any], port: int) -> None:
    """A pod from a rendered template whose server is a process of the test."""
    core = client.CoreV1Api(api)
    annotations = {**template["metadata"].get("annotations", {}), "smg.ai/worker-ports": str(port)}
    metadata = {"name": name, "labels": template["metadata"]["labels"], "annotations": annotations}
    # Bound to a node without a kubelet: a deletion marks it, and it stays until somebody ends it.
    core.create_namespaced_pod(namespace, {"metadata": metadata, "spec": {**template["spec"], "nodeName": "nowhere"}})
    ready = {"type": "Ready", "status": "True"}
    status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [ready]}
    core.patch_namespaced_pod_status(name, namespace, {"status": status})


async def answered(session: aiohttp.ClientSession, base: str, count: int) -> list[int]:
    codes = []
    for _ in range(count):
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        async with session.post(f"{base}/v1/chat/completions", json=body) as answer:
            codes.append(answer.status)
            await answer.read()
    return codes


async def workers(session: aiohttp.ClientSession, base: str) -> set[str]:
    """Addresses of the workers that requests go to."""
    try:
        async with session.get(f"{base}/workers") as answer:
            found = (await answer.json())["workers"]
    except (aiohttp.ClientError, ValueError):
        return set()
    return {one["url"] for one in found if one.get("status") == "ready"}


@needs_smg
def test_the_gateway_finds_ready_pods_and_leaves_one_that_is_deleted(
    control_plane: Cluster, api: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    objects = render(graph("agg.yaml"), Target.KUBERNETES, RenderOptions(namespace=namespace))
    for body in objects:
        if body["kind"] in {"ServiceAccount", "Role", "RoleBinding"}:
            make(api, body, namespace)
    templates = {
        one["metadata"]["labels"]["plimsoll.io/role"]: one["spec"]["template"]
        for one in objects
        if one["kind"] == "Deployment"
    }
    gateway = templates["gateway"]["spec"]
    port, metrics = free_port(), free_port()
    swapped = {"$(POD_NAMESPACE)": namespace, "29000": str(metrics)}
    argv = [swapped.get(word, word) for word in gateway["containers"][0]["args"]]
    argv[argv.index("--port") + 1] = str(port)
    base = f"http://127.0.0.1:{port}"

    async def scenario(kubeconfig: Path) -> None:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            engines = [await stack.enter_async_context(running()) for _ in range(2)]
            urls = [f"http://127.0.0.1:{one.port}" for one, _ in engines]
            for index, (one, _) in enumerate(engines):
                await asyncio.to_thread(
                    serving_pod, api, namespace, f"w{index}", templates["aggregated"], one.port or 0
                )
            log = stack.enter_context((tmp_path / "smg.log").open("wb"))
            smg = await asyncio.create_subprocess_exec(
                str(program("smg")), "launch", *argv,
                env={**os.environ, "KUBECONFIG": str(kubeconfig)}, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                while await workers(session, base) != set(urls):
                    assert smg.returncode is None
                    await asyncio.sleep(0.1)
                assert await answered(session, base, 10) == [200] * 10
                core = client.CoreV1Api(api)
                marked = time.monotonic()
                await asyncio.to_thread(core.delete_namespaced_pod, "w0", namespace)
                assert core.read_namespaced_pod("w0", namespace).metadata.deletion_timestamp is not None
                while urls[0] in await workers(session, base):
                    await asyncio.sleep(0.02)
                # Well within the five seconds that the drain hook waits before it looks.
                assert time.monotonic() - marked < 5.0
                assert await answered(session, base, 10) == [200] * 10
                text = await (await engines[0][0].get("/metrics")).text()
                before = [line for line in text.splitlines() if line.startswith("vllm:request_success_total")]
                await answered(session, base, 10)
                text = await (await engines[0][0].get("/metrics")).text()
                assert before == [line for line in text.splitlines() if line.startswith("vllm:request_success_total")]
            finally:
                smg.terminate()
                await smg.wait()

    async def limited(kubeconfig: Path) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario(kubeconfig)

    name = gateway["serviceAccountName"]
    with account(control_plane, api, namespace, name, tmp_path) as kubeconfig:
        asyncio.run(limited(kubeconfig))
