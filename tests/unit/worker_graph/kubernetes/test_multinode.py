"""Several nodes: the flags of Dynamo's operator by case, and what a group's pods run with their variables."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from profiler.errors import InputError
from tests.unit.worker_graph.kubernetes.rendered import Object, env, find, graph, main_of, words
from tests.unit.worker_graph.spec.graphs import alpha, read, worker
from worker_graph.kubernetes.labels import SERVES
from worker_graph.kubernetes.multinode import LWS, Case, LayoutError, Position, Sizes, case_of, grove, launch
from worker_graph.kubernetes.options import RenderOptions, Target
from worker_graph.kubernetes.render import render

GROVE_LEADER = "$(GROVE_PCSG_NAME)-$(GROVE_PCSG_INDEX)-w-ldr-0.$(GROVE_HEADLESS_SERVICE)"
TP16 = ["--tensor-parallel-size", "16"]
DP4 = ["--tensor-parallel-size", "4", "--data-parallel-size", "4"]


def group(objects: list[Object], target: Target) -> tuple[Object, Object]:
    """Templates of leader and workers."""
    if target is Target.LWS:
        made = find(objects, "LeaderWorkerSet", "-w")["spec"]["leaderWorkerTemplate"]
        return made["leaderTemplate"], made["workerTemplate"]
    cliques = {one["name"]: one for one in find(objects, "PodCliqueSet", "")["spec"]["template"]["cliques"]}
    leader, other = (
        {"metadata": {"labels": cliques[name]["labels"]}, "spec": cliques[name]["spec"]["podSpec"]}
        for name in ("w-ldr", "w-wkr")
    )
    return leader, other


def run_as_pod(container: Object, variables: dict[str, str]) -> list[str]:
    """The words that the engine is started with: the kubelet's replacements, then a real shell."""

    def kubelet(text: str) -> str:
        # The kubelet takes a name up to the first bracket, and leaves what it does not know.
        return re.sub(r"\$\(([^)]*)\)", lambda match: variables.get(match[1], match[0]), text)

    made = [kubelet(word) for word in words(container)]
    if made[0] != "sh":
        return made
    line = made[2].replace("exec ", "printf '%s\\n' ", 1)
    done = subprocess.run(
        ["sh", "-c", line], env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def value(argv: list[str], flag: str) -> str:
    assert argv.count(flag) == 1, argv
    return argv[argv.index(flag) + 1]


@pytest.mark.parametrize(
    ("tp", "pp", "dp", "nodes", "gpus", "ray", "case"),
    [
        (8, 1, 1, 1, 8, False, Case.SINGLE),
        (2, 1, 4, 1, 8, False, Case.SINGLE),
        (16, 1, 1, 2, 8, False, Case.MP),
        (8, 2, 1, 2, 8, False, Case.MP),
        (16, 1, 1, 2, 8, True, Case.RAY),
        (8, 1, 2, 2, 8, False, Case.HYBRID),
        (1, 1, 16, 2, 8, False, Case.HYBRID),
        (2, 2, 6, 3, 8, False, Case.HYBRID),
    ],
)
def test_cases(tp: int, pp: int, dp: int, nodes: int, gpus: int, ray: bool, case: Case) -> None:
    assert case_of(Sizes(tp, pp, dp, nodes, gpus), ray=ray) is case


@pytest.mark.parametrize(
    ("sizes", "ray", "said"),
    [
        (Sizes(8, 1, 1, 2, 8), False, "has 16 GPUs on 2 nodes"),
        (Sizes(16, 1, 2, 4, 8), False, "more than a node has"),
        (Sizes(3, 1, 4, 2, 6), True, "fits on one node"),
        (Sizes(4, 1, 3, 2, 6), False, "no multiple of the 4"),
    ],
)
def test_sizes_without_a_case(sizes: Sizes, ray: bool, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        case_of(sizes, ray=ray)


def test_orchestrators_as_the_operator_has_them() -> None:
    # lws.go: the leader's address, the index without a shell, and names to wait for.
    assert (LWS.leader_host, LWS.rank) == ("$(LWS_LEADER_ADDRESS)", "$(LWS_WORKER_INDEX)")
    assert (LWS.rank_needs_shell, LWS.needs_dns_wait) == (False, True)
    # grove.go: a name made of three variables, workers counted from 0 in their own clique, no wait.
    assert (grove("w").leader_host, grove("w").rank) == (GROVE_LEADER, "$((GROVE_PCLQ_POD_INDEX + 1))")
    assert (grove("w").rank_needs_shell, grove("w").needs_dns_wait) == (True, False)


@pytest.mark.parametrize("orchestrator", ["lws", "grove"])
def test_tensor_parallel_over_nodes_as_the_operator_has_it(orchestrator: str) -> None:
    one = LWS if orchestrator == "lws" else grove("w")
    sizes = Sizes(16, 1, 1, 2, 8)
    common = ["--master-addr", one.leader_host, "--master-port", "29500"]
    leader = launch(Case.MP, Position.LEADER, sizes, one)
    assert list(leader.flags) == [
        "--distributed-executor-backend", "mp", "--nnodes", "2", "--node-rank", "0", *common
    ]  # fmt: skip
    follower = launch(Case.MP, Position.WORKER, sizes, one)
    assert list(follower.flags) == [
        "--distributed-executor-backend", "mp", "--nnodes", "2", "--node-rank", one.rank, *common, "--headless"
    ]  # fmt: skip
    assert (leader.serves, follower.serves) == (True, False)


@pytest.mark.parametrize("orchestrator", ["lws", "grove"])
def test_hybrid_load_balancing_as_the_operator_has_it(orchestrator: str) -> None:
    one = LWS if orchestrator == "lws" else grove("w")
    sizes = Sizes(2, 1, 8, 2, 8)
    leader, other = (launch(Case.HYBRID, position, sizes, one) for position in (Position.LEADER, Position.WORKER))
    for made in (leader, other):
        assert "--data-parallel-hybrid-lb" in made.flags
        assert value(list(made.flags), "--data-parallel-size-local") == "4"
        assert value(list(made.flags), "--data-parallel-address") == one.leader_host
        assert value(list(made.flags), "--data-parallel-rpc-port") == "13445"
        assert made.serves
    assert value(list(leader.flags), "--data-parallel-start-rank") == "0"
    assert not leader.needs_shell
    assert other.needs_shell


LWS_PODS = [{"LWS_LEADER_ADDRESS": "g-w-0.g-w.ns", "LWS_WORKER_INDEX": str(i), "LWS_GROUP_SIZE": "2"} for i in (0, 1)]
GROVE_PODS = [
    {"GROVE_PCSG_NAME": "graph-0-w", "GROVE_PCSG_INDEX": "3", "GROVE_HEADLESS_SERVICE": "graph-0.ns.svc"}
    | {"GROVE_PCLQ_POD_INDEX": "0"}
] * 2  # fmt: skip


@pytest.mark.parametrize(
    ("target", "pods", "host"),
    [
        (Target.LWS, LWS_PODS, "g-w-0.g-w.ns"),
        (Target.GROVE, GROVE_PODS, "graph-0-w-3-w-ldr-0.graph-0.ns.svc"),
    ],
)
def test_what_the_pods_of_a_group_run(tmp_path: Path, target: Target, pods: list[dict[str, str]], host: str) -> None:
    leader, other = group(render(graph(tmp_path, TP16, nodes=2), target), target)
    argv = [run_as_pod(main_of(pod), variables) for pod, variables in zip((leader, other), pods, strict=True)]
    for rank, words_ in enumerate(argv):
        assert words_[:3] == ["vllm", "serve", "m"]
        assert value(words_, "--tensor-parallel-size") == "16"
        assert value(words_, "--node-rank") == str(rank)
        assert value(words_, "--nnodes") == "2"
        assert value(words_, "--master-addr") == host
    assert "--headless" not in argv[0]
    assert "--headless" in argv[1]
    leader, other = group(render(graph(tmp_path, DP4, nodes=2), target), target)
    argv = [run_as_pod(main_of(pod), variables) for pod, variables in zip((leader, other), pods, strict=True)]
    assert [value(one, "--data-parallel-start-rank") for one in argv] == ["0", "2"]
    assert [value(one, "--data-parallel-size-local") for one in argv] == ["2", "2"]
    assert [value(one, "--data-parallel-size") for one in argv] == ["4", "4"]
    assert [value(one, "--data-parallel-address") for one in argv] == [host, host]


@pytest.mark.parametrize("target", [Target.LWS, Target.GROVE])
def test_only_pods_that_answer_are_found_and_probed(tmp_path: Path, target: Target) -> None:
    for args, second in ((TP16, False), (DP4, True)):
        templates = group(render(graph(tmp_path, args, nodes=2), target), target)
        assert [SERVES in one["metadata"]["labels"] for one in templates] == [True, second]
        assert ["readinessProbe" in main_of(one) for one in templates] == [True, second]
        # Every pod of a group belongs to one worker: the GPUs of all of them count.
        assert [main_of(one)["resources"]["limits"]["nvidia.com/gpu"] for one in templates] == ["8", "8"]
        assert {one["metadata"]["labels"]["plimsoll.io/pool"] for one in templates} == {"W"}
        assert env(main_of(templates[1]))["VLLM_HOST_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_a_pod_without_a_server_waits_for_its_leader_to_drain(tmp_path: Path) -> None:
    for target, host in (
        (Target.LWS, "${LWS_LEADER_ADDRESS}"),
        (Target.GROVE, "${GROVE_PCSG_NAME}-${GROVE_PCSG_INDEX}-w-ldr-0.${GROVE_HEADLESS_SERVICE}"),
    ):
        leader, other = group(render(graph(tmp_path, TP16, nodes=2), target), target)
        urls = [main_of(one)["lifecycle"]["preStop"]["exec"]["command"][3] for one in (leader, other)]
        assert urls == ["http://127.0.0.1:8000/metrics", f"http://{host}:8000/metrics"]


def test_lws_waits_for_names_and_grove_does_not(tmp_path: Path) -> None:
    for one in group(render(graph(tmp_path, TP16, nodes=2), Target.LWS), Target.LWS):
        waits = one["spec"]["initContainers"]
        assert len(waits) == 1
        assert "LWS_LEADER_ADDRESS" in waits[0]["command"][2]
        compile(waits[0]["command"][2], "wait", "exec")
    for one in group(render(graph(tmp_path, TP16, nodes=2), Target.GROVE), Target.GROVE):
        assert "initContainers" not in one["spec"]


def test_ray_where_it_is_asked_for(tmp_path: Path) -> None:
    asked = graph(tmp_path, [*TP16, "--distributed-executor-backend", "ray"], nodes=2)
    leader, other = group(render(asked, Target.LWS), Target.LWS)
    line = words(main_of(leader))[2]
    assert line.startswith("ray start --head --port=6379 && exec vllm serve m ")
    assert line.count("--distributed-executor-backend ray") == 1
    assert words(main_of(other))[2] == "exec ray start --address=$(LWS_LEADER_ADDRESS):6379 --block"
    annotated = graph(tmp_path, TP16, nodes=2, annotations={"nvidia.com/vllm-distributed-executor-backend": "ray"})
    assert words(main_of(group(render(annotated, Target.LWS), Target.LWS)[1]))[2] == words(main_of(other))[2]


def test_group_sizes_and_roll_outs_without_surge(tmp_path: Path) -> None:
    made = find(
        render(graph(tmp_path, ["--tensor-parallel-size", "24"], nodes=3, replicas=5), Target.LWS),
        "LeaderWorkerSet",
        "-w",
    )
    assert made["spec"]["replicas"] == 5
    assert made["spec"]["leaderWorkerTemplate"]["size"] == 3
    assert made["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"] == {"maxSurge": 0, "maxUnavailable": 1}
    made = find(
        render(graph(tmp_path, ["--tensor-parallel-size", "24"], nodes=3, replicas=5), Target.GROVE), "PodCliqueSet", ""
    )
    template = made["spec"]["template"]
    assert template["podCliqueScalingGroups"] == [
        {"name": "w", "cliqueNames": ["w-ldr", "w-wkr"], "replicas": 5, "minAvailable": 1}
    ]
    assert {one["name"]: one["spec"]["replicas"] for one in template["cliques"]} == {
        "frontend": 1,
        "w-ldr": 1,
        "w-wkr": 2,
    }
    assert template["cliqueStartupType"] == "CliqueStartupTypeAnyOrder"


def test_workers_of_one_node_stay_deployments_unless_asked(tmp_path: Path) -> None:
    one = graph(tmp_path, [], gpus="1")
    assert not [each for each in render(one, Target.LWS) if each["kind"] == "LeaderWorkerSet"]
    made = find(render(one, Target.LWS, RenderOptions(groups_for_all=True)), "LeaderWorkerSet", "-w")
    assert made["spec"]["leaderWorkerTemplate"]["size"] == 1


@pytest.mark.parametrize(
    ("args", "more", "target", "said"),
    [
        (TP16, {}, Target.KUBERNETES, r"spans 2 nodes.*--target lws or --target grove"),
        (["--tensor-parallel-size", "8"], {}, Target.LWS, "16 GPUs per worker"),
        (["--tensor-parallel-size", "4", "--pipeline-parallel-size", "3"], {"gpus": "6"}, Target.LWS, None),
        ([*TP16, "--node-rank", "1"], {}, Target.LWS, "--node-rank is set by the target"),
        ([*DP4, "--enable-elastic-ep"], {}, Target.LWS, "--enable-elastic-ep is set by the target"),
        ([*TP16, "--distributed-executor-backend", "uni"], {}, Target.LWS, "'uni' over several nodes"),
        ([*DP4, "--distributed-executor-backend", "ray"], {}, Target.GROVE, "fits on one node"),
    ],
)
def test_what_cannot_span_nodes(
    tmp_path: Path, args: list[str], more: dict[str, str], target: Target, said: str | None
) -> None:
    made = graph(tmp_path, args, nodes=2, gpus=more.get("gpus", "8"))
    if said is None:
        render(made, target)
        return
    with pytest.raises(InputError, match=said) as caught:
        render(made, target)
    assert caught.value.line


def test_names_too_long_for_grove(tmp_path: Path) -> None:
    data = alpha({"VllmPrefillWorkerThatIsLong": {**worker(TP16, gpus="8"), "multinode": {"nodeCount": 2}}})
    with pytest.raises(InputError, match="room for 45"):
        render(read(tmp_path, data), Target.GROVE)
