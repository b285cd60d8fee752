"""What LeaderWorkerSet's controller does, as far as a planner sees it.

Groups of a leader and workers with its labels, names and variables; the groups with the highest indexes go first; a
group whose pod is lost or restarts is made anew as a whole unless its restart policy is None or Default; a changed
template reaches one group after the other. Pods are made here directly and not through StatefulSets.
"""

from __future__ import annotations

from collections import defaultdict

from tests.kubernetes.api import Object, unless
from tests.kubernetes.operators.base import Operator, condition, digest, is_ready, owner, with_env

PODS = "/api/v1/pods"
LABEL = "leaderworkerset.sigs.k8s.io"


class LeaderWorkerSets(Operator):
    """Of leaderworkerset.x-k8s.io/v1."""

    kind = "LeaderWorkerSet"
    collection = "/apis/leaderworkerset.x-k8s.io/v1/leaderworkersets"
    children = (PODS,)

    async def reconcile(self, it: Object) -> None:
        """Groups 0 to replicas - 1."""
        name, spec = it["metadata"]["name"], it["spec"]
        template, wanted = spec["leaderWorkerTemplate"], int(spec["replicas"])
        size, revision = int(template["size"]), digest(template)
        groups: dict[int, list[Object]] = defaultdict(list)
        for pod in await self.owned(it, PODS, **{f"{LABEL}/name": name}):
            groups[int(pod["metadata"]["labels"][f"{LABEL}/group-index"])].append(pod)
        ready = {index for index, pods in groups.items() if len(pods) == size and all(map(is_ready, pods))}
        outdated = [
            index for index, pods in sorted(groups.items(), reverse=True)
            if any(pod["metadata"]["labels"][f"{LABEL}/template-revision-hash"] != revision for pod in pods)
        ]  # fmt: skip
        # One group at a time, and only while all others serve.
        renewed = outdated[0] if outdated and len(ready | {outdated[0]}) >= wanted else None
        for index in range(max([wanted, *(one + 1 for one in groups)])):
            pods = groups[index]
            if index >= wanted or index == renewed or self._broken(template, pods, size):
                for pod in pods:
                    await self.delete(pod, PODS)
            else:
                await self._fill(it, index, pods, revision)
        await self._report(it, groups, ready, revision, size)

    def _broken(self, template: Object, pods: list[Object], size: int) -> bool:
        """Whether a group must be made anew: a member goes, is gone or has restarted."""
        if template["restartPolicy"] in {"None", "Default"} or not pods:
            return False
        leaving = any("deletionTimestamp" in pod["metadata"] for pod in pods)
        restarted = any(
            one["restartCount"] for pod in pods for one in pod.get("status", {}).get("containerStatuses", [])
        )
        incomplete = len(pods) < size and any(pod["status"].get("phase") != "Pending" for pod in pods)
        return leaving or restarted or incomplete

    async def _fill(self, it: Object, index: int, pods: list[Object], revision: str) -> None:
        about, spec = it["metadata"], it["spec"]["leaderWorkerTemplate"]
        size = int(spec["size"])
        there = {pod["metadata"]["name"] for pod in pods}
        leader = f"{about['name']}-{index}"
        for worker in range(size):
            name = leader if worker == 0 else f"{leader}-{worker}"
            if name in there:
                continue
            template = spec.get("leaderTemplate") if worker == 0 else None
            template = template or spec["workerTemplate"]
            meta = template.get("metadata", {})
            labels = {
                **meta.get("labels", {}),
                f"{LABEL}/name": about["name"],
                f"{LABEL}/group-index": str(index),
                f"{LABEL}/worker-index": str(worker),
                f"{LABEL}/group-key": digest([about["uid"], index]),
                f"{LABEL}/template-revision-hash": revision,
            }
            annotations = {**meta.get("annotations", {}), f"{LABEL}/size": str(size)}
            if worker:
                annotations[f"{LABEL}/leader-name"] = leader
            variables = {
                "LWS_LEADER_ADDRESS": f"{leader}.{about['name']}.{about['namespace']}",
                "LWS_GROUP_SIZE": str(size),
                "LWS_WORKER_INDEX": str(worker),
            }
            pod_spec = {**with_env(template["spec"], variables), "hostname": name, "subdomain": about["name"]}
            body = {
                "metadata": {
                    "name": name, "labels": labels, "annotations": annotations, "ownerReferences": owner(it)
                },
                "spec": pod_spec,
            }  # fmt: skip
            await unless(409, self.api.create(self.path(about["namespace"], collection=PODS), body))

    async def _report(
        self, it: Object, groups: dict[int, list[Object]], ready: set[int], revision: str, size: int
    ) -> None:
        there = [pods for pods in groups.values() if pods]
        updated = [
            pods for pods in there
            if all(pod["metadata"]["labels"][f"{LABEL}/template-revision-hash"] == revision for pod in pods)
        ]  # fmt: skip
        all_ready = len(ready) >= int(it["spec"]["replicas"])
        reason = "AllGroupsReady" if all_ready else "GroupsProgressing"
        status = {
            "replicas": len(there),
            "readyReplicas": len(ready),
            "updatedReplicas": len(updated),
            "observedGeneration": it["metadata"]["generation"],
            "hpaPodSelector": f"{LABEL}/name={it['metadata']['name']},{LABEL}/worker-index=0",
            "conditions": [condition(it, "Available", reason, f"groups of {size}", value=all_ready)],
        }
        await self.set_status(it, status)
