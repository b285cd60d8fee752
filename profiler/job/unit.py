"""Measuring one unit: its engines started, their facts checked, their tables sampled, their profiles written."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from profiler.engines.command import cudagraph_tokens
from profiler.engines.engine import Engine
from profiler.engines.machine import ClockWatch, wait_until_free
from profiler.errors import DependencyError, InputError
from profiler.hardware import find_gpu
from profiler.job import handoff, recording
from profiler.job.journal import Journal
from profiler.job.plan import PAIR, Plan, Unit, Worker
from profiler.job.prepare import journal_path
from profiler.job.record import LayoutRecord
from profiler.job.results import Results
from profiler.job.sampler import Sampler, while_alive
from profiler.job.status import Reporter
from profiler.job.tools import ClosingMeter, Tools, together
from profiler.measure import Facts
from profiler.models.memory import check_kv_capacity
from profiler.roofline import Roofline
from profiler.sampling import Domain, Sampling, Verdict
from profiler.schema import TableName
from worker_graph.local import leftovers

#: Seconds between two assessments of all tables for the status; each takes the engine's time.
_ASSESS_EVERY_S = 2.0
#: Seconds of prefill that the contexts of one decode point may take; KV beyond is extrapolated by what is read.
_FILL_S = 10.0
#: Share of the roofline that prefill reaches at least, and the length that it is taken at.
_PREFILL_SHARE, _PREFILL_TOKENS = 0.5, 4096
#: Seconds between two signs of life.
_TICK_S = 1.0


class UnitRun:
    """One unit of a run.

    Args:
        plan: of the run.
        unit: of it.
        record: filled in as it goes on.
        reporter: told how it goes.
        tools: to measure with.
        later_s: what the units after it will take, as far as is known.
    """

    def __init__(
        self, plan: Plan, unit: Unit, record: LayoutRecord, reporter: Reporter, tools: Tools, later_s: float = 0.0
    ) -> None:
        self._plan, self._unit, self._record = plan, unit, record
        self._reporter, self._tools = reporter, tools
        self._journal = Journal(journal_path(plan, unit))
        self._facts: dict[str, Facts] = {}
        self._checks: dict[str, str | None] = {}
        self._samplers: dict[str, Sampler] = {}
        self._clocks = ClockWatch(unit.devices)
        self._assessed_s = 0.0
        self._later_s = later_s
        self._gpu_minutes_before = reporter.status.gpu_minutes
        self._failed_starts_s = 0.0

    async def run(self) -> None:
        """Measure and save.

        Raises:
            EngineDiedError: an engine failed.
            InputError: what an engine says contradicts what was asked for, or a profile is there already.
            DependencyError: something outside failed.
            StorageError: the disk is full.
        """
        record = self._record
        record.gpus, record.samples = self._unit.gpus, journal_path(self._plan, self._unit).name
        made = self._tools.launch(self._plan, self._unit)
        engines = [engine for engine, _ in made]
        record.commands = {w.label: list(argv) for w, (_, argv) in zip(self._unit.workers, made, strict=True) if argv}
        try:
            if self._measured_already(engines):
                self._journal.open(self._journal.fingerprint or {})
            else:
                try:
                    await self._measure(engines)
                finally:
                    # Whatever comes, nothing of an engine outlives its measuring.
                    await asyncio.gather(*(engine.stop() for engine in engines))
                    leftovers.write(self._plan.folder, [])
                    await wait_until_free(self._unit.devices)
            self._save()
        finally:
            self._account()
            self._journal.close()
            for sampler in self._samplers.values():
                await sampler.meter.close()  # type: ignore[attr-defined]

    # -- engines ---------------------------------------------------------------------------------------------------

    async def _measure(self, engines: Sequence[Engine]) -> None:
        workers = self._unit.workers
        names = " and ".join(f"{worker.label} {worker.layout.name}" for worker in workers)
        self._tell(phase="starting", message=f"starting {names}" if self._plan.serve else f"reaching {names}")
        began = time.monotonic()
        startups: list[float | None] = []
        try:
            # One after the other on GPUs that they share: an engine that starts counts what memory is free.
            for batch in [[engine] for engine in engines] if self._unit.shares_gpus else [list(engines)]:
                for engine in batch:
                    await engine.spawn()
                    # Before anything else: a killed run must find what it left.
                    leftovers.write(self._plan.folder, [one.pid for one in engines if one.pid is not None])
                startups += await together([engine.start() for engine in batch])
        finally:
            if len(startups) < len(engines) and self._plan.serve is not None:
                self._failed_starts_s = time.monotonic() - began
        for worker, engine in zip(workers, engines, strict=True):
            self._facts[worker.label] = await self._read_facts(worker, engine)
        if self._unit.shares_gpus:
            # The version that was not known before; without the profile of it there is nowhere to keep the hand-off.
            plan, decode = self._plan, workers[1]
            version = self._facts[decode.label].version
            handoff.profile_of(plan.settings.to, plan.model, plan.machine.gpu, decode.layout, version)
        self._open_journal(startups)
        self._make_samplers(engines)
        self._tell(phase="sampling", message="")
        ticker = asyncio.create_task(self._tick())
        try:
            await self._sample(engines)
            if self._plan.settings.record:
                await while_alive(self._record_runs(), engines)
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)

    async def _sample(self, engines: Sequence[Engine]) -> None:
        with self._clocks:
            tables = [sampler for label, sampler in self._samplers.items() if label != PAIR]
            # Each engine has GPUs of its own, so both are measured at once; the hand-off then has them to itself.
            await while_alive(together([sampler.run() for sampler in tables]), engines)
            if PAIR in self._samplers:
                await while_alive(self._samplers[PAIR].run(), engines)

    async def _record_runs(self) -> None:
        settings = self._plan.settings
        done = await recording.record_unit(
            self._plan, self._unit, self._facts, settings.record, lambda text: self._tell(message=text)
        )
        self._record.runs += [str(one.path.relative_to(self._plan.folder)) for one in done]
        self._tell(message="")

    async def _tick(self) -> None:
        """Tell that it goes on while a sample takes long."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._tell()

    async def _read_facts(self, worker: Worker, engine: Engine) -> Facts:
        settings, limits, dp = self._plan.settings, self._plan.limits, worker.layout.dp
        launched = self._plan.serve
        facts = await self._tools.facts(
            engine.url,
            settings.served_model if launched is None else launched.name,
            max_num_seqs=limits.max_num_seqs * dp,
            max_num_batched_tokens=limits.max_num_batched_tokens * dp,
        )
        if facts.dp != dp:
            problem = f"{engine.url} has {facts.dp} data-parallel ranks"
            raise InputError(problem, expected=f"{dp}, as in {worker.layout.name}", field="--dp")
        if facts.kv_capacity_tokens is None or facts.max_model_len is None:
            missing = "the size of its KV cache" if facts.kv_capacity_tokens is None else "its longest sequence"
            raise DependencyError(f"{engine.url} does not say {missing} (metric vllm:cache_config_info, /v1/models)")
        self._checks[worker.label] = self._check_capacity(worker, facts.kv_capacity_tokens)
        # Of an engine that runs already, less than it can may be asked for.
        longest = min(facts.max_model_len, settings.max_model_len or facts.max_model_len)
        graphs = None
        if launched is not None and not self._plan.machine.is_cpu:
            graphs = cudagraph_tokens(limits, launched.more)
        block_size = facts.block_size or limits.block_size
        return replace(facts, block_size=block_size, max_model_len=longest, max_cudagraph_tokens=graphs)

    def _check_capacity(self, worker: Worker, reported: int) -> str | None:
        """How the capacity compares with memory arithmetic; None where that cannot tell, or the user chose it."""
        estimate = worker.layout.kv_tokens
        chosen = ("--kv-cache-memory-bytes", "--num-gpu-blocks-override", "--cpu-offload-gb")
        if (
            estimate is None
            or self._unit.shares_gpus
            or any(word.split("=")[0] in chosen for word in self._plan.settings.engine_args)
        ):
            return None
        return check_kv_capacity(reported, estimate)

    # -- samples ---------------------------------------------------------------------------------------------------

    def _open_journal(self, startups: Sequence[float | None]) -> None:
        versions = {label: facts.version for label, facts in self._facts.items()}
        self._journal.open(self._plan.fingerprint(self._unit) | {"versions": versions})
        for worker, startup_s in zip(self._unit.workers, startups, strict=True):
            facts = asdict(self._facts[worker.label])
            command = self._record.commands.get(worker.label)
            self._journal.started(worker.label, startup_s, facts, self._checks.get(worker.label), command)
            self._record.facts[worker.label] = facts

    def _measured_already(self, engines: Sequence[Engine]) -> bool:
        """Whether an earlier run took every sample and was ended before it wrote the profiles."""
        known = self._journal.facts
        if not self._journal.samples or any(worker.label not in known for worker in self._unit.workers):
            return False
        self._facts = {worker.label: Facts(**known[worker.label]) for worker in self._unit.workers}
        self._checks = dict(self._journal.checks)
        self._make_samplers(engines)
        if any(sampler.wants_more for sampler in self._samplers.values()):
            self._samplers, self._facts = {}, {}
            return False
        self._record.facts = {label: asdict(facts) for label, facts in self._facts.items()}
        return True

    def _make_samplers(self, engines: Sequence[Engine]) -> None:
        minutes = self._plan.settings.max_gpu_minutes
        # Another seed at each start: an engine that ran on still has the prompts of the last one in its cache.
        seed = secrets.randbelow(2**31)
        for worker, engine in zip(self._unit.workers, engines, strict=True):
            if not worker.tables:
                continue
            facts = self._facts[worker.label]
            self._samplers[worker.label] = self._sampler(
                worker.label, self._tools.engine_meter(facts, seed), worker.tables, worker, [engine],
                60.0 * minutes / worker.layout.gpus,
            )  # fmt: skip
            seed += 1
        if self._unit.is_pair:
            prefill, decode = (self._facts[worker.label] for worker in self._unit.workers)
            decodes = self._unit.workers[1]
            meter = self._tools.pair_meter(prefill, decode, decodes.layout.tp, seed)
            self._samplers[PAIR] = self._sampler(
                PAIR, meter, ("transfer",), decodes, engines,
                60.0 * minutes / self._unit.gpus,
            )  # fmt: skip

    def _sampler(
        self,
        label: str,
        meter: ClosingMeter,
        tables: tuple[TableName, ...],
        worker: Worker,
        engines: Sequence[Engine],
        budget_s: float,
    ) -> Sampler:
        facts, settings, roofline = self._facts[worker.label], self._plan.settings, self._roofline(worker)
        every = list(self._facts.values()) if label == PAIR else [facts]
        domain = Domain(
            tables=tables,
            max_model_len=min(one.max_model_len or 0 for one in every),
            kv_capacity_tokens=min(one.kv_capacity_tokens or 0 for one in every),
            max_num_seqs=facts.max_num_seqs or 0,
            max_num_batched_tokens=facts.max_num_batched_tokens or 0,
            block_size=facts.block_size or 0,
            prefix_caching=facts.prefix_caching,
            longest_isl=settings.longest_isl,
            max_cudagraph_tokens=facts.max_cudagraph_tokens,
            most_held_tokens=_filled_in(_FILL_S, roofline),
        )
        # Repeats as the tools say; error and budget as asked for.
        target = replace(self._tools.target, max_error=settings.max_error, seconds=budget_s)
        return Sampler(
            label=label,
            meter=meter,
            sampling=Sampling(domain, target, roofline),
            journal=self._journal,
            engines=engines,
            budget_s=budget_s,
            sample_timeout_s=settings.sample_timeout_s,
            on_change=self._sampled,
        )

    def _roofline(self, worker: Worker) -> Roofline | None:
        model, gpu = self._plan.model, find_gpu(self._plan.machine.gpu)
        if model.shape is None or gpu is None:
            return None
        return Roofline(model.shape, gpu, gpu.peak_for(model.dtype), worker.layout.tp, worker.layout.dp)

    def _sampled(self) -> None:
        now = time.monotonic()
        changes: dict[str, Any] = {}
        if now - self._assessed_s >= _ASSESS_EVERY_S:
            self._assessed_s = now
            changes = self._assess()
        self._tell(samples=self._journal.samples, **changes)

    def _assess(self) -> dict[str, Any]:
        """How the tables stand, into the record; returns what of it goes into the status."""
        errors: dict[str, float] = {}
        left: dict[str, float] = {}
        for label, sampler in self._samplers.items():
            history = self._journal.history(label)
            progress = sampler.sampling.progress(history.samples, history.failed)
            rows: dict[str, dict[str, Any]] = {}
            for table, one in progress.tables.items():
                # The sampling counts what samples took, the budget also what was lost and the pauses between them.
                cut = sampler.out_of_budget and one.verdict is Verdict.MEASURING
                verdict = Verdict.BUDGET if cut else one.verdict
                rows[table] = {"points": one.points, "samples": one.samples, "verdict": verdict.value}
                if one.error is not None:
                    rows[table] |= {"mean": one.error.mean, "worst": one.error.worst}
                    errors[table] = one.error.mean
            self._record.tables[label] = rows
            rest = max(0.0, sampler.budget_s - history.spent_s)
            left[label] = rest if progress.seconds_left is None else min(rest, progress.seconds_left)
        # Engines are measured side by side, the hand-off after them.
        side = max((seconds for label, seconds in left.items() if label != PAIR), default=0.0)
        return {"errors": errors, "left_s": side + left.get(PAIR, 0.0) + self._later_s}

    # -- accounts and profiles -------------------------------------------------------------------------------------

    def _tell(self, **changes: Any) -> None:
        left = changes.get("left_s", self._reporter.status.left_s)
        spent = max((self._journal.history(label).spent_s for label in self._samplers), default=0.0)
        here = None if left is None else left - self._later_s
        share = spent / (spent + here) if here is not None and spent + here > 0 else None
        minutes = round(self._gpu_minutes_before + self._gpu_minutes(), 3)
        self._reporter.update(done_share=share, gpu_minutes=minutes, **changes)

    def _gpu_minutes(self) -> float:
        gpus = {worker.label: worker.layout.gpus for worker in self._unit.workers} | {PAIR: self._unit.gpus}
        seconds = sum(gpus[label] * sum(starts) for label, starts in self._journal.startups_s.items())
        seconds += sum(gpus[label] * self._journal.history(label).spent_s for label in gpus)
        return (seconds + self._failed_starts_s * self._unit.gpus) / 60.0

    def _account(self) -> None:
        """What it took and gave, into the record, whatever the end."""
        record, journal = self._record, self._journal
        labels = [worker.label for worker in self._unit.workers] + ([PAIR] if self._unit.is_pair else [])
        record.startup_s = {label: list(starts) for label, starts in journal.startups_s.items()}
        record.measuring_s = {label: round(journal.history(label).spent_s, 3) for label in labels}
        record.gpu_minutes = round(self._gpu_minutes(), 3)
        record.clocks = self._clocks.facts()
        record.lost = [
            {"engine": label, "table": point.table, "at": list(point.at), "reason": reason}
            for label in labels
            for point, reason in journal.history(label).lost
        ]
        record.reasons = {label: journal.history(label).reasons_by_table() for label in labels}
        if self._samplers:
            self._assess()

    def _save(self) -> None:
        self._tell(phase="saving", message="writing profiles", left_s=None)
        self._assess()
        results = Results(
            self._plan, self._unit, self._record, self._journal, self._facts, self._checks, self._clocks.warnings()
        )
        results.save()


def _filled_in(seconds: float, roofline: Roofline | None) -> int | None:
    """Prompt tokens that an engine computes in so many seconds; None where that is not known."""
    if roofline is None:
        return None
    light_ms = float(roofline.prefill_ms(_PREFILL_TOKENS)) / _PREFILL_TOKENS
    return int(1e3 * seconds * _PREFILL_SHARE * roofline.dp / light_ms)
