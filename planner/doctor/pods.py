"""The pods of the workers: ready, starting, without a node, failing, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from planner.connectors.kubernetes.pods import Phase, Pod, pod_of
from planner.doctor.base import Check, failed, passed, plural, skipped, some, warned
from planner.doctor.scene import Scene

#: Reasons of a waiting container that are about its image.
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")

#: Seconds after which a start is long, whatever is loaded.
LONG_START_S = 1800.0


def pods(scene: Scene) -> Iterator[Check]:
    """Pods of each pool, by where they are in their life."""
    for one in scene.pools:
        yield from judge_pods(one.pool, [pod_of(pod) for pod in one.pods], one.target.desired)


def judge_pods(pool: str, found: Sequence[Pod], desired: int | None) -> Iterator[Check]:
    """Checks of one pool's pods."""
    name = f"pods {pool}"
    there = [pod for pod in found if pod.phase is not Phase.GONE]
    if not there:
        if desired:
            text = f"{plural(desired, 'worker')} asked for and no pod is there"
            fix = "kubectl describe the object: a quota, an admission webhook or a missing controller refuses its pods"
            yield failed(name, text, fix)
        else:
            yield skipped(name, "no worker is asked for")
        return
    counts = Counter(pod.phase for pod in there)
    words = ", ".join(f"{count} {phase.value}" for phase, count in sorted(counts.items()))
    for phase, fix in (
        (Phase.UNSCHEDULABLE, "free GPUs, add nodes, or mend what keeps it away: taints, selectors, quota"),
        (Phase.FAILING, "kubectl logs --previous and kubectl describe pod"),
    ):
        troubled = [pod for pod in there if pod.phase is phase]
        if troubled:
            pod = troubled[0]
            which = "" if len(troubled) == 1 else f" (and {len(troubled) - 1} more)"
            yield failed(name, f"{pod.name}{which} is {phase.value}: {pod.trouble}", fix)
    if not counts[Phase.UNSCHEDULABLE] and not counts[Phase.FAILING]:
        if not counts[Phase.READY]:
            yield warned(name, f"{words}; none serves yet", "wait, or look at the engine's log: kubectl logs")
        else:
            yield passed(name, words)
    restarted = [f"{pod.name} {pod.restarts}" for pod in there if pod.restarts and pod.phase is Phase.READY]
    if restarted:
        text = f"containers were restarted: {some(restarted)}"
        yield warned(f"restarts {pool}", text, "kubectl logs --previous: out of memory, a failed probe, a GPU error?")


def images(scene: Scene) -> Iterator[Check]:
    """Images that cannot be pulled."""
    found = []
    for one in scene.pools:
        for pod in one.pods:
            found += [(str(pod["metadata"]["name"]), *told) for told in image_troubles(pod)]
    if not found:
        yield passed("images", "no image that could not be pulled")
        return
    pod_name, image, reason = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    fix = "check name and tag, imagePullSecrets of the service account, and the node's way to the registry"
    yield failed("images", f"{pod_name}{more} cannot pull {image}: {reason}", fix)


def image_troubles(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Image and reason of each container that waits for one in vain."""
    status = pod.get("status") or {}
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _IMAGE:
            yield str(one.get("image", "")), str(waiting.get("message") or waiting["reason"])
