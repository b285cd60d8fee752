"""Reading a DynamoGraphDeployment from a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiler.errors import InputError
from profiler.yamlfile import Document, Place, read_yaml
from worker_graph.spec.containers import Variables, gpus, read_container, secrets
from worker_graph.spec.graph import Component, GraphSpec, Kind
from worker_graph.spec.node import Node, shown, suggestion
from worker_graph.spec.roles import Said, assign_roles, declared_role

KIND = "DynamoGraphDeployment"
V1ALPHA1 = "nvidia.com/v1alpha1"
V1BETA1 = "nvidia.com/v1beta1"
MAIN = "main"

#: Types that are something to a graph. Any other is kept and reported where it cannot be run.
_KINDS = {
    "frontend": Kind.FRONTEND,
    "worker": Kind.WORKER,
    "prefill": Kind.WORKER,
    "decode": Kind.WORKER,
    "planner": Kind.PLANNER,
    "encode": Kind.OTHER,
    "epp": Kind.OTHER,
}
_COMPONENT_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def load_graph(path: Path) -> GraphSpec:
    """Read the one DynamoGraphDeployment of a file.

    Args:
        path: YAML; other documents beside the graph are kept as they are.

    Raises:
        InputError: names file, line and field: no or a second graph, an unknown version, a field of the wrong type, a
            graph without a frontend or a worker, or workers whose roles do not fit.
    """
    documents = read_yaml(path, field="FILE")
    at = [index for index, document in enumerate(documents) if _kind_of(document) == KIND]
    if not at:
        raise _no_graph(path, documents)
    if len(at) > 1:
        raise documents[at[1]].error(f"is a second {KIND}", expected="one graph in a file")
    document = documents[at[0]]
    root = Node(document, (), document.data)
    version = _version(root)
    name, namespace = _names(root)
    spec = root.get("spec")
    if spec is None:
        raise root.error("has no spec", "spec with the graph's components")
    framework = spec.get("backendFramework")
    if framework is not None and framework.value != "vllm":
        raise framework.error(f"is {shown(framework.value)}", "vllm, the engine that this program knows")
    parts, declared = _alpha(spec) if version == V1ALPHA1 else _beta(spec)
    others = tuple(other.data for index, other in enumerate(documents) if index != at[0])
    return GraphSpec(
        name=name,
        namespace=namespace,
        api_version=version,
        components=assign_roles(document, parts, declared),
        source=path,
        raw=document.data,
        others=others,
        position=at[0],
        document=document,
    )


def _kind_of(document: Document) -> Any:
    return document.data.get("kind") if isinstance(document.data, dict) else None


def _no_graph(path: Path, documents: list[Document]) -> InputError:
    for document in documents:
        kind = _kind_of(document)
        near = suggestion(kind, (KIND,)) if isinstance(kind, str) else ""
        if near:
            return document.error(f"is {kind!r}{near}", ("kind",), KIND)
    if len(documents) == 1 and isinstance(documents[0].data, dict):
        kind = documents[0].data.get("kind")
        problem = "has no kind" if kind is None else f"is {shown(kind)}"
        return documents[0].error(problem, () if kind is None else ("kind",), KIND)
    return InputError(f"holds no {KIND}", source=path, expected=f"one document of kind {KIND}")


def _version(root: Node) -> str:
    node = root.get("apiVersion")
    known = (V1ALPHA1, V1BETA1)
    if node is None:
        raise root.error("has no apiVersion", " or ".join(known))
    if node.value not in known:
        near = suggestion(node.value, known) if isinstance(node.value, str) else ""
        raise node.error(f"is {shown(node.value)}{near}", " or ".join(known))
    return str(node.value)


def _names(root: Node) -> tuple[str, str | None]:
    metadata = root.get("metadata")
    name = metadata.get("name") if metadata is not None else None
    if name is None:
        raise (metadata or root).error("has no name", "metadata.name, the graph's name")
    if not _OBJECT_NAME.fullmatch(name.text()):
        raise name.error(f"is {shown(name.value)}", "lower-case letters, digits and hyphens")
    namespace = metadata.get("namespace") if metadata is not None else None
    return name.text(), namespace.text() if namespace is not None else None


def _alpha(spec: Node) -> tuple[list[Component], dict[str, Said]]:
    """Components of `spec.services`, and the roles that they declare."""
    services = spec.get("services")
    if services is None:
        near = " (v1beta1 has components, v1alpha1 services)" if spec.get("components") is not None else ""
        raise spec.error(f"has no services{near}", "spec.services, a mapping from name to component")
    parts: list[Component] = []
    declared: dict[str, Said] = {}
    for name, node in services.items():
        _check_name(node, name, parts)
        kind, said = _kind(node, "componentType")
        sub = node.get("subComponentType")
        if sub is not None and kind is Kind.WORKER:
            again = declared_role(node.document, sub.text(), sub.place)
            if said is not None and said.role is not again.role:
                raise sub.error(f"is {sub.value!r}, and componentType says {said.role}", "the same role in both")
            said = again
        if said is not None:
            declared[name] = said
        pod = node.get("extraPodSpec")
        main = pod.get("mainContainer") if pod is not None else None
        secret = node.get("envFromSecret")
        parts.append(
            _component(
                node,
                name,
                kind,
                main,
                env=(spec.get("envs"), node.get("envs")),
                env_from_secret=[secret.text()] if secret is not None else [],
                resources=node.get("resources"),
                container=(*node.place, "extraPodSpec", "mainContainer"),
            )
        )
    return parts, declared


def _beta(spec: Node) -> tuple[list[Component], dict[str, Said]]:
    """Components of `spec.components`, and the roles that they declare."""
    components = spec.get("components")
    if components is None:
        near = " (v1alpha1 has services, v1beta1 components)" if spec.get("services") is not None else ""
        raise spec.error(f"has no components{near}", "spec.components, a list")
    parts: list[Component] = []
    declared: dict[str, Said] = {}
    for node in components.entries():
        named = node.get("name")
        if named is None:
            raise node.error("has no name", "name, the component's")
        name = named.text()
        _check_name(named, name, parts)
        kind, said = _kind(node, "type")
        if said is not None:
            declared[name] = said
        parts.append(
            _component(
                node,
                name,
                kind,
                _main_of(node),
                env=(spec.get("env"),),
                env_from_secret=[],
                resources=None,
                container=(*node.place, "podTemplate", "spec", "containers"),
            )
        )
    return parts, declared


def _main_of(node: Node) -> Node | None:
    template = node.get("podTemplate")
    pod = template.get("spec") if template is not None else None
    containers = pod.get("containers") if pod is not None else None
    if containers is None:
        return None
    for container in containers.entries():
        if container.mapping().get("name") == MAIN:
            return container
    raise containers.error(f"has no container named {MAIN}", f"the component's own container, named {MAIN}")


def _check_name(node: Node, name: str, before: list[Component]) -> None:
    if not _COMPONENT_NAME.fullmatch(name):
        raise node.error(f"is named {shown(name)}", "up to 63 letters, digits and hyphens")
    for other in before:
        if other.name.lower() == name.lower():
            raise node.error(f"is named like {other.name}", "names that differ in more than upper and lower case")


def _kind(node: Node, key: str) -> tuple[Kind, Said | None]:
    """What a component is, and the role when its type is one."""
    typed = node.get(key)
    if typed is None:
        return Kind.OTHER, None
    text = typed.text()
    kind = _KINDS.get(text)
    near = suggestion(text, _KINDS) if kind is None else ""
    if near:
        raise typed.error(f"is {text!r}{near}", ", ".join(_KINDS))
    said = declared_role(node.document, text, typed.place) if text in {"prefill", "decode"} else None
    return kind or Kind.OTHER, said


def _component(
    node: Node,
    name: str,
    kind: Kind,
    main: Node | None,
    *,
    env: tuple[Node | None, ...],
    env_from_secret: list[str],
    resources: Node | None,
    container: Place,
) -> Component:
    variables = Variables()
    for listed in env:
        variables.add(listed)
    own_resources = None
    if main is not None:
        variables.add(main.get("env"))
        env_from_secret = [*env_from_secret, *secrets(main.get("envFrom"))]
        own_resources = main.get("resources")
    values: Mapping[str, str] = variables.values
    read = read_container(main, container, values)
    replicas, multinode = node.get("replicas"), node.get("multinode")
    nodes = 1
    if multinode is not None:
        count = multinode.get("nodeCount")
        nodes = count.count(2) if count is not None else 2  # the API's own default
    return Component(
        name=name,
        kind=kind,
        role=None,
        replicas=replicas.count() if replicas is not None else 1,
        gpus_per_worker=gpus([resources, own_resources]) * nodes,
        nodes=nodes,
        image=read.image,
        command=read.command,
        args=read.args,
        env=values,
        env_elsewhere=tuple(variables.elsewhere),
        env_from_secret=tuple(env_from_secret),
        working_dir=read.working_dir,
        place=node.place,
        container=read.place,
        document=node.document,
    )
