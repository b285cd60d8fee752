"""Who may scale the graph: one planner at a time, for as long as it keeps asking."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Lease:
    """A lease in the supervisor's memory: it lives as long as the graph that it guards."""

    clock: Callable[[], float] = field(default=time.monotonic)
    _holder: str = ""
    _until: float = 0.0

    def take(self, holder: str, duration_s: float) -> bool:
        """Take or renew it; False when another holds it."""
        if self.holder not in ("", holder):
            return False
        self._holder, self._until = holder, self.clock() + duration_s
        return True

    def release(self, holder: str) -> None:
        """Give it back; nothing happens when another holds it."""
        if self._holder == holder:
            self._holder, self._until = "", 0.0

    @property
    def holder(self) -> str:
        """Who holds it now; empty when nobody does."""
        return self._holder if self.clock() < self._until else ""

    @property
    def expires_in_s(self) -> float:
        """Seconds that are left; 0 when nobody holds it."""
        return max(0.0, self._until - self.clock()) if self.holder else 0.0
