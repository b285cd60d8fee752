"""What the overlays hold that follows from other files: each graph's objects, and the Role of its planner.

python manifests/render.py            write them
python manifests/render.py --check    exit code 1 where a file is not what would be written
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import yaml

from planner.cli.graph import render
from planner.doctor.rights import rights_for
from planner.service.config import ServiceConfig
from planner.service.load import load_config

HERE = Path(__file__).resolve().parent
#: The graph of each overlay, which is named after what runs it.
GRAPHS = {"kubernetes": "disagg", "lws": "disagg_multinode", "grove": "disagg_multinode", "dynamo": "disagg"}

_ROLE = """\
# What the planner may do, in its own namespace alone. Written by manifests/render.py from the table that
# `planner doctor` checks; docs/reference/rbac.md says more.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: plimsoll-planner
  labels:
    app.kubernetes.io/name: plimsoll
    app.kubernetes.io/part-of: plimsoll
    app.kubernetes.io/component: planner
rules:
"""
#: The kinds of objects with the graph's label, where the configuration names none.
KINDS = {"kubernetes": ("Deployment",), "lws": ("Deployment", "LeaderWorkerSet")}


def role(config: ServiceConfig, kinds: tuple[str, ...]) -> str:
    """The Role; rights that are needed twice are given once, with both reasons."""
    state = config.service.checkpoint_config_map
    reasons: dict[tuple[str, str, tuple[str, ...], str], list[str]] = {}
    for right in rights_for(config.connector.kubernetes, config.graph, state, kinds=kinds):
        reasons.setdefault((right.group, right.resource, right.verbs, right.named), []).append(right.why)
    text = _ROLE
    for (group, resource, verbs, named), whys in reasons.items():
        why = "; ".join(dict.fromkeys(whys))
        text += f"  # {why[0].upper()}{why[1:]}.\n"
        text += f'  - apiGroups: ["{group}"]\n    resources: [{resource}]\n'
        text += f"    resourceNames: [{named}]\n" if named else ""
        text += f"    verbs: [{', '.join(verbs)}]\n"
    return text


def graph(overlay: str) -> str:
    """The graph's objects."""
    source = f"manifests/{GRAPHS[overlay]}.yaml"
    said = io.StringIO()
    with redirect_stdout(said):
        render(HERE.parent / source, target=overlay)
    return f"# Written by manifests/render.py: planner graph render {source} --target {overlay}\n{said.getvalue()}"


def written() -> Iterator[tuple[Path, str]]:
    """Every file with what belongs in it."""
    for overlay in GRAPHS:
        folder = HERE / "overlays" / overlay
        yield folder / "role.yaml", role(load_config(folder / "planner.yaml"), KINDS.get(overlay, ()))
        yield folder / "graph.yaml", graph(overlay)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="python manifests/render.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in written():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        list(yaml.safe_load_all(text))
        stale.append(path.relative_to(HERE.parent))
        if not check:
            path.write_text(text, encoding="utf-8")
    for file in stale:
        sys.stderr.write(f"{file}: {'is not up to date' if check else 'written'}\n")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
