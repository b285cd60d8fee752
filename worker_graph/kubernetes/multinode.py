"""vLLM's flags for one worker that spans several nodes: a table of cases, and who leads.

The cases are those of Dynamo's operator (`deploy/operator/internal/dynamo`: graph.go, backend_vllm.go, lws.go,
grove.go): with G GPUs on each of N nodes and TP x PP GPUs for one data-parallel rank,

| case | when | leader | workers |
| --- | --- | --- | --- |
| single | N = 1 | nothing is added | |
| mp | TP x PP > G | `--nnodes N --node-rank 0 --master-addr L --master-port 29500` | the same with their rank, `--headless` |
| ray | TP x PP > G, Ray asked for | `ray start --head`, then vLLM with the backend `ray` | `ray start --address L:6379 --block` |
| hybrid | TP x PP <= G, DP over the nodes | `--data-parallel-hybrid-lb`, local size, start rank 0, address L | the same from rank x local size; each serves |
"""  # noqa: E501 (a table)

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MASTER_PORT: Final = 29500
RAY_PORT: Final = 6379
DP_RPC_PORT: Final = 13445
BACKEND_FLAG: Final = "--distributed-executor-backend"
DP_LOCAL_FLAG: Final = "--data-parallel-size-local"


class Case(StrEnum):
    """How a worker's ranks find each other; see the module."""

    SINGLE = "single"
    MP = "mp"
    RAY = "ray"
    HYBRID = "hybrid"


class Position(StrEnum):
    """A pod's place in its group. `ALONE`: there is no group."""

    ALONE = "alone"
    LEADER = "leader"
    WORKER = "worker"


class LayoutError(ValueError):
    """Sizes that no case covers; the message says why, for people."""


@dataclass(frozen=True)
class Group:
    """What an orchestrator tells the pods of a group.

    Attributes:
        leader_host: the leader's name as the kubelet expands it, `$(NAME)` for variables that are injected.
        rank: of a worker's node, counted from 1, as written in an argument.
        rank_in_arithmetic: the same as a term of a shell's arithmetic.
        rank_needs_shell: whether `rank` is for a shell to work out.
        needs_dns_wait: whether pods may start before the leader's name resolves.
    """

    leader_host: str
    rank: str
    rank_in_arithmetic: str
    rank_needs_shell: bool
    needs_dns_wait: bool


#: A LeaderWorkerSet injects these three into every pod; its pods start at the same moment, before DNS knows them.
LWS: Final = Group(
    leader_host="$(LWS_LEADER_ADDRESS)",
    rank="$(LWS_WORKER_INDEX)",
    rank_in_arithmetic="LWS_WORKER_INDEX",
    rank_needs_shell=False,
    needs_dns_wait=True,
)


def grove(clique: str) -> Group:
    """A PodCliqueScalingGroup with the cliques `<clique>-ldr` and `<clique>-wkr`.

    Workers are counted from 0 in their own clique; Grove itself sees to the start.
    """
    return Group(
        leader_host=f"$(GROVE_PCSG_NAME)-$(GROVE_PCSG_INDEX)-{clique}-ldr-0.$(GROVE_HEADLESS_SERVICE)",
        rank="$((GROVE_PCLQ_POD_INDEX + 1))",
        rank_in_arithmetic="(GROVE_PCLQ_POD_INDEX + 1)",
        rank_needs_shell=True,
        needs_dns_wait=False,
    )


@dataclass(frozen=True)
class Sizes:
    """Parallel sizes of a worker, over all of its nodes, and where they go."""

    tp: int
    pp: int
    dp: int
    nodes: int
    gpus_per_node: int

    @property
    def per_rank(self) -> int:
        """GPUs of one data-parallel rank."""
        return self.tp * self.pp


@dataclass(frozen=True)
class Launch:
    """What is done to the worker's own command.

    Attributes:
        case: which one it is.
        flags: added behind the command's own, as they are written: a shell's arithmetic stays unquoted.
        before: a shell command that must succeed first; empty for none.
        instead: a command that runs in place of vLLM; empty for vLLM.
        needs_shell: whether the command must be a shell's line.
        serves: whether the pod answers requests.
    """

    case: Case
    flags: tuple[str, ...] = ()
    before: str = ""
    instead: str = ""
    needs_shell: bool = False
    serves: bool = True


def case_of(sizes: Sizes, *, ray: bool = False) -> Case:
    """The case of these sizes.

    Raises:
        LayoutError: they fill no whole number of nodes, or ranks that span nodes are to be parallel in data as well.
    """
    if sizes.nodes == 1:
        return Case.SINGLE
    total = sizes.nodes * sizes.gpus_per_node
    if sizes.per_rank * sizes.dp != total:
        raise LayoutError(
            f"has {total} GPUs on {sizes.nodes} nodes, and its tensor-, pipeline- and data-parallel sizes take "
            f"{sizes.per_rank * sizes.dp}"
        )
    if sizes.per_rank > sizes.gpus_per_node:
        if sizes.dp > 1:
            raise LayoutError(
                f"has {sizes.dp} data-parallel ranks of {sizes.per_rank} GPUs each, more than a node has; "
                "make them replicas of one rank"
            )
        return Case.RAY if ray else Case.MP
    if ray:
        raise LayoutError("asks for Ray, and each data-parallel rank fits on one node; nodes balance by themselves")
    if sizes.gpus_per_node % sizes.per_rank:
        raise LayoutError(f"has {sizes.gpus_per_node} GPUs on a node, no multiple of the {sizes.per_rank} of a rank")
    return Case.HYBRID


def launch(case: Case, position: Position, sizes: Sizes, group: Group) -> Launch:
    """What a pod at this place of the group runs."""
    if case is Case.SINGLE:
        return Launch(case)
    leads = position is Position.LEADER
    if case is Case.MP:
        rank = "0" if leads else group.rank
        flags: tuple[str, ...] = (
            BACKEND_FLAG, "mp", "--nnodes", str(sizes.nodes), "--node-rank", rank,
            "--master-addr", group.leader_host, "--master-port", str(MASTER_PORT),
        )  # fmt: skip
        if leads:
            return Launch(case, flags)
        return Launch(case, (*flags, "--headless"), needs_shell=group.rank_needs_shell, serves=False)
    if case is Case.RAY:
        if leads:
            return Launch(case, (BACKEND_FLAG, "ray"), before=f"ray start --head --port={RAY_PORT}", needs_shell=True)
        join = f"ray start --address={group.leader_host}:{RAY_PORT} --block"
        return Launch(case, instead=join, needs_shell=True, serves=False)
    local = sizes.gpus_per_node // sizes.per_rank
    start = "0" if leads else f"$(({local} * {group.rank_in_arithmetic}))"
    flags = (
        "--data-parallel-hybrid-lb", DP_LOCAL_FLAG, str(local), "--data-parallel-start-rank", start,
        "--data-parallel-address", group.leader_host, "--data-parallel-rpc-port", str(DP_RPC_PORT),
    )  # fmt: skip
    return Launch(case, flags, needs_shell=not leads)
