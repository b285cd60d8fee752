"""What a test asks of the fake kubelet, pod by pod: annotations `plimsoll.test/NAME` (or labels, where there is none).

How a pod starts and ends (every duration in s):

- `start-delay-s`: from being scheduled to running; the kubelet's `--delay` without it.
- `ready-delay-s`: from running to ready, 0 without it; a simulated engine refuses connections until then.
- `image-pull-fails`: "true": ImagePullBackOff until the annotation goes.
- `crash`: "true", or how many times: containers exit with 1, `crash-after-s` (0) after their start;
  CrashLoopBackOff for `crash-backoff-s` (1) after each. May be set on a pod that runs.
- `drain-s`: from deletion to the end, 0 without it; at most the grace period, with exit code 137 where that cuts it.

What runs in it:

- `engine`: "simulated": the simulated engine at the pod's address and port 8000 (`engine-port`). `engine-role`
  (prefill, decode, aggregated), `engine-timing` (a file of `--write-timing`) or `engine-profile` (folders, separated by
  commas; both with {tp} for the container's --tensor-parallel-size), fast made-up timing without these; `engine-model`,
  `engine-speed-up`, `engine-shutdown-timeout-s` (vLLM's --shutdown-timeout: 0).
- `exec`: "true", or names of containers separated by commas: their commands run on this machine; see `commands`.
  `volume-NAME`: the folder that stands for the volume of this name. `api-server`: address at which these commands
  reach the API server, such as a proxy's; the cluster's own without it.
- `pre-stop`: "true": the first container's `lifecycle.preStop` is done before the end: its command on this machine, as
  under `exec`, or its request to the pod's address.
- `indexed`: "true": pods of one Job get the completion index that servers before 1.21 do not give.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.api import Object

PREFIX = "plimsoll.test/"


@dataclass(frozen=True)
class Wishes:
    """The annotations of one pod."""

    values: dict[str, str]

    @classmethod
    def of(cls, pod: Object) -> Wishes:
        """Of a pod; an annotation outweighs a label."""
        about = pod["metadata"]
        found = {**about.get("labels", {}), **about.get("annotations", {})}
        return cls({key.removeprefix(PREFIX): value for key, value in found.items() if key.startswith(PREFIX)})

    def get(self, name: str, default: str = "") -> str:
        """One of them."""
        return self.values.get(name, default)

    def seconds(self, name: str, default: float = 0.0) -> float:
        """One of them as a number."""
        return float(self.values.get(name, default))

    def true(self, name: str) -> bool:
        """Whether it is "true"."""
        return self.values.get(name) == "true"

    def crashes(self, restarts: int) -> bool:
        """Whether a container that was restarted so many times crashes (again)."""
        wish = self.values.get("crash", "")
        return wish == "true" or (wish.isdigit() and restarts < int(wish))


def arguments(pod: Object) -> list[str]:
    """Command and arguments of the pod's first container."""
    first = pod["spec"]["containers"][0]
    return [*first.get("command", []), *first.get("args", [])]


def option(words: list[str], *names: str, default: str) -> str:
    """The value of a long option in a command line (also inside `sh -c "…"`), under the first of its names."""
    text = " ".join(words)
    for name in names:
        found = re.search(rf"(?:^|\s){re.escape(name)}[=\s]+(\S+)", text)
        if found:
            return found[1]
    return default


@dataclass(frozen=True)
class Probe:
    """A readiness probe over HTTP, with Kubernetes' defaults.

    Attributes:
        port, path: that are asked.
        period_s: between two.
        timeout_s: of one.
        failures: in a row that make a pod that is ready not ready; a single slow answer does not.
    """

    port: int
    path: str
    period_s: float = 10.0
    timeout_s: float = 1.0
    failures: int = 3


def probe_of(pod: Object) -> Probe | None:
    """The first container's HTTP readiness probe."""
    first = pod["spec"]["containers"][0]
    probe: dict[str, Any] = first.get("readinessProbe", {})
    if "httpGet" not in probe:
        return None
    port = probe["httpGet"]["port"]
    if isinstance(port, str):
        port = next(one["containerPort"] for one in first["ports"] if one.get("name") == port)
    return Probe(
        port=int(port),
        path=probe["httpGet"].get("path", "/"),
        period_s=float(probe.get("periodSeconds", Probe.period_s)),
        timeout_s=float(probe.get("timeoutSeconds", Probe.timeout_s)),
        failures=int(probe.get("failureThreshold", Probe.failures)),
    )
