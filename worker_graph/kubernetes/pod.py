"""The pod of a worker: stock `vllm serve`, with the file's own fields carried over."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from worker_graph.kubernetes import drain
from worker_graph.kubernetes.labels import HTTP_PORT, HTTP_PORT_NAME, MAIN_CONTAINER, SERVES, labels_of
from worker_graph.kubernetes.multinode import BACKEND_FLAG, DP_LOCAL_FLAG, Group, Launch, Position
from worker_graph.kubernetes.options import RenderOptions, is_dynamo_image
from worker_graph.kubernetes.podfields import PodFields
from worker_graph.kubernetes.security import container_security, pod_security
from worker_graph.spec import Component, GraphSpec, Role
from worker_graph.vllm.arguments import Arguments, read_arguments
from worker_graph.vllm.command import GPUS, NIXL_HOST, NIXL_PORT, Placement, WorkerCommand, vllm_command
from worker_graph.vllm.events import DEFAULT_PORT as KV_EVENTS_PORT
from worker_graph.vllm.transfer import transfer_of

#: vLLM's own first port of NIXL's side channel.
DEFAULT_NIXL_PORT: Final = 5600
KV_CONNECTOR_ANNOTATION: Final = "smg.ai/kv-connector"
CACHE: Final = "/var/cache/models"
DEFAULT_SHARED_MEMORY: Final = "8Gi"

_REFERENCE = re.compile(r"\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)")
_JINJA = re.compile(r"\A--custom[-_]jinja[-_]template(?=\Z|=)")
_EVENTS_PORT = re.compile(r":([0-9]+)$")


@dataclass(frozen=True)
class Worker:
    """A worker component, read once for all of its objects.

    Attributes:
        spec, component: of the graph.
        fields: what the file says of its pods.
        arguments, command: of its engine.
        kv_events: whether the graph routes by KV cache, or its arguments ask for events.
        options: of the rendering.
    """

    spec: GraphSpec
    component: Component
    fields: PodFields
    arguments: Arguments
    command: WorkerCommand
    kv_events: bool
    options: RenderOptions

    @property
    def role(self) -> Role:
        """Its role; a worker has one."""
        if self.component.role is None:
            raise AssertionError("a worker has a role")
        return self.component.role

    @property
    def nixl(self) -> bool:
        """Whether it hands KV over by NIXL."""
        return transfer_of(self.arguments, self.role).nixl

    @property
    def drain_limit_s(self) -> int:
        """Seconds after which its pods stop to wait for what they hold."""
        return drain.drain_limit_s(self.arguments, self.role, self.options, nixl=self.nixl)

    @property
    def grace_s(self) -> int:
        """Its pods' terminationGracePeriodSeconds: the file's, else the drain's limit and vLLM's own stop."""
        said = self.fields.pod.get("terminationGracePeriodSeconds")
        return int(said) if said is not None else self.drain_limit_s + drain.STOP_S

    @property
    def labels(self) -> dict[str, str]:
        """Of its objects; the file's cannot replace ours."""
        ours = labels_of(self.spec.name, self.component.name, self.role.value, tp=self.command.tp, dp=self.command.dp)
        return {**self.fields.labels, **ours}


def read_worker(
    spec: GraphSpec, component: Component, fields: PodFields, options: RenderOptions, *, kv_routing: bool
) -> Worker:
    """A worker and its engine's command, as one of its pods runs it."""
    # Dynamo's name for it; the file is in the pod, not here.
    words = tuple(_JINJA.sub("--chat-template", word) for word in component.args)
    component = replace(component, args=words)
    arguments = read_arguments(component)
    asked = any(flag.name.partition(".")[0] == "--kv-events-config" for flag in arguments.flags)
    # On every interface: the kubelet's probes, the gateway and Prometheus come from elsewhere.
    command = vllm_command(component, Placement(host="0.0.0.0", port=HTTP_PORT, nixl_port=None))  # noqa: S104
    return Worker(spec, component, fields, arguments, command, kv_routing or asked, options)


