"""Runs of the arena: what each depends on, and what came of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from planner.core.record import hash_settings
from planner.core.types import Observation, Plan
from planner.whatif.arena import code
from planner.whatif.arena.record import Figures, Load, RunRecord, load_of, timeline_of
from planner.whatif.arena.setting import Place, setting_of
from planner.whatif.arena.source import trace_of
from planner.whatif.arena.statistics import is_bound
from planner.whatif.policies import Setting, make_policy
from planner.whatif.policies.base import Policy
from planner.whatif.policies.registry import POLICIES
from planner.whatif.replay import replay
from planner.whatif.simulator.simulation import WorkerLoad
from planner.whatif.transition import LayoutChange
from profiler.tables import fingerprint


@dataclass(frozen=True)
class Terms:
    """What every policy finds in a case under one seed.

    Attributes:
        place, seed: which.
        start: workers at time 0, by pool name.
        requests, span_s, load: of the trace.
        digest: hash of everything but policy and code.
    """

    place: Place
    seed: int
    start: Plan
    requests: int
    span_s: float
    load: Load
    digest: str


@dataclass(frozen=True)
class Task:
    """One run: a policy under terms; `key` is the hash of all that its result depends on, the code included."""

    terms: Terms
    policy: str
    key: str


def task_of(terms: Terms, policy: str) -> Task:
    """The run of a policy under terms."""
    made_by = POLICIES[policy.partition(":")[0]].__module__
    return Task(terms, policy, _hash([terms.digest, policy, code.digest(made_by)]))


def terms_of(where: tuple[Place, int]) -> Terms:
    """Read a case's trace and size its start.

    Raises:
        InputError: profiles, trace or start are wrong.
    """
    place, seed = where
    setting = setting_of(place, seed)
    arrival_s = trace_of(place.source, seed).whole.arrival_s
    described = {
        "trace": place.source.fingerprint,
        "scales": [place.source.rate_scale, place.source.time_scale],
        "seed": seed,
        "profiles": [fingerprint(profile.path) for profile in setting.sources],
        "settings": hash_settings(setting.settings),
        "startup_s": setting.startup_s,
        "start": dict(setting.start),
        "routing": setting.routing,
    }
    return Terms(
        place, seed, dict(setting.start), len(arrival_s), float(arrival_s[-1]), load_of(arrival_s), _hash(described)
    )


def batches(tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
    """Tasks to run one after another in one process, in the order of their first ones.

    The bounds of an entry's trace go together, whatever their start-up time: they share their windows.
    """
    together: dict[Hashable, list[Task]] = {}
    for place, task in enumerate(tasks):
        spec = task.terms.place.case.spec
        key = (spec.name, task.terms.seed) if is_bound(task.policy) else place
        together.setdefault(key, []).append(task)
    return [tuple(batch) for batch in together.values()]


def run_batch(tasks: Sequence[Task]) -> list[RunRecord]:
    """`run_task` of each."""
    return [run_task(task) for task in tasks]


def run_task(task: Task) -> RunRecord:
    """Replay; what fails is recorded with its error, so that one policy's fault costs no other's result."""
    terms = task.terms
    name, seed, start = terms.place.case.name, terms.seed, dict(terms.start)
    try:
        figures = _run(setting_of(terms.place, seed, terms.start), task.policy)
    except Exception as error:  # noqa: BLE001 - whatever a policy raises is what came of its run
        said = f"{type(error).__name__}: {error}"
        return RunRecord(key=task.key, case=name, policy=task.policy, seed=seed, start=start, error=said)
    return RunRecord(key=task.key, case=name, policy=task.policy, seed=seed, start=start, figures=figures)


def _run(setting: Setting, spec: str) -> Figures:
    began = time.process_time()
    policy = _Timed(make_policy(spec, setting))
    made = time.process_time()
    outcome = replay(setting, policy, spec)
    whole_s = time.process_time() - made - policy.began_s
    return Figures(
        requests=outcome.requests,
        completed=outcome.completed,
        attainment=outcome.attainment,
        ttft_attainment=outcome.ttft_attainment,
        itl_attainment=outcome.itl_attainment,
        ttft_p99_ms=outcome.ttft_ms["p99"],
        itl_p99_ms=outcome.itl_ms["p99"],
        gpu_hours=outcome.gpu_hours,
        peak_gpus=outcome.peak_gpus,
        scale_ups=outcome.scale_ups,
        scale_downs=outcome.scale_downs,
        making_s=made - began + policy.began_s,
        decisions_s=policy.spent_s,
        replay_s=max(0.0, whole_s - policy.spent_s),
        requests_per_s=outcome.requests / whole_s if whole_s > 0 else 0.0,
        timeline=timeline_of(outcome),
    )


class _Timed(Policy):
    """A policy, and the processor time that its decisions take."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # What a policy declares beside its methods: its pace, what it wants to see.
        for name in Policy.__annotations__:
            setattr(self, name, getattr(policy, name))
        self.began_s = self.spent_s = 0.0

    def start(self) -> Plan | None:
        """The policy's, timed: a bound may make its schedule only now."""
        began = time.process_time()
        plan = self._policy.start()
        self.began_s += time.process_time() - began
        return plan

    def needs_in(self, change: LayoutChange) -> tuple[int, int] | None:
        """The policy's."""
        return self._policy.needs_in(change)

    def switch(self, change: LayoutChange) -> None:
        """The policy's."""
        self._policy.switch(change)

    def watch(self, workers: Mapping[str, Sequence[WorkerLoad]]) -> None:
        """The policy's, timed."""
        began = time.process_time()
        self._policy.watch(workers)
        self.spent_s += time.process_time() - began

    def hurries(self, observation: Observation) -> bool:
        """The policy's, timed."""
        began = time.process_time()
        found = self._policy.hurries(observation)
        self.spent_s += time.process_time() - began
        return found

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """The policy's, timed."""
        began = time.process_time()
        plan = self._policy.decide(observation, now_s)
        self.spent_s += time.process_time() - began
        return plan


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]
