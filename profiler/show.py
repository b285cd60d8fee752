"""What a profile holds, as plain values for machines and as a table for people."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from profiler.schema import TableName
from profiler.tables import Profile, fingerprint

_UNKNOWN = "unknown"

#: Columns whose ranges are told, by table.
_RANGES: dict[TableName, tuple[str, ...]] = {
    "prefill": ("isl", "ttft_ms"),
    "decode": ("batch", "kv_tokens", "context_tokens", "itl_ms"),
    "mixed": ("prefill_tokens", "batch", "kv_tokens", "iteration_ms"),
    "transfer": ("tokens", "transfer_ms"),
}


def summarise(profile: Profile) -> dict[str, Any]:
    """Provenance, ranges, leave-one-out errors and warnings as values that JSON holds."""
    errors = profile.leave_one_out()
    tables: dict[str, Any] = {}
    for name, samples in profile.samples.items():
        columns = _RANGES[name]
        tables[name] = {
            "samples": len(samples[columns[0]]),
            "suspect": int(samples["suspect"].sum()) if "suspect" in samples else 0,
            "ranges": {c: [float(samples[c].min()), float(samples[c].max())] for c in columns},
            "leave_one_out": errors[name].model_dump() if name in errors else None,
        }
    if "transfer" in tables:
        tables["transfer"]["prefill_tp"] = sorted({int(tp) for tp in profile.handed_from(profile.samples["transfer"])})
    held = profile.meta.model_dump(mode="json", exclude={"errors": True, "source": {"arrays": True}})
    # Older profiles tell it by their arguments alone.
    held["expert_parallel"] = profile.meta.spreads_experts
    return {
        "path": str(profile.path),
        "fingerprint": fingerprint(profile.path),
        "profile": held,
        "tables": tables,
    }


def table(summary: dict[str, Any]) -> Table:
    """A summary as a table for people; what is not known is said to be unknown."""
    meta = summary["profile"]
    title = f"{meta['model']['name']}  {meta['role']}  {meta['gpu']['name']}  TP {meta['tp']} DP {meta['dp']}"
    title += " EP" if meta["expert_parallel"] else ""
    result = Table(title=escape(title), show_header=False, title_justify="left", title_style="bold", pad_edge=False)
    result.add_column(style="cyan", no_wrap=True)
    result.add_column(overflow="fold")
    engine, limits = meta["engine"], meta["limits"]
    version = engine["version"] or _UNKNOWN
    rows = {
        "folder": summary["path"],
        "fingerprint": summary["fingerprint"][:16],
        "engine": f"{engine['name']}, version {version}; arguments {_words(engine['arguments'])}",
        "driver": meta["driver"] or _UNKNOWN,
        "measured on": meta["date"] or _UNKNOWN,
        "start-up": _startup(meta["startup_s"]),
        "KV capacity": _count(meta["kv_capacity_tokens"], "tokens"),
        "cross-check": meta["kv_capacity_check"] or "none",
        "limits": ", ".join(f"{name} {_count(value)}" for name, value in limits.items()),
        "source": meta["source"]["text"],
        "licence": meta["source"]["licence"],
    }
    for name, value in rows.items():
        result.add_row(name, escape(str(value)))
    result.add_section()
    for name, held in summary["tables"].items():
        result.add_row(name, escape(_table_line(held)))
    if meta["warnings"]:
        result.add_section()
    for warning in meta["warnings"]:
        result.add_row("[yellow]warning[/]", escape(warning))
    return result


def error_words(error: dict[str, Any] | None) -> str:
    """A leave-one-out error in words."""
    if error is None:
        return "leave-one-out error: too few points"
    mean, worst, points = error["mean"], error["worst"], error["points"]
    return f"leave-one-out error {mean:.1%} mean, {worst:.1%} worst of {points} points"


def _table_line(held: dict[str, Any]) -> str:
    suspect = f", {held['suspect']} of them suspect" if held["suspect"] else ""
    ranges = "; ".join(f"{name} {low:,.5g} to {high:,.5g}" for name, (low, high) in held["ranges"].items())
    came = "".join(f", TP{tp}" for tp in held.get("prefill_tp", ()))
    origin = f" from a prefill worker of {came.removeprefix(', ')}" if came else ""
    return f"{held['samples']} samples{suspect}{origin}: {ranges}; {error_words(held['leave_one_out'])}"


def _startup(seconds: list[float] | None) -> str:
    return "not measured" if not seconds else ", ".join(f"{value:g} s" for value in seconds)


def _words(arguments: list[str] | None) -> str:
    return _UNKNOWN if arguments is None else " ".join(arguments) or "none"


def _count(value: int | None, unit: str = "") -> str:
    return _UNKNOWN if value is None else f"{value:,} {unit}".rstrip()
