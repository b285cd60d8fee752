"""The end of a measured unit: its profiles, with everything that whoever uses them should know."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.errors import DependencyError, InputError
from profiler.job import handoff, saving
from profiler.job.journal import Journal
from profiler.job.plan import PAIR, Plan, Unit, Worker
from profiler.job.record import LayoutRecord
from profiler.job.sampler import describe
from profiler.measure import Facts, Sample, rows_of
from profiler.sampling import Verdict
from profiler.schema import Cost


@dataclass(frozen=True)
class Results:
    """What was measured of a unit.

    Attributes:
        plan: of the run.
        unit: of it.
        record: of the unit, its tables assessed; profiles and warnings are added.
        journal: with the samples.
        facts: by label, what each engine says.
        checks: by label, how its KV capacity was cross-checked.
        clock_warnings: about GPUs that were slowed down.
    """

    plan: Plan
    unit: Unit
    record: LayoutRecord
    journal: Journal
    facts: Mapping[str, Facts]
    checks: Mapping[str, str | None]
    clock_warnings: tuple[str, ...]

    def save(self) -> None:
        """Write them.

        Raises:
            InputError: a profile is there already, and not of this run; or that to which a hand-off belongs is not.
            DependencyError: the samples do not suffice for a role, or the file system refused.
        """
        if self.unit.shares_gpus:
            self._add_handoff()
            return
        plan, journal = self.plan, self.journal
        work: list[tuple[Worker, saving.Measured, list[Sample]]] = []
        for worker in self.unit.workers:
            command = journal.commands[worker.label]
            handed = journal.history(PAIR) if worker.label == "decode" and self.unit.is_pair else None
            samples = [*journal.history(worker.label).samples, *(handed.samples if handed else [])]
            # A hand-off keeps both engines busy; the decode profile bears it.
            gpu_s = worker.layout.gpus * journal.history(worker.label).spent_s
            gpu_s += self.unit.gpus * handed.spent_s if handed else 0.0
            measured = saving.Measured(
                model=plan.model,
                gpu=plan.machine.gpu,
                driver=plan.machine.driver,
                layout=worker.layout,
                facts=self.facts[worker.label],
                argv=None if command is None else tuple(plan.named(command)),
                startups_s=tuple(journal.startups_s.get(worker.label, ())),
                measuring_gpu_s=gpu_s,
                capacity_check=self.checks.get(worker.label),
                warnings=self._warnings([worker.label, *([PAIR] if handed else [])]),
                prefill_tp=self.unit.workers[0].layout.tp if handed else None,
            )
            work.append((worker, measured, samples))
        to = plan.settings.to
        paths = [
            saving.folder_of(to, m.model.name, m.gpu, m.facts.version, role, m.layout)
            for w, m, _ in work
            for role in w.roles
        ]
        own = set(journal.saving)
        for path in paths:
            if path.exists() and str(path.relative_to(to)) not in own and not plan.settings.overwrite:
                right = "--overwrite to replace it; the samples are kept, and --resume goes on with them"
                raise InputError("exists", expected=right, source=path, field="--to")
        journal.save([str(path.relative_to(to)) for path in paths])
        missing: list[str] = []
        for worker, measured, samples in work:
            profiles, without = saving.save(measured, samples, worker.roles, to, overwrite=True)
            self.record.profiles += [str(profile.path.relative_to(to)) for profile in profiles]
            missing += without
            for profile in profiles:
                for table, error in profile.meta.errors.items():
                    label = PAIR if table == "transfer" else worker.label
                    self.record.tables[label][table] |= {"mean": error.mean, "worst": error.worst}
            self.record.warnings += [w for w in measured.warnings if w not in self.record.warnings]
        if missing:
            raise DependencyError("; ".join(missing))

    def _add_handoff(self) -> None:
        """The hand-off of engines that shared GPUs goes to the decode profile that is there."""
        plan, journal, (prefill, decode) = self.plan, self.journal, self.unit.workers
        rows = rows_of(journal.history(PAIR).samples).get("transfer")
        if rows is None:
            raise DependencyError("no hand-off: there are no samples of transfer")
        to, tp = plan.settings.to, prefill.layout.tp
        version = self.facts[decode.label].version
        there = handoff.profile_of(to, plan.model, plan.machine.gpu, decode.layout, version)
        starts = sum(w.layout.gpus * sum(journal.startups_s.get(w.label, ())) for w in self.unit.workers)
        label = handoff.label_of(tp)
        day, code = dt.datetime.now(dt.UTC).date(), saving.code_version() or "an unknown version"
        warnings = [f"{label} measured with both engines on the same GPUs ({day}, {code})"]
        warnings += [f"{label}: {warning}" for warning in (*self.clock_warnings, *self._about([PAIR]))]
        profile = handoff.add(
            there,
            rows,
            prefill_tp=tp,
            cost=Cost(
                startup_gpu_minutes=starts / 60.0,
                measuring_gpu_minutes=journal.history(PAIR).spent_s * self.unit.gpus / 60.0,
            ),
            warnings=warnings,
        )
        self.record.profiles.append(str(profile.path.relative_to(to)))
        found = profile.transfer_from(tp)
        error = None if found is None else found[0].leave_one_out.summary
        if error is not None:
            self.record.tables[PAIR]["transfer"] |= {"mean": error.mean, "worst": error.worst}
        self.record.warnings += [warning for warning in warnings if warning not in self.record.warnings]

    def _warnings(self, labels: Sequence[str]) -> tuple[str, ...]:
        found: list[str] = list(self.clock_warnings)
        if self.plan.serve is not None and self.plan.serve.dummy:
            found.append("random weights: times follow from sizes, but routing to experts is more even than in reality")
        if self.plan.serve is None:
            found.append("start-up was not measured: the engine ran already")
        if len(self.unit.workers) == 2 and PAIR not in labels:
            found.append("measured beside the other engine of a pair on the same machine")
        return (*found, *self._about(labels))

    def _about(self, labels: Sequence[str]) -> list[str]:
        """What fell short under these labels of the journal."""
        found: list[str] = []
        for label in labels:
            for table, row in self.record.tables.get(label, {}).items():
                if row["verdict"] not in {Verdict.TARGET.value, Verdict.FEW.value}:
                    error = f"; leave-one-out error {100 * row['mean']:.1f} %" if "mean" in row else ""
                    found.append(f"{table} did not reach its target ({row['verdict']}){error}")
            lost = self.journal.history(label).failed
            found += [f"{describe(point)} was lost {count} times" for point, count in lost.items() if count > 1]
        return found