def template(worker: Worker, launch: Launch, position: Position, group: Group | None) -> dict[str, Any]:
    """The pod template at one place of a group, or alone."""
    fields = worker.fields
    pod = copy.deepcopy(fields.pod)
    main = _main(worker, launch, group)
    volumes = [*pod.pop("volumes", []), *_volumes(worker)]
    pod.pop("terminationGracePeriodSeconds", None)
    inits = [*pod.pop("initContainers", [])]
    if group is not None and group.needs_dns_wait and position is not Position.ALONE:
        inits.append(_dns_wait(main))
    annotations = dict(fields.annotations)
    if worker.nixl and launch.serves:
        annotations[KV_CONNECTOR_ANNOTATION] = "NixlConnector"
    labels = {**worker.labels, **({SERVES: "true"} if launch.serves else {})}
    made: dict[str, Any] = {
        # A worker needs nothing of the API server.
        "automountServiceAccountToken": "serviceAccountName" in pod or "serviceAccount" in pod,
        **pod,
        "securityContext": pod_security(pod.get("securityContext")),
        "terminationGracePeriodSeconds": worker.grace_s,
        **({"initContainers": inits} if inits else {}),
        "containers": [main, *copy.deepcopy(fields.sidecars)],
        "volumes": volumes,
    }
    return {
        "metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})},
        "spec": made,
    }


