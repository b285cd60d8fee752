"""Carrying the checks out: which apply, each within its time, and none that ends in a traceback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from planner.connectors.base import ConnectorError
from planner.doctor.base import Check, Group, SkipError, Verdict, failed, skipped
from planner.doctor.scene import Scene
from profiler.errors import PlimsollError

#: Probes by group: a module, and names in it. Modules are imported when their group is looked at.
PROBES: dict[Group, tuple[str, ...]] = {
    Group.CLUSTER: ("cluster:reachable", "cluster:version", "cluster:clock", "cluster:lease", "nodes:nodes",
                    "nodes:operator", "storage:storage"),
    Group.CRDS: ("crds:kinds",),
    Group.RIGHTS: ("rights:needed", "rights:excess"),
    Group.GRAPH: ("graph:connector", "graph:pools", "pods:pods", "pods:images", "graph:gateway", "graph:disruption",
                  "graph:grace", "graph:secrets", "controllers:competing"),
    Group.METRICS: ("prometheus:server", "prometheus:clock", "prometheus:retention", "metrics:targets",
                    "metrics:series", "metrics:interval"),
    Group.PROFILE: ("profile:loaded", "profile:gpus", "profile:arguments", "profile:engines"),
    Group.HOST: ("host:gpus", "host:processes", "host:topology", "host:driver", "limits:shared_memory",
                 "limits:ulimits", "limits:memory", "limits:cpus", "limits:disk", "software:python", "software:ports",
                 "software:hub_token"),
}  # fmt: skip

NEEDS_CONFIG = frozenset({Group.GRAPH, Group.METRICS, Group.PROFILE})
NEEDS_CLUSTER = frozenset({Group.CLUSTER, Group.CRDS, Group.RIGHTS, Group.GRAPH})

#: Seconds that a probe may take. A person waits, and one that hangs must not hide what the others find.
PATIENCE_S = 20.0

Probe = Callable[[Scene], Iterable[Check]]


@dataclass(frozen=True)
class Report:
    """All that was found."""

    checks: tuple[Check, ...]

    def count(self, verdict: Verdict) -> int:
        """Checks that ended so."""
        return sum(one.verdict is verdict for one in self.checks)

    @property
    def exit_code(self) -> int:
        """0 nothing failed, 1 something did, 3 nothing could be looked at."""
        if not any(one.verdict is not Verdict.SKIP and not one.blind for one in self.checks):
            return 3
        return 1 if self.count(Verdict.FAIL) else 0


def examine(scene: Scene, groups: Sequence[Group], *, patience_s: float = PATIENCE_S) -> Report:
    """Look at these groups, in their order."""
    found: list[Check] = []
    for group in groups:
        for named in PROBES[group]:
            if (
                group in NEEDS_CLUSTER
                and scene.cluster is None
                and scene.on_kubernetes
                and named != "cluster:reachable"
            ):
                # One line says that there is no cluster; a dozen that nothing was seen in it would hide the rest.
                if group is not Group.CLUSTER and named == PROBES[group][0]:
                    found.append(replace(skipped(str(group), f"not looked at: {scene.no_cluster}"), group=group))
                continue
            found += [replace(one, group=group).clean() for one in look(named, scene, patience_s)]
    return Report(tuple(found))


def look(named: str, scene: Scene, patience_s: float) -> list[Check]:
    """What one probe says, within its time; an error of whatever kind is a check that failed, with the reason."""
    module, name = named.split(":")
    ended: list[list[Check]] = []
    said: list[Check] = []

    def work() -> None:
        try:
            probe: Probe = getattr(import_module(f"planner.doctor.{module}"), name)
            # Kept as they come: what a probe found before it failed or hung is still true.
            for check in probe(scene):
                said.append(check)  # noqa: PERF402
        except Exception as error:  # noqa: BLE001 - a check that fails is an answer, too
            said.append(_of_error(name.replace("_", " "), error))
        ended.append(said)

    # A daemon, so that one that hangs in a system call does not keep the process from ending.
    thread = threading.Thread(target=work, name=named, daemon=True)
    thread.start()
    thread.join(patience_s)
    if ended:
        return ended[0]
    fix = "look at what it asks by hand, or run again: something answers far too slowly"
    return [*said, failed(name.replace("_", " "), f"no answer within {patience_s:g} s", fix)]


def _of_error(name: str, error: Exception) -> Check:
    if isinstance(error, SkipError):
        return skipped(name, str(error), error.fix)
    if type(error).__name__ == "ForbiddenError":
        fix = "nothing, if the planner works; to see it, ask as somebody who may: --kubeconfig or --context"
        return skipped(name, str(error), fix)
    if isinstance(error, ConnectorError):
        return failed(name, str(error), "see the cluster checks above; the planner would hold its replicas meanwhile")
    if isinstance(error, PlimsollError):
        return failed(name, str(error), "mend what the message names")
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return failed(name, f"the check itself failed: {what}", "report it as a bug, with this line")
