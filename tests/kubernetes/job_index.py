"""Completion indexes for the pods of Jobs, on servers that know no indexed Jobs (before 1.21).

The controller of such a server makes pods without an index. Here each gets the lowest one that no other pod of its Job
holds or has completed, which is what the controller of later servers does; a failed pod gives its index back.
"""

from __future__ import annotations

from collections import defaultdict

from tests.kubernetes.api import Api, Object

ANNOTATION = "batch.kubernetes.io/job-completion-index"


class JobIndexes:
    """Who holds which index."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._held: dict[str, dict[str, int]] = defaultdict(dict)

    async def give(self, pod: Object) -> Object:
        """The pod with its index as an annotation, in the cluster too."""
        about = pod["metadata"]
        job = about["ownerReferences"][0]["uid"]
        held = self._held[job]
        if ANNOTATION not in about.get("annotations", {}):
            pods = await self._api.get(
                f"/api/v1/namespaces/{about['namespace']}/pods", labelSelector=f"controller-uid={job}"
            )
            for one in pods["items"]:
                uid, index = one["metadata"]["uid"], one["metadata"].get("annotations", {}).get(ANNOTATION)
                if one["status"].get("phase") == "Failed":
                    held.pop(uid, None)
                elif index is not None:
                    held[uid] = int(index)
            index = next(n for n in range(len(held) + 1) if n not in held.values())
            path = f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}"
            pod = await self._api.patch(path, {"metadata": {"annotations": {ANNOTATION: str(index)}}})
        held[about["uid"]] = int(pod["metadata"]["annotations"][ANNOTATION])
        return pod

    def forget(self, pod: Object) -> None:
        """It is gone; an index that it completed stays taken."""
        owners = pod["metadata"].get("ownerReferences", [])
        if owners and pod["status"].get("phase") != "Succeeded":
            self._held[owners[0]["uid"]].pop(pod["metadata"]["uid"], None)
