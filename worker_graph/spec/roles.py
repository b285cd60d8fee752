"""Which worker prefills, which decodes, and which does both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.yamlfile import Document, Place
from worker_graph.spec.graph import Component, Kind, Role
from worker_graph.spec.node import suggestion
from worker_graph.spec.words import Word, words_of

#: The names of Dynamo's examples, which mean a role even where nothing else says so.
DEFAULT_NAMES = {"VllmPrefillWorker": Role.PREFILL, "VllmDecodeWorker": Role.DECODE}

_MODES = {"prefill": Role.PREFILL, "decode": Role.DECODE, "agg": Role.AGGREGATED, "aggregated": Role.AGGREGATED}


@dataclass(frozen=True)
class Said:
    """A role and where the file says it; no place where only the component's name does."""

    role: Role
    place: Place | None


def declared_role(document: Document, text: str, place: Place) -> Said:
    """The role of a `subComponentType`."""
    if text not in {"prefill", "decode"}:
        raise document.error(f"is {text!r}{suggestion(text, ('prefill', 'decode'))}", place, "prefill or decode")
    return Said(Role(text), place)


def role_in_words(component: Component) -> Said | None:
    """The role that a worker's arguments ask for.

    Raises:
        InputError: they ask for two, or for one that there is not.
    """
    said: Said | None = None
    words = words_of(component)
    for index, word in enumerate(words):
        role = _role_at(component, words, index)
        if role is None:
            continue
        if said is not None and said.role is not role:
            asked = f"asks for {role}, and an argument before it for {said.role}"
            raise component.document.error(asked, word.place, "one role for a worker")
        said = Said(role, word.place)
    return said


def _role_at(component: Component, words: Sequence[Word], index: int) -> Role | None:
    flag, has_value, value = words[index].text.replace("_", "-").partition("=")
    if flag == "--is-prefill-worker":
        return Role.PREFILL
    if flag == "--is-decode-worker":
        return Role.DECODE
    if flag != "--disaggregation-mode":
        return None
    place = words[index].place
    if not has_value:
        following = words[index + 1 : index + 2]
        value = following[0].text if following else ""
        place = following[0].place if following else place
    if value not in _MODES:
        problem = f"--disaggregation-mode is {value!r}{suggestion(value, _MODES)}"
        raise component.document.error(problem, place, "prefill, decode or agg")
    return _MODES[value]


def assign_roles(
    document: Document, components: Sequence[Component], declared: dict[str, Said]
) -> tuple[Component, ...]:
    """Give every worker its role.

    What the file declares counts, then a worker's arguments, then the default names. A worker without a role decodes
    where another prefills, and does both where none does; so does one that says decode where none prefills.

    Args:
        document: the file.
        components: as read.
        declared: roles from `subComponentType` or `type`, by component.

    Raises:
        InputError: no frontend, no worker, two of one role, roles that contradict each other, or prefill without
            decode.
    """
    section: Place = components[0].place[:2] if components else ("spec",)
    if not any(component.kind is Kind.FRONTEND for component in components):
        raise document.error("has no frontend", section, "a component of type frontend, the graph's gateway")
    workers = [component for component in components if component.kind is Kind.WORKER]
    if not workers:
        raise document.error("has no worker", section, "a component of type worker")
    said = {worker.name: _said(worker, declared.get(worker.name)) for worker in workers}
    prefills = any(each is not None and each.role is Role.PREFILL for each in said.values())
    by_role: dict[Role, Component] = {}
    for worker in workers:
        found = said[worker.name]
        role = found.role if found is not None else Role.AGGREGATED
        if role is not Role.PREFILL and (found is None or found.role is Role.DECODE):
            role = Role.DECODE if prefills else Role.AGGREGATED
        if role in by_role:
            problem = f"is a second {role} worker, after {by_role[role].name}"
            raise document.error(problem, worker.place, "one worker component for each role, with replicas for more")
        by_role[role] = replace(worker, role=role)
    if Role.PREFILL in by_role and Role.AGGREGATED in by_role:
        place = by_role[Role.AGGREGATED].place
        raise document.error("is aggregated beside a prefill worker", place, "prefill and decode, or aggregated alone")
    if Role.PREFILL in by_role and Role.DECODE not in by_role:
        place = by_role[Role.PREFILL].place
        raise document.error("prefills, and no worker decodes", place, "a decode worker beside it")
    roles = {component.name: component for component in by_role.values()}
    return tuple(roles.get(component.name, component) for component in components)


def _said(worker: Component, declared: Said | None) -> Said | None:
    asked = role_in_words(worker)
    if declared is not None and asked is not None and declared.role is not asked.role:
        problem = f"asks for {asked.role}, and the component says {declared.role}"
        raise worker.document.error(problem, asked.place or worker.place, "the same role in both")
    by_name = DEFAULT_NAMES.get(worker.name)
    return declared or asked or (Said(by_name, None) if by_name is not None else None)
