"""The clairvoyant bounds: perfect knowledge of every arrival, the cheapest workers in every window.

What each window attains by counts is known (`clairvoyant_windows`). The counts of all windows are chosen together: of
all further workers that could be added anywhere the ones that attain most for their GPU-time come first, until the
whole trace meets its target. That is the Lagrangian of the problem, exact on its convex hull. Workers are asked for
early enough to be ready when their window begins, and kept through gaps shorter than a start-up. The replay under this
schedule shows what couples the windows (queues that carry over), and the target is corrected until the replayed
attainment meets it.

`clairvoyant` bears the start-up time of every other policy: what lies between it and a policy is knowledge.
`clairvoyant:no-startup` has workers at once: what lies between the two is the price of starting.

It is a yardstick rather than a proof. A schedule with other windows, or with counts that follow from what the windows
before left behind, could be a little cheaper. Starting with the right workers at time 0 is a gift that no real policy
gets. Where the budget binds for longer than a window, the queue it leaves is not in the next window's choice: the
replay counts it, the schedule does not foresee it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.core.types import Observation, Plan, Pool
from planner.whatif.outcome import Outcome
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.clairvoyant_windows import WINDOW_S, Window, windows_of
from planner.whatif.policies.options import split_options, unknown

#: Attempts to bring the replayed attainment to the target, and how far above it is near enough.
CORRECTIONS = 5
NEAR = 0.0005

#: Targets that lie closer than this, as a share of all requests, are one.
FINEST = 1e-4


class Clairvoyant(Policy):
    """Follows a schedule that was made with knowledge of the trace."""

    interval_s = 5.0
    observes = False

    def __init__(
        self,
        schedule: NDArray[np.int64],
        pools: Sequence[Pool],
        startup_s: float,
        max_gpus: int,
    ) -> None:
        self._schedule = schedule
        self._names = tuple(pool.name for pool in pools)
        self._gpus = np.array([pool.gpus_per_worker for pool in pools])
        self._max_gpus = max_gpus
        self.startup_s = self._startup_s = startup_s

    def start(self) -> Plan:
        """The first windows' workers are there: a clairvoyant asked for them before the trace began."""
        return self._at(0.0)

    def decide(self, observation: Observation, now_s: float) -> Plan:  # noqa: ARG002 - it knows already
        """The most that is needed until a worker asked for at the next tick could be ready, within the budget."""
        return self._at(now_s)

    def _at(self, now_s: float) -> Plan:
        first = int(now_s // WINDOW_S)
        # A window that begins just when a worker of the next tick is ready can wait for that tick.
        last = int(np.ceil((now_s + self._startup_s + self.interval_s) / WINDOW_S)) - 1
        rows = self._schedule[min(first, len(self._schedule) - 1) : last + 1]
        held = rows[0]
        for row in rows[1:]:
            both = np.maximum(held, row)
            # Each window is within the budget, what two of them need together may not be: the earlier one goes first.
            if int(both @ self._gpus) > self._max_gpus:
                break
            held = both
        return {name: int(count) for name, count in zip(self._names, held, strict=True)}


def schedule_for(windows: Sequence[Window], target: float) -> NDArray[np.int64]:
    """Workers by window and role, shape (windows, roles), that attain `target` of all requests with least GPU-time."""
    steps = [len(window.gpus) - 1 for window in windows]
    of = np.repeat(np.arange(len(windows)), steps)
    gpus = np.concatenate([np.diff(window.gpus) for window in windows])
    attained = np.concatenate([np.diff(window.attained) for window in windows])
    # Within a window every step costs more than the one before it, so a stable order takes them one after another.
    order = np.argsort(gpus / attained, kind="stable")
    reached = sum(int(window.attained[0]) for window in windows) + np.concatenate([[0], np.cumsum(attained[order])])
    needed = int(np.searchsorted(reached, target * sum(window.requests for window in windows)))
    taken = np.bincount(of[order[:needed]], minlength=len(windows))
    return np.stack([window.counts[k] for window, k in zip(windows, taken, strict=True)]).astype(np.int64)


#: The windows that were measured last, with their setting: an arena makes the bounds of a trace one after another.
_measured: list[tuple[Setting, list[Window]]] = []


def _windows(setting: Setting) -> list[Window]:
    """`windows_of`, measured once for all start-up times and targets of a trace."""
    if not _measured or not _alike(_measured[0][0], setting):
        _measured[:] = [(setting, windows_of(setting))]
    return _measured[0][1]


def _alike(one: Setting, other: Setting) -> bool:
    """Whether both have the same windows: what these depend on is the same."""
    return (
        one.trace is other.trace
        and one.engines is other.engines
        and (one.pools, one.routing, one.settings.max_gpus) == (other.pools, other.routing, other.settings.max_gpus)
        and (one.sla.ttft_ms, one.sla.itl_ms) == (other.sla.ttft_ms, other.sla.itl_ms)
    )


def make(setting: Setting, startup_s: float) -> Clairvoyant:
    """The clairvoyant policy of a trace, corrected until its replay meets the target with little to spare.

    Args:
        setting: of the replay.
        startup_s: from asking for a worker to its readiness, in its own replay.
    """
    from planner.whatif.replay import replay  # noqa: PLC0415 - the replay knows policies, this one alone knows the replay

    windows = _windows(setting)
    pools, max_gpus = tuple(setting.pools.values()), setting.settings.max_gpus
    goal = setting.sla.attainment
    low, high, target = max(0.0, goal - 0.15), 1.0, goal
    tried: dict[bytes, tuple[Clairvoyant, Outcome]] = {}
    # Several targets give one schedule, as its steps are whole workers: that narrows the bracket without a replay.
    while high - low > FINEST:
        schedule = schedule_for(windows, target)
        key = schedule.tobytes()
        known = key in tried
        if not known:
            if len(tried) == CORRECTIONS:
                break
            policy = Clairvoyant(schedule, pools, startup_s, max_gpus)
            tried[key] = policy, replay(setting, policy, "clairvoyant")
        reached = tried[key][1].attainment
        if goal <= reached < goal + NEAR:
            break
        if reached >= goal:
            high = target
        else:
            low = target
        # Aim by what this schedule lost between its windows and the replay, within the bracket.
        aimed = target + (goal + 0.5 * NEAR - reached)
        target = aimed if low < aimed < high and not known else 0.5 * (low + high)
    enough = [one for one in tried.values() if one[1].attainment >= goal]
    if enough:
        return min(enough, key=lambda one: one[1].gpu_hours)[0]
    return max(tried.values(), key=lambda one: one[1].attainment)[0]


class Bound(Policy):
    """The clairvoyant of a setting; its schedule is made when the replay begins."""

    interval_s = Clairvoyant.interval_s
    observes = False

    def __init__(self, setting: Setting, startup_s: float) -> None:
        self._setting = setting
        self._made: Clairvoyant | None = None
        self.startup_s = self._startup_s = startup_s

    def start(self) -> Plan:
        """The workers of the first window."""
        return self._follow().start()

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """What the schedule says."""
        return self._follow().decide(observation, now_s)

    def _follow(self) -> Clairvoyant:
        if self._made is None:
            self._made = make(self._setting, self._startup_s)
        return self._made


def parse(options: str, setting: Setting) -> Bound:
    """`clairvoyant` or `clairvoyant:no-startup`.

    Raises:
        InputError: there are other options.
    """
    startup_s = setting.startup_s
    for key, value in split_options(options):
        if (key, value) != ("no-startup", None):
            raise unknown("clairvoyant", key, value, "no options, or no-startup")
        startup_s = 0.0
    return Bound(setting, startup_s)
