"""Custom resource definitions for tests, and how they get into a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from tests.servers import wait_until

#: The two files of Dynamo exclude each other.
NAMES = ("leaderworkerset", "grove", "dynamo-v1alpha1", "dynamo-v1beta1")
_FOLDER = Path(__file__).parent


def definitions(name: str) -> list[dict[str, Any]]:
    """The definitions of a file, by its name without ending."""
    return list(yaml.safe_load_all((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def install(api: client.ApiClient, *names: str) -> None:
    """See that the definitions of these files are in the cluster and served.

    One of the same name with other versions is replaced, and every object of it goes with it.
    """
    known = client.ApiextensionsV1Api(api)
    for definition in [one for name in names for one in definitions(name)]:
        name = definition["metadata"]["name"]
        there = [one for one in known.list_custom_resource_definition().items if one.metadata.name == name]
        if there:
            if _versions(there[0].to_dict()) == _versions(definition):
                continue
            uninstall(api, name)
        known.create_custom_resource_definition(definition)
        wait_until(lambda name=name: _served(api, name), f"{name} is served")  # type: ignore[misc]


def uninstall(api: client.ApiClient, name: str) -> None:
    """Take a definition out of the cluster, by its name in it, and wait until it is gone."""
    known = client.ApiextensionsV1Api(api)
    known.delete_custom_resource_definition(name)
    wait_until(
        lambda: all(one.metadata.name != name for one in known.list_custom_resource_definition().items),
        f"{name} is gone",
    )


def _versions(definition: dict[str, Any]) -> list[str]:
    return sorted(version["name"] for version in definition["spec"]["versions"])


def _served(api: client.ApiClient, name: str) -> bool:
    definition = client.ApiextensionsV1Api(api).read_custom_resource_definition(name)
    conditions = (definition.status.conditions or []) if definition.status else []
    if not any(one.type == "Established" and one.status == "True" for one in conditions):
        return False
    for version in definition.spec.versions:
        try:
            client.CustomObjectsApi(api).list_cluster_custom_object(
                definition.spec.group, version.name, definition.spec.names.plural
            )
        except client.ApiException as error:
            if error.status != 404:
                raise
            return False
    return True
