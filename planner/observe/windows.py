"""Where each instance's last window ended, so that the next one begins there: nothing is counted twice or lost."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from planner.observe.series import Instance, Window


class Windows:
    """Windows of every instance, tick by tick.

    A window ends at the instance's newest scrape and begins where the one before ended. At first, and after an outage
    of more than two intervals, it begins at the scrape an interval (or two) before its end instead: what was counted
    since then says how busy it is now. Where nothing was scraped since the tick before, the same window is used again
    and is not `fresh`.
    """

    def __init__(self) -> None:
        self._last: dict[str, Window] = {}

    def advance(self, instance: Instance, interval_s: float) -> Window | None:
        """The instance's window of this tick; None before its second scrape.

        A process that says that it started within what was read needs only one.

        Args:
            instance: what was read of it.
            interval_s: the tick's interval by the wall clock.
        """
        points = instance.points_s
        last = self._last.get(instance.address)
        if not points or (last is None and len(points) < 2):
            return None
        end = points[-1]
        if last is not None and end <= last.end_s:
            window = Window(last.start_s, last.end_s, fresh=False)
        else:
            reach = interval_s if last is None else 2 * interval_s
            start = points[max(0, bisect_right(points, end - reach) - 1)]
            if last is not None and last.end_s > start:
                start = last.end_s
            if start >= end:
                return None
            window = Window(start, end, fresh=True)
        self._last[instance.address] = window
        return window

    def since(self, instance: Instance) -> Window | None:
        """From the end of the instance's last window to its newest scrape, which no tick has taken; None without."""
        last = self._last.get(instance.address)
        if last is None or not instance.newest_s > last.end_s:
            return None
        return Window(last.end_s, instance.newest_s, fresh=True)

    def forget(self, addresses: Iterable[str]) -> None:
        """Let go of instances that are gone."""
        for address in addresses:
            self._last.pop(address, None)
