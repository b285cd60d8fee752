"""Cost of a planner on Kubernetes, on a real control plane: `python -m tests.bench.kubernetes`.

Requests and bytes of a tick, how long it takes, time from the start to the first action, memory.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, watch

from planner.connectors.kubernetes.cluster import Cluster, Object
from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.core.types import Pool, Role
from planner.demo.settings import bundled_profiles
from tests.kubernetes import binaries
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.fixtures import new_namespace
from tests.servers import get, wait_until

GRAPH, ME, PODS = "bench", "planner-0", 3
TICKS, STARTS, PATIENCE_S = 30, 5, 300.0
_LISTENS = re.compile(r"planning graph \S+ every .*; (http://[\d.:]+)")


def names(pools: int) -> list[str]:
    return ["prefill", "decode", *(f"pool{i}" for i in range(2, pools))]


def deployment(pool: str, replicas: int) -> dict[str, Any]:
    labels = {"plimsoll.io/graph": GRAPH, "plimsoll.io/pool": pool, "plimsoll.io/layout": "tp1-dp1"}
    engine = {
        "name": "main", "image": "vllm/vllm-openai", "command": ["vllm", "serve", "m"],
        "args": ["--tensor-parallel-size=1", "--max-model-len=16384", "--enable-prefix-caching"],
        "resources": {"limits": {"nvidia.com/gpu": "1"}}, "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
    }  # fmt: skip
    template = {"metadata": {"labels": labels}, "spec": {"containers": [engine]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": f"{GRAPH}-{pool}", "labels": labels}, "spec": spec}


def install(api: client.ApiClient, namespace: str, pools: int, pods: int) -> None:
    """Deployments whose pods are there and ready, as after a kubelet's work."""
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    for pool in names(pools):
        apps.create_namespaced_deployment(namespace, deployment(pool, pods))
    wait_until(
        lambda: len(core.list_namespaced_pod(namespace).items) == pools * pods, "all pods", PATIENCE_S, every_s=0.5
    )

    def serve(i: int, name: str) -> None:
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        status = {"phase": "Running", "podIP": f"10.0.{i // 250}.{i % 250 + 1}", "conditions": [ready]}
        core.patch_namespaced_pod_status(name, namespace, {"status": status})

    found = [one.metadata.name for one in core.list_namespaced_pod(namespace).items]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(serve, range(len(found)), found))


def rss_mib() -> float:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


class Counting(Cluster):
    """A cluster whose answers are counted, bytes of their JSON."""

    read_bytes = 0

    def _request(self, method: str, path: str, about: str, **how: Any) -> Object:
        answer = super()._request(method, path, about, **how)
        self.read_bytes += len(json.dumps(answer, separators=(",", ":")))
        return answer


def connector(kubeconfig: str, namespace: str, pools: int) -> None:
    """A process that ticks as the service does, without the deciding; its times go to standard output."""
    planned = [Pool(name, Role.DECODE, 1) for name in names(pools)]
    before = rss_mib()
    cluster = Counting(namespace, kubeconfig=Path(kubeconfig), timeout_s=60.0)
    # Room enough: no write waits for workers that drain.
    one = KubernetesConnector(cluster, GRAPH, planned, KubernetesSettings(), 10 * pools * PODS)
    spent: dict[str, list[float]] = {"read": [], "lease": [], "apply": [], "apply_writes": []}

    def timed(what: str, plan: dict[str, int] | None = None) -> Any:
        began = time.perf_counter()
        if what == "read":
            done: Any = one.read()
        elif what == "lease":
            done = one.lease(ME, 600.0)
        else:
            done = one.apply(plan or {}, ME)
        spent[what].append(time.perf_counter() - began)
        return done

    def tick() -> None:
        supply = timed("read")
        assert len(supply.pools) == pools
        assert timed("lease").held
        same = {name: state.desired for name, state in supply.pools.items()}
        assert set(timed("apply", same).values()) == {"unchanged"}

    tick()
    for values in spent.values():
        values.clear()
    cluster.read_bytes = 0
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(TICKS):
        tick()
    read_bytes, memory = cluster.read_bytes, rss_mib()
    print("ticked", flush=True)
    sys.stdin.readline()
    for i in range(TICKS):
        one.lease(ME, 600.0)
        said = timed("apply_writes", dict.fromkeys(("prefill", "decode"), PODS + 1 - i % 2))
        assert all("->" in text for text in said.values()), said
    print(json.dumps({"spent": spent, "bytes": read_bytes, "before": before, "after": memory}), flush=True)


