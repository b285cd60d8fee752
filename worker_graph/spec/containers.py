"""The main container of a component: image, command, variables and GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from profiler.yamlfile import Place
from worker_graph.spec.node import Node, shown
from worker_graph.spec.words import expand

#: What device plugins call a GPU.
GPU_RESOURCES = ("gpu", "nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/xe", "gpu.intel.com/i915")


@dataclass
class Variables:
    """Variables of a container, added in Kubernetes' order: a later one replaces an earlier one of the same name."""

    values: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)

    def add(self, listed: Node | None) -> None:
        """Add a list of `{name, value}` or `{name, valueFrom}`."""
        for entry in listed.entries() if listed is not None else ():
            name_node = entry.get("name")
            if name_node is None:
                raise entry.error("has no name", "name and value of a variable")
            name = name_node.text()
            value = entry.mapping().get("value")
            self.values.pop(name, None)
            self.elsewhere = [other for other in self.elsewhere if other != name]
            if entry.get("valueFrom") is not None:
                if value:
                    raise entry.error("has both value and valueFrom", "one of them")
                self.elsewhere.append(name)
                continue
            if value is not None and not isinstance(value, str):
                node = Node(entry.document, (*entry.place, "value"), value)
                raise node.error(f"is {shown(value)}", "text; put it in quotes")
            self.values[name] = expand(value or "", self.values)


def secrets(listed: Node | None) -> list[str]:
    """Names of the Secrets of an `envFrom`, in order."""
    found = []
    for entry in listed.entries() if listed is not None else ():
        secret = entry.get("secretRef")
        name = secret.get("name") if secret is not None else None
        if name is not None:
            found.append(name.text())
    return found


def gpus(resources: Sequence[Node | None]) -> int:
    """GPUs of one pod: the first of limits, then requests, that names any; 0 when none does."""
    for part in ("limits", "requests"):
        for node in resources:
            amounts = node.get(part) if node is not None else None
            if amounts is None:
                continue
            named = [amount for name, amount in amounts.items() if name in GPU_RESOURCES and amount.value is not None]
            if named:
                return sum(amount.quantity() for amount in named)
    return 0


@dataclass(frozen=True)
class Container:
    """What is read of a main container; all empty where the file has none."""

    place: Place
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str | None = None


def read_container(node: Node | None, place: Place, env: Mapping[str, str]) -> Container:
    """Read a main container, with `$(NAME)` in its words replaced from `env`."""
    if node is None:
        return Container(place)
    image, command, args, folder = (node.get(key) for key in ("image", "command", "args", "workingDir"))
    return Container(
        place=node.place,
        image=image.text() if image is not None else None,
        command=tuple(expand(word, env) for word in command.words()) if command is not None else (),
        args=tuple(expand(word, env) for word in args.words()) if args is not None else (),
        working_dir=folder.text() if folder is not None else None,
    )
