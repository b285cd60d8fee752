"""Open-loop runs on a unit's engines once they are measured: what the simulator's replay is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from profiler.job.plan import Plan, Unit
from profiler.measure import Facts
from profiler.record.jobs import Done, Target, run_all
from profiler.record.schedule import Schedule


def folder_of(plan: Plan, unit: Unit) -> Path:
    """Where a unit's runs go."""
    return plan.folder / "runs" / unit.name


async def record_unit(
    plan: Plan,
    unit: Unit,
    facts: Mapping[str, Facts],
    schedules: Sequence[Schedule],
    tell: Callable[[str], None],
) -> list[Done]:
    """Record runs that were not recorded yet.

    Args:
        plan: of the run.
        unit: whose engines are up and idle.
        facts: by engine.
        schedules: the runs.
        tell: is told which one goes on.

    Raises:
        InputError: a schedule is wrong.
        DependencyError: an engine does not answer, or a file cannot be written.
    """
    to = folder_of(plan, unit)
    left = [one for place, one in enumerate(schedules, 1) if not (to / f"{one.name or f'r{place}'}.json").exists()]
    if not left:
        return []
    urls = {label: (one.url,) for label, one in facts.items()}
    first = next(iter(facts.values()))
    target = Target(
        aggregated=urls.get("aggregated", ()),
        prefill=urls.get("prefill", ()),
        decode=urls.get("decode", ()),
        model=plan.model.name,
        served_model=first.model,
        gpu=plan.machine.gpu,
        tp={worker.label: worker.layout.tp for worker in unit.workers},
        max_num_seqs=first.max_num_seqs,
        max_num_batched_tokens=first.max_num_batched_tokens,
    )
    to.mkdir(parents=True, exist_ok=True)
    return await run_all(
        target,
        left,
        to,
        command=f"profiler run --record, {unit.name}",
        before=lambda name, count, span_s: tell(f"recording {name}: {count} requests in {span_s:.0f} s"),
    )
