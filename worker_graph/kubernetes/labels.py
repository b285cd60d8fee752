"""Names and labels of the objects of a graph: what a rendered manifest says and what a connector looks for."""

from __future__ import annotations

import hashlib
import re
from typing import Final

DOMAIN: Final = "plimsoll.io"

GRAPH: Final = f"{DOMAIN}/graph"
"""Label: name of the graph that an object and its pods belong to."""

POOL: Final = f"{DOMAIN}/pool"
"""Label: the component's name as in the graph's YAML, such as VllmDecodeWorker."""

ROLE: Final = f"{DOMAIN}/role"
"""Label: prefill, decode, aggregated or gateway."""

LAYOUT: Final = f"{DOMAIN}/layout"
"""Label of workers: see `layout`."""

SERVES: Final = f"{DOMAIN}/serves"
"""Label of worker pods that answer requests, "true": not of those that only compute for their group's leader."""

RETIRED: Final = f"{DOMAIN}/retired-from"
"""Label of an object that a change of layout took out of use, in place of POOL: the pool that it was of."""

GATEWAY_ROLE: Final = "gateway"
PART_OF: Final = "plimsoll"

# Of the containers of workers and gateway.
HTTP_PORT_NAME: Final = "http"
HTTP_PORT: Final = 8000
METRICS_PORT_NAME: Final = "metrics"
METRICS_PORT: Final = 29000

MAIN_CONTAINER: Final = "main"

# A DNS label (RFC 1123). Pods of Deployments add a hash of up to 17 characters to it, which the API server makes room
# for; Services and LeaderWorkerSets do not.
MAX_NAME: Final = 63
_NOT_DNS = re.compile(r"[^a-z0-9-]+")


def layout(tp: int, dp: int) -> str:
    """Value of the label LAYOUT: `tp2-dp1` is tensor-parallel size 2, data-parallel size 1."""
    return f"tp{tp}-dp{dp}"


def object_name(graph: str, component: str, suffix: str = "", limit: int = MAX_NAME) -> str:
    """Name of a component's object: a DNS label of at most `limit` characters.

    `<graph>-<component>` in lower case, with `-<suffix>` behind it if there is one. A name that is too long is cut and
    ends in a hash of the whole, so that two long names do not become one.
    """
    words = [word for word in (graph, component, suffix) if word]
    name = _NOT_DNS.sub("-", "-".join(words).lower()).strip("-")
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-')}-{digest}"


def labels_of(graph: str, component: str, role: str, *, tp: int | None = None, dp: int | None = None) -> dict[str, str]:
    """Labels of an object and of its pods; with the layout where `tp` and `dp` are given (workers)."""
    found = {
        "app.kubernetes.io/name": object_name(graph, component),
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/component": role,
        "app.kubernetes.io/managed-by": PART_OF,
        GRAPH: graph,
        POOL: component,
        ROLE: role,
    }
    if tp is not None and dp is not None:
        found[LAYOUT] = layout(tp, dp)
    return found


def selector_of(graph: str, component: str, *, tp: int | None = None, dp: int | None = None) -> dict[str, str]:
    """What finds the pods of a pool, and of one layout of it where `tp` and `dp` are given."""
    found = {GRAPH: graph, POOL: component}
    if tp is not None and dp is not None:
        found[LAYOUT] = layout(tp, dp)
    return found
