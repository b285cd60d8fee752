"""The whole run: one layout after the other, whatever becomes of each, and the end of it told."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from profiler.engines.engine import EngineDiedError
from profiler.errors import DependencyError, InputError, PlimsollError
from profiler.job.journal import StorageError
from profiler.job.plan import Plan, set_aside, with_stub
from profiler.job.prepare import Prepared
from profiler.job.record import LayoutRecord, RunRecord, earlier_layouts, exit_code
from profiler.job.saving import code_version
from profiler.job.status import Reporter, Status
from profiler.job.tools import Tools
from profiler.job.unit import UnitRun
from profiler.models.stub import write_stub
from worker_graph.local import leftovers

#: Ends a run; the exit code is 128 and the signal's number, as shells have it.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def sweep(
    prepared: Prepared, tools: Tools | None = None, *, watch: Callable[[Status], None] | None = None
) -> tuple[int, RunRecord]:
    """Measure all units of a plan.

    Args:
        prepared: the plan.
        tools: to measure with; None for the real ones.
        watch: is given every new status, and must not block.

    Returns:
        The exit code and what became of the run.

    Raises:
        StorageError: the disk is full; what is there is kept.
        InputError: an earlier run's files are none, or a stub cannot be written.
    """
    plan = prepared.plan
    earlier = _make_folder(plan)
    if plan.settings.stub and prepared.config is not None:
        stub = plan.folder / "stub"
        write_stub(stub, prepared.config.raw, name=plan.model.name)
        plan = with_stub(plan, str(stub.resolve()))
    record = _record(plan, earlier)
    files = (plan.folder / "status.json", *([plan.settings.status_file] if plan.settings.status_file else []))
    with Reporter(files, plan.settings.gpu_price_per_hour, watch=watch) as reporter, _interruptible() as interrupted:
        try:
            leftovers.end(plan.folder, reporter.say)
            reporter.update(phase="initialising", layouts=len(plan.units), message="checked")
            await _layouts(plan, record, reporter, tools or Tools())
        except asyncio.CancelledError:
            if not interrupted:
                raise
            again = "the samples are kept; the same command with --resume goes on with them"
            _end(plan, record, reporter, f"interrupted by {interrupted[0].name}; {again}", failed=True)
            return 128 + interrupted[0].value, record
        except StorageError as error:
            # The files that would say so lie on the same disk: each is tried, and the error goes on whatever comes.
            with contextlib.suppress(StorageError):
                _end(plan, record, reporter, str(error), failed=True)
            raise
        code = exit_code(record.layouts)
        done = sum(layout.outcome == "done" for layout in record.layouts)
        tried = sum(layout.outcome != "skipped" for layout in record.layouts)
        _end(plan, record, reporter, f"{done} of {tried} layouts gave profiles", failed=code != 0)
    return code, record


async def _layouts(plan: Plan, record: RunRecord, reporter: Reporter, tools: Tools) -> None:
    by_name = {layout.name: layout for layout in record.layouts}
    for number, unit in enumerate(plan.units, start=1):
        layout = by_name[unit.name]
        before = reporter.status.gpu_minutes
        if layout.outcome == "done":
            reporter.say(f"{unit.name}: measured by the run that is gone on with")
            reporter.update(gpu_minutes=round(before + layout.gpu_minutes, 3))
            continue
        reporter.update(layout=unit.name, layout_number=number, samples=0, errors={}, left_s=None, message="")
        layout.outcome = "running"
        record.write(plan.folder)
        try:
            run = UnitRun(plan, unit, layout, reporter, tools, _later_s(plan, number, record))
            await run.run()
        except StorageError:
            layout.outcome, layout.reason = "failed", "the disk is full"
            raise
        except PlimsollError as error:
            layout.outcome, layout.reason = "failed", str(error)
            layout.error = "input" if isinstance(error, InputError) else "dependency"
            if isinstance(error, EngineDiedError):
                layout.reason, layout.log = error.reason, list(error.log)
            reporter.say(f"{unit.name} failed: {error}")
        except asyncio.CancelledError:
            layout.outcome, layout.reason = "failed", "interrupted"
            raise
        else:
            layout.outcome = "done"
            for path in layout.profiles:
                reporter.say(f"{unit.name}: wrote {plan.settings.to / path}")
        record.write(plan.folder)


def _later_s(plan: Plan, number: int, record: RunRecord) -> float:
    """Seconds that the units after this one may take: their budgets, and starts as long as those seen so far."""
    starts = [max(s) for layout in record.layouts for s in layout.startup_s.values() if s]
    startup_s = max(starts, default=0.0) if plan.serve is not None else 0.0
    done = {layout.name for layout in record.layouts if layout.outcome == "done"}
    rest = [unit for unit in plan.units[number:] if unit.name not in done]
    return sum(startup_s + 60.0 * plan.settings.max_gpu_minutes / unit.gpus for unit in rest)


def _make_folder(plan: Plan) -> dict[str, LayoutRecord]:
    """The run's folder, fresh or gone on with; layouts of the earlier run that gave their profiles."""
    earlier: dict[str, LayoutRecord] = {}
    if plan.settings.resume:
        # Profiles that were taken away since are made again, from the samples that are there.
        earlier = {
            name: one
            for name, one in earlier_layouts(plan.folder).items()
            if one.outcome == "done" and all((plan.settings.to / path).is_dir() for path in one.profiles)
        }
    elif plan.settings.overwrite:
        set_aside(plan.folder)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DependencyError(f"{plan.folder}: cannot be made: {error.strerror or error}") from None
    return earlier


def _record(plan: Plan, earlier: dict[str, LayoutRecord]) -> RunRecord:
    layouts = [earlier.get(unit.name) or LayoutRecord(name=unit.name, gpus=unit.gpus) for unit in plan.units]
    layouts += [LayoutRecord(name=name, outcome="skipped", reason=why) for name, why in plan.skipped]
    settings: dict[str, Any] = asdict(replace(plan.settings, layouts=(), pair=None))
    settings |= {"layouts": [unit.name for unit in plan.units], "pair": plan.settings.is_pair}
    return RunRecord(
        settings=settings,
        machine=asdict(plan.machine),
        model=plan.model.model_dump(mode="json"),
        code=code_version(),
        started=_now(),
        layouts=layouts,
    )


def _end(plan: Plan, record: RunRecord, reporter: Reporter, message: str, *, failed: bool) -> None:
    record.ended = _now()
    record.write(plan.folder)
    reporter.update(phase="failed" if failed else "done", message=message, left_s=0.0)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _interruptible() -> Iterator[list[signal.Signals]]:
    """Cancel this task at the first SIGINT or SIGTERM; yields the signals that came."""
    came: list[signal.Signals] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop(number: signal.Signals) -> None:
        came.append(number)
        # Engines are being ended after the first; a second must not break that off.
        if task is not None and len(came) == 1:
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield came
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
