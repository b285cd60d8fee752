"""The Roles in manifests/ give what the table of rights says that the planner uses: no less, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from planner.doctor.rights import rights_for
from planner.service.config import ServiceConfig

OVERLAYS = Path(__file__).parents[3] / "manifests" / "overlays"
NAMES = sorted(one.parent.name for one in OVERLAYS.glob("*/role.yaml"))

#: Kinds of the labelled objects of an overlay.
KINDS = {"lws": ["Deployment", "LeaderWorkerSet"]}

Verb = tuple[str, str, str, str]


@pytest.mark.parametrize("name", NAMES)
def test_the_role_of_an_overlay_is_what_the_planner_uses(name: str) -> None:
    config = ServiceConfig.model_validate(yaml.safe_load((OVERLAYS / name / "planner.yaml").read_text()))
    table: set[Verb] = {
        (right.group, right.resource, right.named if verb != "create" else "", verb)
        for right in rights_for(
            config.connector.kubernetes, config.graph, config.service.checkpoint_config_map, kinds=KINDS.get(name, ())
        )
        for verb in right.verbs
    }
    role: set[Verb] = {
        (group, resource, named, verb)
        for rule in yaml.safe_load((OVERLAYS / name / "role.yaml").read_text())["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for named in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }
    assert sorted(table - role) == []
    assert sorted(role - table) == []