def ticks_of(cluster: ControlPlane, namespace: str, pools: int) -> None:
    """Print what ticks cost."""
    command = [sys.executable, "-m", "tests.bench.kubernetes", str(cluster.kubeconfig), namespace, str(pools)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def said(word: str) -> None:
            line = child.stdout.readline().strip() if child.stdout is not None else ""
            assert line == word, f"the child process said {line!r}"

        def go_on() -> int:
            mark = cluster.audit_mark()
            child.stdin.write("\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
            return mark

        said("ready")
        mark = go_on()
        said("ticked")
        time.sleep(0.5)  # the log is written behind the answer
        calls = cluster.audit(mark, user="admin", namespace=namespace)
        go_on()
        told = json.loads(child.stdout.readline())
    made = Counter(f"{one.verb} {one.resource}" for one in calls)
    listed = ", ".join(f"{count / TICKS:g} {what}" for what, count in made.most_common())
    print(f"{pools} pools, {pools * PODS} pods: {made.total() / TICKS:g} requests a tick: {listed}")
    print(f"  {told['bytes'] / TICKS / 1024:,.0f} KiB of JSON read a tick")
    for what, words in (("read", "read"), ("lease", "lease"), ("apply", "apply, no change"),
                        ("apply_writes", "apply, two pools change")):  # fmt: skip
        ms = sorted(1000 * one for one in told["spent"][what])
        print(f"  {words}: median {statistics.median(ms):.0f} ms, p90 {ms[int(0.9 * len(ms))]:.0f} ms")
    print(f"  memory: {told['before']:.0f} MiB before the first request, {told['after']:.0f} MiB after {TICKS} ticks")


def start_of(cluster: ControlPlane, api: client.ApiClient, namespace: str, folder: Path) -> tuple[float, ...]:
    """Seconds from `planner run` to its port, its first tick's end and its first write; MiB after it."""
    folder.mkdir()
    profiles = [bundled_profiles() / "h200-sxm" / "vllm-unknown" / f"{role}-tp1-dp1" for role in ("prefill", "decode")]
    config = {
        "graph": GRAPH, "model": "m", "profiles": [str(one) for one in profiles],
        "connector": {
            "kind": "kubernetes", "kubernetes": {"namespace": namespace, "kubeconfig": str(cluster.kubeconfig)}
        },
        "metrics": {"source": "scrape", "gateway": "smg"},
        "sla": {"ttft_ms": 500, "itl_ms": 25}, "budget": {"max_gpus": 8},
        # One worker each is there, so that the first tick has something to do.
        "pools": {role: {"role": role, "min_workers": 2} for role in ("prefill", "decode")},
        "tuning": {"interval_s": 1},
        "service": {"port": 0, "journal": "journal.jsonl", "checkpoint": "checkpoint.json", "lease_s": 3},
    }  # fmt: skip
    (folder / "planner.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    apps = client.AppsV1Api(api)
    for role in ("prefill", "decode"):
        apps.patch_namespaced_deployment_scale(f"{GRAPH}-{role}", namespace, {"spec": {"replicas": 1}})
    watcher, written = watch.Watch(), threading.Event()
    times: dict[str, float] = {}

    def follow() -> None:
        for event in watcher.stream(apps.list_namespaced_deployment, namespace, timeout_seconds=120):
            if event["object"].spec.replicas == 2:
                times["write"] = time.monotonic()
                written.set()
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    time.sleep(0.5)  # the watch has begun
    log = folder / "log"
    began = time.monotonic()
    command = [sys.executable, "-m", "planner", "run", "--config", "planner.yaml"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream)
    try:
        wait_until(lambda: bool(_LISTENS.search(log.read_text())), "it listens", every_s=0.01)
        times["port"] = time.monotonic()
        url = _LISTENS.search(log.read_text())[1]  # type: ignore[index]
        wait_until(lambda: get(f"{url}/readyz") != "", "the first tick", every_s=0.01)
        times["tick"] = time.monotonic()
        assert written.wait(60.0), log.read_text()
        time.sleep(5.0)
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    finally:
        watcher.stop()
        process.terminate()
        process.wait(30.0)
        thread.join(10.0)
    return (*(times[name] - began for name in ("port", "tick", "write")), memory)


def imports() -> None:
    """Print how much of the import time is for the client of Kubernetes, with what it is the first to import."""
    code = "import planner.service.run, planner.explain, planner.connectors.kubernetes.connector"
    said = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    rows = [re.match(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)", line) for line in said.stderr.splitlines()]
    found = [row for row in rows if row is not None]
    total = sum(int(row[1]) for row in found) / 1e6
    part = next(int(row[2]) for row in found if row[3] == "kubernetes") / 1e6
    print(f"imports of `planner run`, traced: {total:.1f} s, {100 * part / total:.0f} % of it for Kubernetes' client")


def main() -> None:
    found = binaries.find()
    if isinstance(found, str):
        print(f"skipped: {found}")
        return
    with tempfile.TemporaryDirectory() as name, ControlPlane(found, Path(name) / "plane") as cluster:
        with cluster.client() as api:
            for pools in (2, 200):
                with new_namespace(cluster) as namespace:
                    install(api, namespace, pools, PODS)
                    ticks_of(cluster, namespace, pools)
            with new_namespace(cluster) as namespace:
                install(api, namespace, 2, 1)
                runs = [start_of(cluster, api, namespace, Path(name) / f"run{i}") for i in range(STARTS)]
        shown = [f"{statistics.median(column):.1f} s ({min(column):.1f} to {max(column):.1f})" for column in
                 list(zip(*runs, strict=True))[:3]]  # fmt: skip
        print(f"`planner run`, median of {STARTS}: port after {shown[0]}, first tick done {shown[1]}, "
              f"first write seen {shown[2]}; ticks every second")  # fmt: skip
        print(f"  the process: {statistics.median(run[3] for run in runs):.0f} MiB")
    imports()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        connector(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
