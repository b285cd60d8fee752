"""One planner pod as its own API shows it, without asking the API server."""

from __future__ import annotations

import functools
import json
import re
import time
import urllib.error
from typing import Any

from tests.kubernetes.fixtures import Kubelet
from tests.servers import get, wait_until

#: Where a planner says that it listens.
_LISTENS = re.compile(r"planning graph \S+ every .*; (http://[\d.:]+)")

#: Until ticks that must come count as not coming, for each s that they should take, and in any case.
_PATIENCE, _PATIENCE_S = 10.0, 60.0


class Planner:
    """A pod whose planner runs on this machine.

    Attributes:
        pod: its name.
    """

    def __init__(self, pod: str, kubelet: Kubelet, namespace: str) -> None:
        self.pod, self._kubelet, self._namespace = pod, kubelet, namespace

    def log(self) -> str:
        """All that it has said."""
        return self._kubelet.log(self._namespace, self.pod, "planner")

    @functools.cached_property
    def url(self) -> str:
        """Address of its API.

        Raises:
            OSError: it does not listen yet.
        """
        found = _LISTENS.findall(self.log())
        if not found:
            raise ConnectionError(f"{self.pod} does not listen yet")
        return str(found[-1])

    @functools.cached_property
    def identity(self) -> str:
        """What it calls itself in the Lease."""
        return str(self.state()["identity"])

    def state(self) -> Any:
        """What it is, sees and does now."""
        return json.loads(get(f"{self.url}/api/state"))

    def alive(self) -> bool:
        """Whether its clockwork ticks, as the liveness probe asks."""
        return bool(get(f"{self.url}/healthz"))

    def runs(self) -> bool:
        """Whether its process is there, asleep or not."""
        try:
            get(f"{self.url}/healthz")
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def has_ticked(self) -> bool:
        """Whether it has decided."""
        return self.state()["last"] is not None

    def holds(self) -> bool:
        """Whether it held the Lease at its last tick."""
        lease = self.state()["lease"]
        return lease is not None and bool(lease["held"])

    def decisions(self, since_s: float = 0.0) -> list[Any]:
        """Since a unix time, oldest first."""
        speed_up = float(self.state()["clock"]["speed_up"])
        made = json.loads(get(f"{self.url}/api/decisions?limit=5000", 10.0))["decisions"]
        return [one for one in made if one["at_s"] >= since_s * speed_up]

    def newest(self) -> Any:
        """The last decision."""
        return self.decisions()[-1]

    def record(self, decision: Any) -> Any:
        """The whole record of one of its decisions."""
        return json.loads(get(f"{self.url}/api/decisions/{decision['id']}"))

    def wait_for_ticks(self, number: int, since_s: float | None = None) -> list[Any]:
        """The decisions since a unix time, now without it, as soon as there are so many."""
        began_s = time.time() if since_s is None else since_s
        enough = f"{self.pod} has ticked {number} times"
        wait_until(lambda: len(self.decisions(began_s)) >= number, enough, max(_PATIENCE * number, _PATIENCE_S))
        return self.decisions(began_s)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Desired and ready workers by pool, as it saw them last."""
        pools = self.state()["last"]["observation"]["pools"]
        return {name: (pool["desired"], pool["ready"]) for name, pool in pools.items()}

    def settled(self) -> bool:
        """Whether every worker that is asked for serves, and none drains."""
        pools = self.state()["last"]["observation"]["pools"]
        return all(pool["desired"] == pool["ready"] and not pool["terminating"] for pool in pools.values())

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        lines = [line for line in get(f"{self.url}/metrics").splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[-1]) for line in lines)
