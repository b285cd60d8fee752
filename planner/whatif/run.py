"""A what-if: every policy over the same trace, in as many processes as there are cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.core.record import DecisionRecord, ProfileRef, hash_settings, to_line
from planner.core.state import Decision, PlannerState
from planner.core.types import Observation
from planner.whatif.outcome import Outcome
from planner.whatif.policies import Setting, make_policy
from planner.whatif.policies.ours import Ours
from planner.whatif.processes import in_processes
from planner.whatif.replay import replay
from planner.whatif.requests import RequestWriter
from planner.whatif.robustness import make_disturbance
from planner.whatif.simulator.simulation import Simulation
from planner.whatif.traces import GeneratedTrace, GeneratorSpec
from profiler.tables import fingerprint


@dataclass(frozen=True)
class Job:
    """One policy to replay, undisturbed or disturbed; decisions are kept for our own ones."""

    setting: Setting
    spec: str
    records: bool = False
    requests_out: Path | None = None
    disturb: str | None = None


@dataclass(frozen=True)
class Result:
    """What a job gave: the outcome, our planner's decisions, and its records as lines."""

    spec: str
    outcome: Outcome
    decisions: tuple[Decision, ...]
    records: tuple[str, ...]
    disturb: str | None = None


def run_job(job: Job) -> Result:
    """Replay one policy."""
    disturbance = make_disturbance(job.disturb)
    setting = disturbance.world(job.setting)
    policy = make_policy(job.spec, disturbance.believed(setting))
    decisions: list[Decision] = []
    lines: list[str] = []
    if isinstance(policy, Ours):
        policy.on_decision = _keeper(job, policy, decisions, lines)
    if job.requests_out is None:
        outcome = replay(setting, policy, job.spec, disturbance=disturbance)
    else:
        with RequestWriter(job.requests_out, job.setting.sla) as writer:
            outcome = replay(setting, policy, job.spec, on_finished=writer.add, disturbance=disturbance)
    return Result(job.spec, outcome, tuple(decisions), tuple(lines), job.disturb)


def _keeper(
    job: Job, policy: Ours, decisions: list[Decision], lines: list[str]
) -> Callable[[PlannerState, Observation, Decision], None]:
    setting = job.setting
    refs: tuple[ProfileRef, ...] = ()
    if job.records:
        refs = tuple(ProfileRef(str(p.path), fingerprint(p.path)) for p in setting.sources)

    def keep(state: PlannerState, observation: Observation, decision: Decision) -> None:
        # The page shows neither; what it does not show is not kept for a whole trace.
        decisions.append(replace(decision, candidates=()))
        if job.records:
            record = DecisionRecord(
                time=f"{decision.at_s:g} s",
                graph=setting.trace.name,
                capacity=policy.capacity.name,
                profiles=refs,
                settings=policy.settings,
                state=state,
                observation=observation,
                decision=decision,
                settings_hash=hash_settings(policy.settings),
            )
            lines.append(to_line(record))

    return keep


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    """Results as they come; see `in_processes`."""
    return in_processes(run_job, jobs, processes)


def warm_up(setting: Setting) -> None:
    """Compile the simulator's kernel, or load it from its cache, with a handful of requests."""
    trace = GeneratedTrace(GeneratorSpec(rps=5.0, duration_s=2.0, seed=0))
    simulation = Simulation(setting.engines, trace, setting.routing, lambda finished: None)  # noqa: ARG005
    for role in setting.pools:
        simulation.add_worker(role, 0.0)
        simulation.add_worker(role, 0.0)
    simulation.run_to(1000.0)
    simulation.drain_worker(next(iter(setting.pools)))
    simulation.run_to(60_000.0)
