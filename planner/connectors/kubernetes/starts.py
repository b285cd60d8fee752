"""How long workers take from being asked for to serving, learnt from their pods."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from planner.connectors.kubernetes.pods import Phase, Pod, PodWorker

#: Starts remembered per pool.
KEPT = 100

#: What waiting for a node counts for at most, s. A cluster with an autoscaler makes a node in this time or gives it up
#: (cluster-autoscaler's `--max-node-provision-time`), so waiting up to here is what asking for a worker costs there,
#: and asking earlier helps. Who waited longer waited for a GPU that was not to be had: a shortage, which is reported
#: as one; asking earlier would not have helped, so such a wait is taken out of the start, all of it.
LONGEST_NODE_WAIT_S = 900.0


class Starts:
    """Measured starts by pool; they stay when the pods go.

    A start is the time from a worker's creation to its first readiness, by the API server's and the kubelet's clocks.
    Only those count that surely were the first: of workers whose pods say that they were never ready before, or that
    were made and got ready between two reads, with no container restarted. A worker that was ready when this planner
    saw the graph first may have become so for the tenth time.
    """

    def __init__(self) -> None:
        self._starts: dict[str, deque[float]] = {}
        # Pods by uid, of the last read: those of workers that start for the first time, and all.
        self._starting: set[str] = set()
        self._known: set[str] | None = None
        # Pods that were part of a worker that served; a group of which one is replaced does not start.
        self._served: set[str] = set()

    def see(self, workers: Sequence[PodWorker]) -> None:
        """Take in what a read found."""
        new: list[tuple[float, str, float]] = []
        starting: set[str] = set()
        present: set[str] = set()
        for worker in workers:
            uids = {pod.uid for pod in worker.pods}
            present |= uids
            restarted = any(pod.restarts for pod in worker.pods)
            if worker.phase is Phase.READY:
                if self._first(uids) and not restarted:
                    at = max(pod.ready_s or 0.0 for pod in worker.pods)
                    new.append((at, worker.pool, _seconds(worker.pods, at)))
                self._served |= uids
            elif worker.live and not restarted and any(pod.never_ready for pod in worker.pods):
                starting |= uids
        for _, pool, seconds in sorted(new):
            self._starts.setdefault(pool, deque(maxlen=KEPT)).append(seconds)
        self._starting, self._known = starting, present
        self._served &= present

    def _first(self, uids: set[str]) -> bool:
        """Whether a worker of these pods that is ready now was not before."""
        if uids & self._served:
            return False
        return bool(uids & self._starting) or (self._known is not None and not uids & self._known)

    @property
    def seconds(self) -> Mapping[str, tuple[float, ...]]:
        """By pool, newest last."""
        return {pool: tuple(starts) for pool, starts in self._starts.items()}


def _seconds(pods: Sequence[Pod], ready_s: float) -> float:
    created_s = min(pod.created_s for pod in pods)
    waited_s = max(pod.scheduled_s or pod.created_s for pod in pods) - created_s
    shortage_s = waited_s if waited_s > LONGEST_NODE_WAIT_S else 0.0
    return max(ready_s - created_s - shortage_s, 0.0)
