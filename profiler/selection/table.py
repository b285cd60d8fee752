"""A choice for people and for machines."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from planner.core.types import Sla
from planner.whatif.report_verdict import percent
from profiler.selection.choose import Choice, Ranked, Verdict, sla_words


def choice_table(choice: Choice) -> Table:
    """One row an option, best first, with why it lost."""
    sla, demand = choice.sla, choice.demand
    title = (
        f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms for {sla.attainment:.4g} of {demand.rate_rps:g} requests/s, "
        f"mean ISL {demand.lengths.isl.mean():,.0f}, mean OSL {demand.lengths.osl.mean():,.0f}"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, show_edge=False)
    table.add_column("layouts", overflow="fold", min_width=18)
    for name, width in (("workers", 7), ("GPUs", 4), ("attain", 8), ("TTFT ok", 8), ("ITL ok", 8)):
        # A figure is never cut to make room.
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("why", overflow="fold", min_width=18)
    for one in choice.ranked:
        sizing = one.sizing
        shares = ("-", "-", "-")
        if sizing is not None:
            plan = sizing.chosen
            shares = (percent(plan.attainment), percent(plan.ttft_attainment), percent(plan.itl_attainment))
        colour = "green" if one.verdict is Verdict.MEETS else "red"
        gpus = "-" if sizing is None else str(sizing.chosen.gpus)
        row = (one.option.name, workers_words(one), gpus, f"[{colour}]{shares[0]}[/]", *shares[1:], choice.why(one))
        table.add_row(*row, style="bold" if one is choice.best else None)
    return table


def workers_words(one: Ranked) -> str:
    """Counts as on the planner's command line, such as 3p4d."""
    return "".join(f"{count}{role[:1]}" for role, count in one.workers.items()) or "-"


def conclusion(choice: Choice) -> str:
    """The answer in a sentence."""
    best = choice.best
    if best is not None and best.sizing is not None:
        attained = percent(best.sizing.chosen.attainment)
        gpus = f"{best.gpus} GPU" if best.gpus == 1 else f"{best.gpus} GPUs"
        return f"cheapest: {best.option.name}, {workers_words(best)}, {gpus}; predicted attainment {attained}"
    cheapest = min((one.gpus for one in choice.ranked if one.gpus is not None), default=None)
    if cheapest is not None:
        return f"the SLA needs {cheapest} GPUs at this load; {choice.max_gpus} are allowed (--max-gpus)"
    near = choice.nearest
    if near is not None:
        return (
            f"no number of GPUs meets this SLA; the nearest that can be met is {sla_words(near.nearest)} "
            f"({near.option.name})"
        )
    if all(one.verdict is Verdict.TOO_LONG for one in choice.ranked):
        return "the requests are longer than any worker can hold"
    return "no plan that was tried meets this SLA at this load"


def as_json(choice: Choice) -> dict[str, Any]:
    """The object of `--output json`."""
    best, near = choice.best, choice.nearest
    lengths = choice.demand.lengths
    return {
        "sla": _sla(choice.sla),
        "load": {
            "rps": choice.demand.rate_rps,
            "dispersion": choice.demand.dispersion,
            "mean_isl": float(lengths.isl.mean()),
            "mean_osl": float(lengths.osl.mean()),
        },
        "max_gpus": choice.max_gpus,
        "reachable": choice.reachable,
        "nearest": None if choice.reachable or near is None else _sla(near.nearest),
        "chosen": None if best is None else _option(choice, best),
        "options": [_option(choice, one) for one in choice.ranked],
    }


def _sla(sla: Sla) -> dict[str, float]:
    return {"ttft_ms": sla.ttft_ms, "itl_ms": sla.itl_ms, "attainment": sla.attainment}


def _option(choice: Choice, one: Ranked) -> dict[str, Any]:
    plan = None
    if one.sizing is not None:
        chosen, prediction = one.sizing.chosen, one.sizing.prediction
        plan = {
            "workers": {role.value: count for role, count in chosen.workers.items()},
            "gpus": chosen.gpus,
            "attainment": chosen.attainment,
            "ttft_attainment": chosen.ttft_attainment,
            "itl_attainment": chosen.itl_attainment,
            # An overloaded worker's means are infinite, which JSON does not know.
            "mean_ttft_ms": _finite(prediction.ttft_ms),
            "mean_itl_ms": _finite(prediction.itl_ms),
            "utilisation": {role.value: _finite(share) for role, share in prediction.utilisation.items()},
            "limit": one.sizing.limit,
        }
    return {
        "layouts": {
            role.value: {
                "tp": p.meta.tp,
                "dp": p.meta.dp,
                "expert_parallel": p.meta.spreads_experts,
                "gpus_per_worker": p.meta.gpu.count_per_worker,
            }
            for role, p in one.option.of_role.items()
        },
        "profiles": [str(profile.path) for profile in one.option.profiles],
        "transfer": None if one.option.aggregated else one.option.engines.transfer.source,
        "verdict": one.verdict.value,
        "why": choice.why(one),
        "gpus_needed": one.gpus,
        "requests_too_long": one.too_long,
        "nearest": _sla(one.nearest),
        "plan": plan,
    }


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
