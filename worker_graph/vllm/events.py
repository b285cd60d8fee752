"""Whether and where a worker publishes its KV events: which blocks it stored and removed, for KV-aware routing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from worker_graph.spec import Component, Role
from worker_graph.vllm.arguments import Arguments, Flag

PORT_VARIABLE = "DYN_VLLM_KV_EVENT_PORT"
DEFAULT_PORT = 20080
TOPIC = "kv-events"

#: The registered ports: below need privileges, above are the system's for outgoing connections.
LOWEST_PORT, HIGHEST_PORT = 1024, 49151

_TCP = re.compile(r"(tcp://.+):([0-9]+)")


@dataclass(frozen=True)
class Events:
    """KV events of a worker.

    Attributes:
        endpoint: ZMQ endpoint of its rank 0 as vLLM is given it; None where it publishes nothing.
        words: what must be added to the arguments.
        replaces: whether these stand for a `--kv-events-config` that is given.
        notes: what was done otherwise than asked.
    """

    endpoint: str | None = None
    words: tuple[str, ...] = ()
    replaces: bool = False
    notes: tuple[str, ...] = ()


def kv_event_port(component: Component) -> int:
    """The port that a component's variables ask for, 20080 where they do not.

    Raises:
        InputError: it is no whole number within 1024 to 49151.
    """
    text = component.env.get(PORT_VARIABLE)
    if text is None:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdigit()) or not LOWEST_PORT <= int(text) <= HIGHEST_PORT:
        expected = f"a whole number from {LOWEST_PORT} to {HIGHEST_PORT}"
        raise component.error(f"{PORT_VARIABLE} is {text!r}", expected=expected)
    return int(text)


def events_of(arguments: Arguments, role: Role, port: int | None, replay_port: int | None = None) -> Events:
    """KV events of a worker.

    Prefill and aggregated workers with prefix caching publish; a decode worker's blocks come from elsewhere and are of
    no use to a router. vLLM binds only endpoints with a `*` and connects to all others, so events are open on every
    interface. It adds the data-parallel rank to the port: rank r of a worker with several publishes at port + r, and
    a worker that is one rank of several is given the port less its rank.

    Args:
        arguments: of the worker.
        role: of the worker.
        port: the worker's own; None for the one that its variables ask for.
        replay_port: the worker's own to replay events at, where it is asked to; None for the one that is asked for.

    Raises:
        InputError: the port or the given configuration is none.
    """
    wanted = kv_event_port(arguments.component)
    given, flag = arguments.json("--kv-events-config"), arguments.find("--kv-events-config")
    if given is not None and flag is not None:
        return _given(arguments, flag, given, port, replay_port)
    if any(flag.name.startswith("--kv-events-config.") for flag in arguments.flags):
        return Events(notes=("KV events are as --kv-events-config.… says; their endpoint is not known here",))
    switch = arguments.find("--enable-prefix-caching", "--no-enable-prefix-caching")
    if role is Role.DECODE or (switch is not None and switch.name.startswith("--no-")):
        return Events()
    rank = arguments.count("--data-parallel-rank", 0, least=0)
    endpoint = f"tcp://*:{(wanted if port is None else port) - rank}"
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": endpoint, "topic": TOPIC}
    return Events(endpoint, ("--kv-events-config", json.dumps(config, separators=(",", ":"))))


def _given(
    arguments: Arguments, flag: Flag, config: dict[str, object], port: int | None, replay_port: int | None
) -> Events:
    """A configuration of the user's, with the worker's own ports where it has some: two workers cannot share any."""
    if config.get("enable_kv_cache_events") is not True or config.get("publisher") == "null":
        return Events()
    endpoint = config.get("endpoint", "tcp://*:5557")
    if not isinstance(endpoint, str):
        raise arguments.error(flag, f"has the endpoint {endpoint!r}", "text such as 'tcp://*:20080'")
    if not ("*" in endpoint or "::" in endpoint or endpoint.startswith(("ipc://", "inproc://"))):
        problem = f"has the endpoint {endpoint!r}, which vLLM connects to instead of listening on"
        raise arguments.error(flag, problem, "a * for the host, as in 'tcp://*:20080'")
    rank = arguments.count("--data-parallel-rank", 0, least=0)
    asked = {"endpoint": endpoint, "replay_endpoint": config.get("replay_endpoint")}
    own = {"endpoint": _at(endpoint, port, rank), "replay_endpoint": _at(asked["replay_endpoint"], replay_port, rank)}
    changed = {name: value for name, value in own.items() if value != asked[name]}
    if not changed:
        return Events(endpoint)
    words = ("--kv-events-config", json.dumps({**config, **changed}, separators=(",", ":")))
    does = {"endpoint": ("go", "to"), "replay_endpoint": ("are replayed", "at")}
    notes = tuple(
        f"KV events {does[name][0]} {does[name][1]} {value}, not {does[name][1]} {asked[name]}"
        for name, value in changed.items()
    )
    return Events(str(own["endpoint"]), words, replaces=True, notes=notes)


def _at(endpoint: object, port: int | None, rank: int) -> object:
    """A TCP endpoint at another port, less the rank that vLLM adds; anything else as it is."""
    match = _TCP.fullmatch(endpoint) if isinstance(endpoint, str) else None
    return endpoint if port is None or match is None else f"{match[1]}:{port - rank}"
