"""A decision for people: what was seen, what was wanted, what bound, and what came second."""

from __future__ import annotations

from dataclasses import fields

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.core.forecast import Forecast
from planner.core.layout_change import LayoutReview
from planner.core.record import DecisionRecord
from planner.core.sizing import Candidate
from planner.core.state import Decision
from planner.core.types import Known, Plan, Unknown

#: Plans whose GPUs differ from the chosen plan's by more than this share are bounds of the search, not alternatives.
NEAR_GPUS = 0.5

LIMITS = {
    "ttft": "TTFT: one worker fewer would miss it",
    "itl": "ITL: one worker fewer would miss it",
    "min_workers": "the pools' minimum: the load needs no more",
    "max_workers": "the pools' maximum: more workers would attain more",
    "budget": "the GPU budget: more GPUs would attain more",
    "sla": "the SLA: no number of workers meets it",
    "tolerance": "the tolerance: the present plan is nearly as good as wanted, and not dearer",
    "unknown_demand": "demand is unknown: nothing is lowered",
    "unknown_supply": "supply is unknown: the last plan stands",
}


def printable(text: str) -> str:
    """Text from a file or a command line as a terminal can show it: control characters and broken ones escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def explained(record: DecisionRecord) -> RenderableType:
    """A decision as text and tables for the terminal."""
    decision, settings = record.decision, record.settings
    sla = settings.sla
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()

    def fact(name: str, text: str) -> None:
        facts.add_row(name, Text(printable(text)))

    fact("when", f"{record.time}, {record.graph}")
    fact("level", decision.level.value.replace("_", " "))
    fact("plan", _change(decision.current, decision.plan))
    fact("because", ", ".join(decision.reasons))
    fact("limit", LIMITS.get(decision.limit, decision.limit))
    fact("SLA", f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms, {sla.attainment:.1%} of requests")
    if decision.target is not None:
        fact("target now", f"{decision.target:.2%}: the SLA's share moved by its error budget")
    if decision.nearest is not None:
        near = decision.nearest
        fact("nearest SLA", f"TTFT {near.ttft_ms:.0f} ms, ITL {near.itl_ms:.1f} ms can be met")
    fact("seen", _seen(record))
    if record.observation.gaps:
        fact("gaps", "; ".join(record.observation.gaps) + ": no pool is lowered")
    fact("forecast", _forecast(decision))
    if decision.demand is not None:
        d = decision.demand
        fact(
            "sized for",
            f"{d.rate_rps:.1f} requests/s (forecast's median {d.median_rps:.1f}"
            f"{f', surge to {d.surge_rps:.1f}' if d.surge_rps > 0 else ''}), "
            f"dispersion {d.dispersion:.1f}, ISL {d.mean_isl:.0f}, OSL {d.mean_osl:.0f}, "
            f"prefix hits {d.mean_hit:.0f} tokens, from {d.sample} requests",
        )
    if record.state.residuals:
        factors = ", ".join(f"{role} {factor:.2f} x" for role, factor in record.state.residuals.items())
        fact("live times", f"{factors} the profile's, before this interval")
    for clamp in decision.clamps:
        fact("clamp", clamp)
    if record.layouts is not None:
        fact("layouts", _layouts(record.layouts))
    parts: list[RenderableType] = [facts]
    if decision.candidates:
        parts += [Text(), _candidates(decision)]
    if decision.runner_up is not None:
        parts.append(Text(printable(f"runner-up {_layout(decision.runner_up)}: {decision.why_not_runner_up}")))
    return Group(*parts)


def _layouts(found: LayoutReview) -> str:
    """A comparison of layouts: the answer, then every combination with what it would take."""
    hours = found.horizon_s / 3600.0
    now = found.present
    lines = [
        found.why,
        f"over the next {hours:g} h, up to {max(found.rates_rps):.1f} requests/s: "
        f"{now.name} {now.gpu_s / 3600.0:.1f} GPU-h, attains {now.attainment:.1%} (now)",
    ]
    for other in found.others:
        cost = "" if other.cost_gpu_s is None else f", changing costs {other.cost_gpu_s / 3600.0:.2f} GPU-h"
        why = f": {other.why_not}" if other.why_not else ": proposed"
        what = f"{other.name} {other.gpu_s / 3600.0:.1f} GPU-h, attains {other.attainment:.1%}"
        lines.append(f"{what}{cost}{why}")
    return "\n".join(lines)


def _candidates(decision: Decision) -> Table:
    """The plans around the chosen one; far ones say nothing."""
    table = Table(title="plans considered", title_justify="left")
    for name in ("workers", "GPUs", "attainment", "TTFT ok", "ITL ok", ""):
        table.add_column(name, justify="left" if name in {"workers", ""} else "right")
    chosen = decision.chosen
    shown = sorted(decision.candidates, key=lambda c: (c.gpus, c.attainment))
    if chosen is not None:
        shown = [c for c in shown if abs(c.gpus - chosen.gpus) <= NEAR_GPUS * chosen.gpus]
    for candidate in shown:
        mark = "chosen" if candidate == chosen else "runner-up" if candidate == decision.runner_up else ""
        table.add_row(
            _layout(candidate),
            f"{candidate.gpus}",
            f"{candidate.attainment:.2%}",
            f"{candidate.ttft_attainment:.2%}",
            f"{candidate.itl_attainment:.2%}",
            mark,
            style="bold" if mark == "chosen" else None,
        )
    return table


def _layout(candidate: Candidate) -> str:
    return "".join(f"{count}{role.value[0]}" for role, count in candidate.workers.items())


def _change(current: Plan, plan: Plan) -> str:
    if not plan:
        return "nothing is asked for"
    return ", ".join(
        f"{name} {current[name]} -> {count}" if name in current and current[name] != count else f"{name} {count}"
        for name, count in plan.items()
    )


def _seen(record: DecisionRecord) -> str:
    observation = record.observation

    def text(name: str, reading: Known[float] | Known[int] | Unknown, unit: str) -> str:
        if isinstance(reading, Unknown):
            return f"{name} unknown ({reading.reason})"
        return f"{name} {reading.value:.4g}{unit}"

    return "; ".join((
        text("arrivals", observation.arrivals, f" in {observation.interval_s:g} s"),
        text("TTFT", observation.ttft_ms, " ms"),
        text("ITL", observation.itl_ms, " ms"),
        text("attainment", observation.attainment, ""),
    ))  # fmt: skip


def _forecast(decision: Decision) -> str:
    forecast = decision.forecast
    if not isinstance(forecast, Forecast):
        return f"none: {forecast.reason}"
    bands = ", ".join(
        f"{level:.0%} {max(rates):.1f}" for level, rates in zip(forecast.levels, forecast.rates_rps, strict=True)
    )
    weights = ", ".join(f"{name} {weight:.0%}" for name, weight in forecast.weights.items() if weight >= 0.005)
    return f"quantiles of the worst of {len(forecast.rates_rps[0])} bins, requests/s: {bands}; by {weights}"


def first_difference(before: Decision, after: Decision) -> str:
    """The first field in which two decisions differ."""
    return next((f.name for f in fields(Decision) if getattr(before, f.name) != getattr(after, f.name)), "none")
