"""Speed of the simulator: `python -m tests.bench.simulator`. Compilation and the trace's generation excluded.

The kernel is timed in processor seconds, which a busy machine stretches less than it stretches the clock; whole replays
by the clock.
"""

from __future__ import annotations

import statistics
import time

from planner.whatif.policies import make_policy
from planner.whatif.policies.clairvoyant_windows import windows_of
from planner.whatif.replay import replay
from planner.whatif.run import warm_up
from planner.whatif.simulator.simulation import Finished, Simulation
from planner.whatif.traces import Trace, TraceChunk, collect
from tests.bench.common import conversation, setting_for

RUNS = 5


class Kept(Trace):
    """A trace in memory, so that the simulator is timed and not the generator."""

    def __init__(self, trace: Trace) -> None:
        self._name, self._chunk = trace.name, collect(trace)

    @property
    def name(self) -> str:
        return self._name

    def chunks(self):
        yield self._chunk

    def all(self) -> TraceChunk:
        return self._chunk


def _ignore(finished: Finished) -> None:
    """The kernel is timed, not what is done with its results."""
    del finished


def kernel(setting, layout: str) -> tuple[float, float]:
    """Requests a second and events a request of the simulation alone, without observation or decisions."""
    simulation = Simulation(setting.engines, setting.trace, "least_loaded", _ignore)
    for (role, _), count in zip(setting.pools.items(), layout.split(","), strict=True):
        for _ in range(int(count)):
            simulation.add_worker(role, 0.0)
    began = time.process_time()
    simulation.run_to(1e9)
    took = time.process_time() - began
    return simulation.total("arrived") / took, simulation.total("events") / simulation.total("arrived")


def main() -> None:
    trace = Kept(conversation(3600))
    setting = setting_for(trace)
    warm_up(setting)
    requests = len(trace.all())
    print(f"{requests:,} requests, one core, processor time, median of {RUNS} runs (min to max)")
    for layout in ("3,3", "4,6", "8,8"):
        runs = [kernel(setting, layout) for _ in range(RUNS)]
        speeds = [speed for speed, _ in runs]
        median, events = statistics.median(speeds), runs[0][1]
        spread = f"({min(speeds):,.0f} to {max(speeds):,.0f})"
        cost = f"{events:.1f} events a request, {1e9 / median / events:.0f} ns an event"
        print(f"kernel {layout.replace(',', 'p')}d: {median:>9,.0f} requests/s {spread}, {cost}")
    for spec in ("static:3p3d", "hpa", "planner"):
        walls = [replay(setting, make_policy(spec, setting), spec).wall_s for _ in range(3)]
        speed = requests / statistics.median(walls)
        print(f"replay {spec}: {speed:>9,.0f} requests/s by the clock, observation and decisions included")
    for spec in ("clairvoyant", "clairvoyant:no-startup"):
        outcome = replay(setting, make_policy(spec, setting), spec)
        print(f"{spec}: {outcome.wall_s:.1f} s by the clock, its windows and corrections included")
    windows = windows_of(setting)
    held = [sum(column.nbytes for column in (w.counts, w.gpus, w.attained)) for w in windows]
    print(f"  {len(windows)} windows, {statistics.mean(held):.0f} bytes each, {max(held)} at most")


if __name__ == "__main__":
    main()
