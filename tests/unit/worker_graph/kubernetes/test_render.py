"""What the objects of a graph mean: commands, variables, GPUs, probes, who finds whom, what is carried over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import InputError
from tests.unit.worker_graph.kubernetes.rendered import (
    Object,
    deployed,
    env,
    find,
    graph,
    main_of,
    manifest,
    templates,
    words,
)
from tests.unit.worker_graph.spec.graphs import alpha, as_beta, read, worker
from worker_graph.kubernetes.gateway import gateway_arguments
from worker_graph.kubernetes.labels import object_name
from worker_graph.kubernetes.options import RenderOptions, Target, is_dynamo_image
from worker_graph.kubernetes.relayout import layout_of, relayout
from worker_graph.kubernetes.render import render, render_with_notes
from worker_graph.local.gateway import SmgGateway
from worker_graph.spec import load_graph


def with_main(folder: Path, **main: Any) -> Any:
    """One worker with fields of its main container."""
    one = worker(["--enable-chunked-prefill"])
    one["extraPodSpec"]["mainContainer"] |= main
    return read(folder, alpha({"W": one}))


def test_a_worker_is_stock_vllm() -> None:
    main = main_of(deployed(manifest("disagg.yaml"), "prefillworker"))
    assert main["image"] == "vllm/vllm-openai:v0.26.0"
    assert words(main)[:7] == ["vllm", "serve", "Qwen/Qwen3-0.6B", "--host", "0.0.0.0", "--port", "8000"]  # noqa: S104
    assert "dynamo" not in " ".join(words(main))
    assert main["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert main["envFrom"] == [{"secretRef": {"name": "hf-token-secret"}}]
    found = env(main)
    assert found["VLLM_NIXL_SIDE_CHANNEL_HOST"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert found["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
    assert {(port["name"], port["containerPort"]) for port in main["ports"]} == {("http", 8000), ("nixl", 5600)}


def test_images(tmp_path: Path) -> None:
    own = with_main(tmp_path, image="registry:5000/team/vllm:1.2@sha256:0")
    assert main_of(deployed(own, "-w"))["image"] == "registry:5000/team/vllm:1.2@sha256:0"
    assert main_of(deployed(manifest("agg.yaml"), "vllmworker", image="mine:1"))["image"] == "mine:1"
    assert main_of(deployed(manifest("agg.yaml"), "frontend", gateway_image="smg:2"))["image"] == "smg:2"
    for image in ("nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.3.1", "vllm-runtime:my-tag", "r/dynamo-vllm:1"):
        assert is_dynamo_image(image)
    for image in ("vllm/vllm-openai:v0.26.0", "localhost:5000/vllm:1", "r/smg"):
        assert not is_dynamo_image(image)


def test_kv_events_only_where_the_graph_routes_by_kv() -> None:
    routed, plain = manifest("disagg_router.yaml"), manifest("disagg.yaml")
    main = main_of(deployed(routed, "prefillworker"))
    config = json.loads(words(main)[words(main).index("--kv-events-config") + 1])
    assert config["enable_kv_cache_events"] is True
    assert {"name": "kv-events", "containerPort": 20080} in main["ports"]
    main = main_of(deployed(plain, "prefillworker"))
    assert "--kv-events-config" not in words(main)
    assert "kv-events" not in {port["name"] for port in main["ports"]}


def test_the_gateway_finds_the_workers_and_nothing_else() -> None:
    for name in ("agg.yaml", "disagg.yaml"):
        spec = manifest(name)
        objects = render(spec, Target.KUBERNETES)
        argv = words(main_of(find(objects, "Deployment", "frontend")["spec"]["template"]))
        flags = ["--prefill-selector", "--decode-selector"] if name == "disagg.yaml" else ["--selector"]
        assert ("--pd-disaggregation" in argv) == (name == "disagg.yaml")
        found = []
        for flag in flags:
            start = argv.index(flag) + 1
            wanted = dict(word.split("=") for word in argv[start : start + 3])
            found.append([t for t in templates(objects) if wanted.items() <= t["metadata"]["labels"].items()])
        assert [len(each) for each in found] == [1] * len(flags)
        assert [each[0]["metadata"]["labels"]["plimsoll.io/role"] for each in found] == (
            ["prefill", "decode"] if name == "disagg.yaml" else ["aggregated"]
        )
        assert argv[argv.index("--service-discovery-port") + 1] == "8000"
        assert argv[argv.index("--service-discovery-namespace") + 1] == "$(POD_NAMESPACE)"


def test_nixl_is_said_to_the_gateway() -> None:
    for component in ("prefillworker", "decodeworker"):
        assert deployed(manifest("disagg.yaml"), component)["metadata"]["annotations"] == {
            "smg.ai/kv-connector": "NixlConnector"
        }
    assert "annotations" not in deployed(manifest("agg.yaml"), "vllmworker")["metadata"]


def test_the_gateways_flags_are_those_of_the_local_one() -> None:
    spec = manifest("disagg_router.yaml")
    everywhere = "0.0.0.0"  # noqa: S104
    gateway = SmgGateway.__new__(SmgGateway)
    local = list(gateway.command(everywhere, 8000, 29000, disaggregated=True, routing="kv"))
    ours = gateway_arguments(spec, routing="kv", longest_s=100.0)
    start = local.index("launch") + 1
    assert [word for word in local[start:] if word not in ours] == []
    assert ours[ours.index("--policy") + 1] == "cache_aware"
    assert ours[ours.index("--shutdown-grace-period-secs") + 1] == "100"


def test_the_gateway_may_list_and_watch_pods() -> None:
    objects = render(manifest("disagg.yaml"), Target.KUBERNETES, RenderOptions(namespace="prod"))
    role, binding = find(objects, "Role", "frontend"), find(objects, "RoleBinding", "frontend")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    account = find(objects, "ServiceAccount", "frontend")["metadata"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["name"], "namespace": "prod"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    pods = {one["metadata"]["labels"]["plimsoll.io/role"]: one["spec"] for one in templates(objects)}
    assert pods["gateway"]["serviceAccountName"] == account["name"]
    assert all(pods[role]["automountServiceAccountToken"] is False for role in ("prefill", "decode"))


def test_the_gateway_outlives_the_longest_request() -> None:
    spec = manifest("disagg.yaml")
    gateway, decode = (deployed(spec, name, longest_decode_s=200.0) for name in ("frontend", "decodeworker"))
    grace = gateway["spec"]["terminationGracePeriodSeconds"]
    argv = words(main_of(gateway))
    assert grace > int(argv[argv.index("--shutdown-grace-period-secs") + 1]) >= 260
    assert grace > decode["spec"]["terminationGracePeriodSeconds"]


def test_labels_and_names_on_everything() -> None:
    for one in render(manifest("disagg.yaml"), Target.KUBERNETES):
        labels = one["metadata"]["labels"]
        assert labels["plimsoll.io/graph"] == "vllm-disagg"
        assert labels["app.kubernetes.io/managed-by"] == "plimsoll"
        assert one["metadata"]["namespace"] == "default"
    objects = render(manifest("disagg.yaml"), Target.KUBERNETES)
    decode = find(objects, "Deployment", "decodeworker")
    assert decode["metadata"]["name"] == "vllm-disagg-vllmdecodeworker"
    assert decode["metadata"]["labels"]["plimsoll.io/pool"] == "VllmDecodeWorker"
    assert decode["metadata"]["labels"]["plimsoll.io/layout"] == "tp1-dp1"
    selectors = [one["spec"]["selector"]["matchLabels"] for one in objects if one["kind"] == "Deployment"]
    for deployment, selector in zip((o for o in objects if o["kind"] == "Deployment"), selectors, strict=True):
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    # No Deployment may take another's pods.
    for template in templates(objects):
        assert sum(selector.items() <= template["metadata"]["labels"].items() for selector in selectors) == 1


def test_names_that_are_long_stay_apart() -> None:
    one, two = (object_name("g" * 60, f"Worker{i}") for i in range(2))
    assert one != two
    assert max(len(one), len(two)) <= 63
    assert object_name("vllm-disagg", "VllmDecodeWorker", "tp2") == "vllm-disagg-vllmdecodeworker-tp2"


def test_a_roll_out_takes_no_gpu_more() -> None:
    for one in render(manifest("disagg.yaml"), Target.KUBERNETES):
        if one["kind"] == "Deployment" and "plimsoll.io/layout" in one["metadata"]["labels"]:
            assert one["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
            # The new pod waits for the old one's GPU while that drains.
            grace = one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            assert one["spec"]["progressDeadlineSeconds"] > 1800 + grace


def test_a_disruption_budget_for_every_pool() -> None:
    objects = render(manifest("disagg.yaml"), Target.KUBERNETES)
    pools = {one["metadata"]["labels"]["plimsoll.io/pool"] for one in templates(objects)}
    budgets = [one for one in objects if one["kind"] == "PodDisruptionBudget"]
    assert {one["spec"]["selector"]["matchLabels"]["plimsoll.io/pool"] for one in budgets} == pools
    assert all(one["spec"]["maxUnavailable"] == 1 for one in budgets)


def test_no_pod_is_root() -> None:
    for name in ("disagg.yaml", "disagg_planner.yaml"):
        for one in templates(render(manifest(name), Target.KUBERNETES)):
            pod = one["spec"]["securityContext"]
            assert pod["runAsNonRoot"] is True
            assert pod["runAsUser"] > 0
            assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in one["spec"]["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_volumes(tmp_path: Path) -> None:
    pod = deployed(manifest("agg.yaml"), "vllmworker")
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes["model-cache"]["emptyDir"] == {}
    mounts = {one["name"]: one["mountPath"] for one in main_of(pod)["volumeMounts"]}
    assert mounts["shm"] == "/dev/shm"  # noqa: S108
    assert env(main_of(pod))["HF_HOME"].startswith(mounts["model-cache"])
    pod = deployed(manifest("agg.yaml"), "vllmworker", model_cache_claim="models")
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    assert volumes["model-cache"]["persistentVolumeClaim"] == {"claimName": "models"}
    pod = deployed(graph(tmp_path, [], gpus="1", sharedMemory={"disabled": True}), "-w")
    assert "shm" not in {one["name"] for one in pod["spec"]["volumes"]}
    pod = deployed(graph(tmp_path, [], gpus="1", sharedMemory={"size": "32Gi"}), "-w")
    assert pod["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] == "32Gi"


def test_claims_of_v1alpha1(tmp_path: Path) -> None:
    mounts = [{"name": "kernels", "useAsCompilationCache": True}, {"name": "models", "mountPoint": "/models"}]
    data = alpha({"W": {**worker([]), "volumeMounts": mounts}})
    made = {
        "name": "kernels",
        "create": True,
        "size": "10Gi",
        "storageClass": "fast",
        "volumeAccessMode": "ReadWriteMany",
    }
    data["spec"]["pvcs"] = [{"name": "models"}, made]
    objects = render(read(tmp_path, data), Target.KUBERNETES)
    claims = [one for one in objects if one["kind"] == "PersistentVolumeClaim"]
    assert [one["metadata"]["name"] for one in claims] == ["kernels"]
    assert claims[0]["spec"]["resources"] == {"requests": {"storage": "10Gi"}}
    main = main_of(find(objects, "Deployment", "-w")["spec"]["template"])
    paths = {one["name"]: one["mountPath"] for one in main["volumeMounts"]}
    assert paths["models"] == "/models"
    assert env(main)["VLLM_CACHE_ROOT"] == paths["kernels"]


def test_probes() -> None:
    main = main_of(deployed(manifest("agg.yaml"), "vllmworker", startup_timeout_s=600.0))
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert main[name]["httpGet"] == {"path": "/health", "port": "http"}
    assert main["startupProbe"]["periodSeconds"] * main["startupProbe"]["failureThreshold"] == 600
    slow = main["livenessProbe"]["periodSeconds"] * main["livenessProbe"]["failureThreshold"]
    assert slow >= 60


@pytest.mark.parametrize("version", ["alpha", "beta"])
def test_fields_of_the_pod_are_carried_over(tmp_path: Path, version: str) -> None:
    pod: Object = {
        "nodeSelector": {"gpu": "h200"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}], "priorityClassName": "high", "hostNetwork": True,
        "affinity": {"nodeAffinity": {}}, "serviceAccountName": "mine",
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "volumes": [{"name": "extra", "configMap": {"name": "c"}}],
        "initContainers": [{"name": "first", "image": "i"}],
        "securityContext": {"runAsUser": 7, "supplementalGroups": [9]},
    }  # fmt: skip
    main: Object = {
        "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "OWN", "value": "1"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "REF", "value": "$(OWN)-$(KEY)-$$(OWN)"},
        ],
        "imagePullPolicy": "Always",
        "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}},
        "resources": {"requests": {"cpu": 8, "memory": "64Gi"}},
    }
    one = worker([])
    one["extraPodSpec"] |= pod
    one["extraPodSpec"]["mainContainer"] |= main
    data = alpha({"W": {**one, "extraPodMetadata": {"labels": {"l": "1"}, "annotations": {"a": "2"}}}})
    if version == "beta":
        data = as_beta(
            alpha({"W": {**worker([]), "extraPodSpec": {"mainContainer": one["extraPodSpec"]["mainContainer"]}}})
        )
        template = data["spec"]["components"][1]["podTemplate"]
        template["metadata"] = {"labels": {"l": "1"}, "annotations": {"a": "2"}}
        containers = template["spec"]["containers"]
        containers[1] |= main
        containers[1]["resources"] = {**main["resources"], "limits": {"nvidia.com/gpu": 1}}
        containers[1]["envFrom"] = [{"secretRef": {"name": "hf-token-secret"}}, *main["envFrom"]]
        template["spec"] |= pod
    made = deployed(read(tmp_path, data), "-w")
    spec, container = made["spec"], main_of(made)
    for key in ("nodeSelector", "tolerations", "imagePullSecrets", "priorityClassName", "hostNetwork", "affinity"):
        assert spec[key] == pod[key]
    assert spec["topologySpreadConstraints"] == pod["topologySpreadConstraints"]
    assert spec["initContainers"] == pod["initContainers"]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("mine", True)
    assert spec["volumes"][0] == pod["volumes"][0]
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsNonRoot"]) == (7, True)
    assert container["volumeMounts"][0] == main["volumeMounts"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "hf-token-secret"}}, {"configMapRef": {"name": "settings"}}]
    found = env(container)
    assert found["KEY"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    # A name that is known is replaced; one from elsewhere is left to the kubelet, which reads `$$` as `$`.
    assert found["REF"] == "1-$(KEY)-$$(OWN)"
    names = [each["name"] for each in container["env"]]
    assert names.index("KEY") < names.index("REF")
    assert container["imagePullPolicy"] == "Always"
    assert container["securityContext"]["capabilities"] == {"add": ["IPC_LOCK"]}
    assert container["resources"]["requests"] == {"cpu": "8", "memory": "64Gi"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert (made["metadata"]["labels"]["l"], made["metadata"]["annotations"]["a"]) == ("1", "2")
    if version == "beta":
        assert spec["containers"][1] == {"name": "sidecar", "image": "s"}


def test_the_files_labels_cannot_replace_ours(tmp_path: Path) -> None:
    made = deployed(graph(tmp_path, [], gpus="1", labels={"plimsoll.io/pool": "other", "team": "x"}), "-w")
    assert made["metadata"]["labels"]["plimsoll.io/pool"] == "W"
    assert made["metadata"]["labels"]["team"] == "x"


def test_sizes_and_relayout_agree(tmp_path: Path) -> None:
    objects = render(graph(tmp_path, ["--tensor-parallel-size", "2", "-dp", "2"], gpus="4"), Target.KUBERNETES)
    deployment = find(objects, "Deployment", "-w")
    assert deployment["metadata"]["labels"]["plimsoll.io/layout"] == "tp2-dp2"
    main = main_of(deployment["spec"]["template"])
    assert layout_of(main) == (2, 2)
    assert relayout(main, 2, 2) == main
    other = relayout(main, 4, 1)
    wanted = find(
        render(graph(tmp_path, ["--tensor-parallel-size", "4", "-dp", "1"], gpus="4"), Target.KUBERNETES),
        "Deployment",
        "-w",
    )
    assert other == main_of(wanted["spec"]["template"])


def test_the_planner_of_the_graph() -> None:
    made = deployed(manifest("disagg_planner.yaml"), "-planner")
    main = main_of(made)
    assert words(main) == ["planner", "run", "--config", "/etc/plimsoll/planner.yaml"]
    assert main["workingDir"] == "/srv/plimsoll"
    assert {one["name"] for one in made["spec"]["volumes"]} == {"config", "profiles"}
    assert made["spec"]["serviceAccountName"] == "plimsoll-planner"
    assert "plimsoll.io/pool" not in made["metadata"]["labels"]


def test_other_documents_stay_and_share_the_namespace(tmp_path: Path) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
    spec = read(tmp_path, other, alpha())
    made = render(spec, Target.KUBERNETES, RenderOptions(namespace="prod"))
    assert made[0] == {**other, "metadata": {"name": "c", "namespace": "prod"}}
    assert {one["metadata"]["namespace"] for one in made} == {"prod"}


def test_what_is_done_otherwise_is_said(tmp_path: Path) -> None:
    one = {**worker(["--migration-limit", "3"]), "dynamoNamespace": "x", "scalingAdapter": {"enabled": True}}
    notes = render_with_notes(read(tmp_path, alpha({"W": one})), Target.KUBERNETES).notes
    assert len([note for note in notes if note.startswith("W")]) == 3
    assert any("--migration-limit" in note for note in notes)
    assert render_with_notes(manifest("disagg.yaml"), Target.KUBERNETES).notes == []


def bad(folder: Path, where: str, field: str, value: Any) -> Any:
    data = alpha({"W": worker([])})
    service = data["spec"]["services"]["W"]
    holder = {
        "spec": data["spec"], "service": service, "pod": service["extraPodSpec"],
        "main": service["extraPodSpec"]["mainContainer"], "limits": service["resources"]["limits"],
    }[where]  # fmt: skip
    holder[field] = value
    return read(folder, data)


@pytest.mark.parametrize(
    ("where", "field", "value", "said"),
    [
        ("spec", "topologyConstraint", {"packDomain": "rack"}, "topologyConstraint.*Dynamo's operator"),
        ("spec", "restart", {"id": "1"}, "restart"),
        ("service", "ingress", {"enabled": True}, "ingress"),
        ("service", "extraPodSpecs", {"x": 1}, "did you mean 'extraPodSpec'"),
        ("service", "modelRef", {"name": "m"}, "modelRef"),
        ("service", "livenessProbe", {"httpGet": {"path": "/live", "port": 9090}}, "port 9090"),
        ("service", "volumeMounts", [{"name": "x", "mountPoint": "/x"}], "names no claim"),
        ("pod", "nodeSelectors", {"x": "y"}, "did you mean 'nodeSelector'"),
        ("pod", "restartPolicy", "Never", "restartPolicy 'Never'"),
        ("main", "volumeMount", [1], "did you mean 'volumeMounts'"),
        ("limits", "gpus", "1", "did you mean 'gpu'"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named(
    tmp_path: Path, where: str, field: str, value: Any, said: str
) -> None:
    for target in (Target.KUBERNETES, Target.GROVE):
        with pytest.raises(InputError, match=said) as caught:
            render(bad(tmp_path, where, field, value), target)
        assert caught.value.line


def test_components_that_no_pod_can_be(tmp_path: Path) -> None:
    data = alpha({"W": worker([]), "E": {"componentType": "epp"}})
    with pytest.raises(InputError, match="neither frontend, worker nor planner"):
        render(read(tmp_path, data), Target.KUBERNETES)


def test_a_template_in_the_pod_need_not_be_here(tmp_path: Path) -> None:
    argv = words(main_of(deployed(graph(tmp_path, ["--custom-jinja-template", "/in/pod.jinja"], gpus="1"), "-w")))
    assert argv[argv.index("--chat-template") + 1] == "/in/pod.jinja"


def test_options_of_another_target() -> None:
    with pytest.raises(InputError, match="--api-version"):
        render(manifest("agg.yaml"), Target.KUBERNETES, RenderOptions(api_version="v1beta1"))


def test_what_is_rendered_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(manifest("disagg.yaml").to_yaml())
    assert render(load_graph(path), Target.LWS) == render(manifest("disagg.yaml"), Target.LWS)
