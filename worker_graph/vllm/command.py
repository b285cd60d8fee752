"""The `vllm serve` command of one worker at one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from worker_graph.spec import Component, Role
from worker_graph.vllm.arguments import Arguments, read_arguments
from worker_graph.vllm.events import events_of
from worker_graph.vllm.flags import DYNAMO_ROLES, is_dynamo_only
from worker_graph.vllm.layout import model_in, parallel_of, served_name
from worker_graph.vllm.transfer import Transfer, transfer_of

DEFAULT_BLOCK_SIZE = 16

NIXL_HOST = "VLLM_NIXL_SIDE_CHANNEL_HOST"
NIXL_PORT = "VLLM_NIXL_SIDE_CHANNEL_PORT"
GPUS = "CUDA_VISIBLE_DEVICES"

#: Read here and said to vLLM in its own words, or not at all.
_TRANSLATED = frozenset(
    {
        "--model", "--host", "--port", "--connector", "--custom-jinja-template", "--disaggregation-mode",
        "--is-prefill-worker", "--is-decode-worker", "--no-is-prefill-worker", "--no-is-decode-worker",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Where one worker runs.

    Attributes:
        host: that its server listens on.
        port: of its server.
        nixl_port: first port of its NIXL side channel, one for each data-parallel rank; None for vLLM's own (5600).
        kv_events_port: first port of its KV events, one for each data-parallel rank; None for the component's.
        kv_replay_port: the same, where its arguments ask for a port to replay events at.
        gpu_ids: GPUs that it sees; empty leaves that to the environment.
        executable: what `serve` is given to.
    """

    host: str
    port: int
    nixl_port: int | None = None
    kv_events_port: int | None = None
    kv_replay_port: int | None = None
    gpu_ids: tuple[int, ...] = ()
    executable: tuple[str, ...] = ("vllm",)


@dataclass(frozen=True)
class WorkerCommand:
    """How to start a worker, and what it will be.

    Attributes:
        argv: the command.
        env: variables to be set on top of the environment.
        model: as vLLM loads it.
        served_name: as requests name it.
        tp, dp: tensor-parallel and data-parallel size.
        kv_events_endpoint: ZMQ endpoint of its first rank, as vLLM binds it; None where it publishes no KV events.
        block_size: tokens of a KV block.
        notes: what of the component's arguments is done otherwise than they say, for people.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    model: str
    served_name: str
    tp: int
    dp: int
    kv_events_endpoint: str | None
    block_size: int
    notes: tuple[str, ...] = ()


def vllm_command(component: Component, placement: Placement) -> WorkerCommand:
    """The command of a worker.

    Prefix caching is on and a block has 16 tokens unless the arguments say otherwise. What is not known here is passed
    on; vLLM checks it.

    Args:
        component: of a graph that `load_graph` read.
        placement: where it runs.

    Raises:
        InputError: the arguments contradict each other, the graph or stock vLLM; names line and field.
        ValueError: the placement has another number of GPUs than one node of the worker takes.
    """
    arguments = read_arguments(component)
    role = component.role or Role.AGGREGATED
    _refuse(arguments)
    model, name = model_in(arguments), served_name(arguments)
    sizes = parallel_of(arguments)
    if placement.gpu_ids and len(placement.gpu_ids) * component.nodes != sizes.gpus:
        raise ValueError(f"{component.name} takes {sizes.gpus} GPUs, {len(placement.gpu_ids)} are placed")
    transfer = transfer_of(arguments, role)
    events = events_of(arguments, role, placement.kv_events_port, placement.kv_replay_port)
    block_size = arguments.count("--block-size", DEFAULT_BLOCK_SIZE)
    dropped = _TRANSLATED | ({"--kv-events-config"} if events.replaces else set())
    kept = [flag for flag in arguments.without(dropped) if not is_dynamo_only(flag.name)]
    argv = [*placement.executable, "serve", model, "--host", placement.host, "--port", str(placement.port)]
    argv += [word.text for flag in kept for word in flag.words]
    if arguments.find("--enable-prefix-caching", "--no-enable-prefix-caching") is None:
        argv.append("--enable-prefix-caching")
    if arguments.find("--block-size") is None:
        argv += ["--block-size", str(DEFAULT_BLOCK_SIZE)]
    argv += [*_template(arguments), *transfer.words, *events.words]
    return WorkerCommand(
        argv=tuple(argv),
        env=_environment(arguments, placement, transfer),
        model=model,
        served_name=name,
        tp=sizes.tp,
        dp=sizes.dp,
        kv_events_endpoint=events.endpoint,
        block_size=block_size,
        notes=(*_notes(arguments, role, placement, transfer), *events.notes),
    )


def _refuse(arguments: Arguments) -> None:
    """Arguments that make the worker something that `vllm serve` is not."""
    for flag in arguments.flags:
        if flag.name in DYNAMO_ROLES:
            raise arguments.error(flag, "has no counterpart in vllm serve", "a worker that serves a language model")
        if not flag.name:
            problem = f"has {flag.values[0]!r}, which belongs to no flag"
            raise arguments.component.document.error(problem, flag.words[0].place, "flags with their values")


def _template(arguments: Arguments) -> tuple[str, ...]:
    text = arguments.text("--custom-jinja-template")
    flag = arguments.find("--custom-jinja-template")
    if text is None or flag is None:
        return ()
    path = Path(os.path.expandvars(text)).expanduser()
    folder = arguments.component.working_dir
    if not path.is_absolute() and folder is not None and Path(folder).is_dir():
        path = Path(folder) / path
    if not path.is_file():
        raise arguments.error(flag, f"is {text!r}, which does not exist", "a file with a Jinja template")
    return ("--chat-template", str(path))


def _environment(arguments: Arguments, placement: Placement, transfer: Transfer) -> dict[str, str]:
    env = dict(arguments.component.env)
    if transfer.nixl:
        # Other workers connect to this address: a wildcard is none.
        own = "127.0.0.1" if placement.host in {"", "0.0.0.0", "::"} else placement.host  # noqa: S104
        env.setdefault(NIXL_HOST, own)
        if placement.nixl_port is not None:
            # vLLM adds the data-parallel rank to it, as it does to the port of KV events.
            env[NIXL_PORT] = str(placement.nixl_port - arguments.count("--data-parallel-rank", 0, least=0))
    if placement.gpu_ids:
        env[GPUS] = ",".join(str(gpu) for gpu in placement.gpu_ids)
    return env


def _notes(arguments: Arguments, role: Role, placement: Placement, transfer: Transfer) -> list[str]:
    env = arguments.component.env
    notes = [
        f"{flag.name} is Dynamo's and has no counterpart in vLLM; dropped"
        for flag in arguments.flags
        if is_dynamo_only(flag.name)
    ]
    for name, value in (("--host", placement.host), ("--port", str(placement.port))):
        if arguments.text(name) not in {None, value}:
            notes.append(f"{name} is {value} here, not {arguments.text(name)}")
    if placement.gpu_ids and GPUS in env:
        notes.append(f"{GPUS} is chosen here; {env[GPUS]} is not used")
    if transfer.nixl and placement.nixl_port is not None and NIXL_PORT in env:
        notes.append(f"{NIXL_PORT} is chosen here; {env[NIXL_PORT]} is not used")
    if role is not Role.AGGREGATED and transfer.config is None:
        notes.append(f"this {role} worker hands no KV over")
    if arguments.find("--config") is not None:
        notes.append("the file of --config is vLLM's to read; its sizes and names are not known here")
    return notes
