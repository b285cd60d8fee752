"""Graphs of several nodes, and ways to look into what was rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.worker_graph.spec.graphs import alpha, read, worker
from worker_graph.kubernetes.options import RenderOptions, Target
from worker_graph.kubernetes.render import render
from worker_graph.spec import GraphSpec, load_graph

Object = dict[str, Any]
MANIFESTS = Path(__file__).parents[4] / "manifests"
GRAPHS = ("agg.yaml", "disagg.yaml", "disagg_planner.yaml", "disagg_router.yaml")


def manifest(name: str) -> GraphSpec:
    return load_graph(MANIFESTS / name)


def graph(folder: Path, args: list[str], *, nodes: int = 1, gpus: str = "8", **more: Any) -> GraphSpec:
    """One aggregated worker `W`."""
    one = worker(args, gpus=gpus)
    if nodes > 1:
        one["multinode"] = {"nodeCount": nodes}
    return read(folder, alpha({"W": {**one, **more}}))


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind whose name ends in this."""
    found = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(name)]
    assert len(found) == 1, [(one["kind"], one["metadata"]["name"]) for one in objects]
    return found[0]


def deployed(spec: GraphSpec, name: str, target: Target = Target.KUBERNETES, **options: Any) -> Object:
    """The pod template of a component's Deployment."""
    objects = render(spec, target, RenderOptions(**options))
    template: Object = find(objects, "Deployment", name)["spec"]["template"]
    return template


def main_of(template: Object) -> Object:
    """Its container `main`, which is the first."""
    container: Object = template["spec"]["containers"][0]
    assert container["name"] == "main"
    return container


def words(container: Object) -> list[str]:
    return [*container.get("command", []), *container.get("args", [])]


def env(container: Object) -> dict[str, Any]:
    names = [one["name"] for one in container["env"]]
    assert len(names) == len(set(names))
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def templates(objects: list[Object]) -> list[Object]:
    """Every pod template among the objects."""
    found = []
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] == "Deployment":
            found.append(spec["template"])
        elif one["kind"] == "LeaderWorkerSet":
            group = spec["leaderWorkerTemplate"]
            found += [group[key] for key in ("leaderTemplate", "workerTemplate") if key in group]
        elif one["kind"] == "PodCliqueSet":
            for clique in spec["template"]["cliques"]:
                metadata = {"labels": clique["labels"], "annotations": clique.get("annotations", {})}
                found.append({"metadata": metadata, "spec": clique["spec"]["podSpec"]})
    return found