def _main(worker: Worker, launch: Launch, group: Group | None) -> dict[str, Any]:
    """The container that serves."""
    own = copy.deepcopy(worker.fields.main)
    ports = own.pop("ports", [])
    folder = own.pop("workingDir", None)
    image = worker.component.image
    replaced = image is None or is_dynamo_image(image)
    made: dict[str, Any] = {
        "name": MAIN_CONTAINER,
        "image": worker.options.image if replaced else image,
        **_command(worker, launch),
        **({"workingDir": folder} if folder is not None and not replaced else {}),
        "env": _environment(worker, group),
        **({"envFrom": copy.deepcopy(worker.fields.env_from)} if worker.fields.env_from else {}),
        "ports": [*ports, *_ports(worker, launch, {port.get("name") for port in ports})],
        "volumeMounts": [*own.pop("volumeMounts", []), *_mounts(worker)],
        **(_probes(worker, own) if launch.serves else {}),
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        own.pop(probe, None)
    lifecycle = own.pop("lifecycle", {})
    host = "127.0.0.1" if launch.serves or group is None else _shell_variables(group.leader_host)
    limit = max(worker.grace_s - drain.STOP_S, 1)
    made["lifecycle"] = {"preStop": drain.hook(limit, host), **lifecycle}
    made["securityContext"] = container_security(own.pop("securityContext", None))
    return {**made, **own}


def _command(worker: Worker, launch: Launch) -> dict[str, list[str]]:
    """`vllm serve …` as words, or as a shell's line where something must be worked out by it."""
    if launch.instead:
        return {"command": ["sh", "-c"], "args": [f"exec {launch.instead}"]}
    argv = [*worker.command.argv]
    if not worker.kv_events:
        # Nobody listens: the gateway routes by load.
        argv = _without(argv, "--kv-events-config")
    ours = set(launch.flags) & {BACKEND_FLAG, DP_LOCAL_FLAG}
    for flag in ours:
        argv = _without(argv, flag)
    known = worker.component.env.keys()
    words = [_escaped(word, known) for word in argv]
    if not launch.needs_shell:
        return {"command": words[:2], "args": [*words[2:], *launch.flags]}
    # What the user wrote stays quoted; a rank is the shell's to work out.
    line = " ".join(["exec", shlex.join(words), *launch.flags])
    return {"command": ["sh", "-c"], "args": [f"{launch.before} && {line}" if launch.before else line]}


def _without(argv: list[str], flag: str) -> list[str]:
    made, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word == flag:
            skip = True
        elif not word.startswith(f"{flag}="):
            made.append(word)
    return made


def _escaped(text: str, known: Mapping[str, str] | Any) -> str:
    """Text whose variables are replaced already: what still looks like one of them was written with `$$`."""
    return _REFERENCE.sub(lambda match: f"${match[0]}" if match[1] in known else match[0], text)


def _shell_variables(text: str) -> str:
    """`$(NAME)` of the kubelet as `${NAME}`: it replaces nothing in the commands of a hook."""
    return _REFERENCE.sub(r"${\1}", text)


def _environment(worker: Worker, group: Group | None) -> list[dict[str, Any]]:
    env = {name: value for name, value in worker.command.env.items() if name not in {NIXL_HOST, GPUS}}
    own = worker.component.env
    given = {*own, *worker.component.env_elsewhere}
    made = copy.deepcopy(worker.fields.variables)

    def add(name: str, **value: Any) -> None:
        if name not in given:
            made.append({"name": name, **value})

    pod_ip = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    if worker.nixl:
        # Other workers connect to this address; it is the pod's, and known when the pod has one.
        add(NIXL_HOST, **pod_ip)
        add(NIXL_PORT, value=str(DEFAULT_NIXL_PORT))
    if group is not None:
        add("VLLM_HOST_IP", **pod_ip)
    # Home, for everything that is downloaded or compiled, on the volume: the user has no folder in the image.
    add("HOME", value=CACHE)
    add("USER", value="vllm")
    add("HF_HOME", value=f"{CACHE}/huggingface")
    add("VLLM_CACHE_ROOT", value=worker.fields.compilation_cache or f"{CACHE}/vllm")
    known = own.keys()
    made += [{"name": name, "value": _escaped(value, known)} for name, value in env.items()]
    if GPUS in own:
        made.append({"name": GPUS, "value": own[GPUS]})
    if NIXL_HOST in own:
        made.append({"name": NIXL_HOST, "value": own[NIXL_HOST]})
    return made


def _ports(worker: Worker, launch: Launch, taken: set[str | None]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if launch.serves:
        found.append({"name": HTTP_PORT_NAME, "containerPort": HTTP_PORT})
    if worker.nixl:
        text = worker.component.env.get(NIXL_PORT, str(DEFAULT_NIXL_PORT))
        if text.isdigit():
            found.append({"name": "nixl", "containerPort": int(text)})
    if worker.kv_events and worker.command.kv_events_endpoint:
        match = _EVENTS_PORT.search(worker.command.kv_events_endpoint)
        found.append({"name": "kv-events", "containerPort": int(match[1]) if match else KV_EVENTS_PORT})
    return [port for port in found if port["name"] not in taken]


def _probes(worker: Worker, own: Mapping[str, Any]) -> dict[str, Any]:
    """`/health`: long for the start, quick for readiness, and patient before a worker is killed."""
    health = {"httpGet": {"path": "/health", "port": HTTP_PORT_NAME}}
    tries = max(1, -(-int(worker.options.startup_timeout_s) // 10))
    made = {
        "startupProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": tries},
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        # A server with thousands of streams may be slow to answer; one whose engine is dead says so at once.
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }
    for name in made:
        if name in own:
            made[name] = _own_probe(worker, name, own[name])
    return made


def _own_probe(worker: Worker, name: str, probe: Any) -> Any:
    """The file's probe, unless it asks Dynamo's runtime: stock vLLM has no second server."""
    port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port") if isinstance(probe, dict) else None
    if port not in {None, HTTP_PORT, str(HTTP_PORT), HTTP_PORT_NAME}:
        raise worker.component.error(
            f"{name} asks port {port}, where stock vLLM does not listen",
            expected=f"/health on port {HTTP_PORT}, or no probe",
        )
    return copy.deepcopy(probe)


def _volumes(worker: Worker) -> list[dict[str, Any]]:
    size = worker.fields.shared_memory
    found: list[dict[str, Any]] = []
    if size != "":
        memory = {"medium": "Memory", "sizeLimit": size or DEFAULT_SHARED_MEMORY}
        found.append({"name": "shm", "emptyDir": memory})
    claim = worker.options.model_cache_claim
    cache = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    return [*found, {"name": "model-cache", **cache}]


def _mounts(worker: Worker) -> list[dict[str, Any]]:
    shm = [] if worker.fields.shared_memory == "" else [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 (the pod's own)
    return [*shm, {"name": "model-cache", "mountPath": CACHE}]


_DNS_WAIT: Final = """\
import os, socket, sys, time
host, began = os.environ["LWS_LEADER_ADDRESS"], time.monotonic()
while True:
    try:
        print(host, "is", socket.getaddrinfo(host, None)[0][4][0])
        break
    except socket.gaierror as error:
        if time.monotonic() - began > 600:
            sys.exit(f"{host} is unknown after 600 s: {error}")
        time.sleep(1)
"""


def _dns_wait(main: Mapping[str, Any]) -> dict[str, Any]:
    """Wait for the leader's name, in the leader too: it listens under that name, and DNS learns it from its pod."""
    return {
        "name": "wait-for-dns",
        "image": main["image"],
        **({"imagePullPolicy": main["imagePullPolicy"]} if "imagePullPolicy" in main else {}),
        "command": ["python3", "-c", _DNS_WAIT],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": main["securityContext"],
    }
