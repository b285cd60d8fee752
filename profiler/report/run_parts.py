"""What only a run knows: how each layout ended, what was skipped and why, clocks, what was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiler.report.subject import Run
from profiler.report.words import count, e, facts, flat, section, table

_GOOD = "done"


def outcomes(run: Run) -> str:
    """One row a layout, with its cost and why it failed or was skipped."""
    price = run.price_per_gpu_hour
    rows = []
    for one in run.layouts:
        outcome = str(one.get("outcome", "unknown"))
        minutes = _number(one.get("gpu_minutes"))
        kind = "yes" if outcome == _GOOD else "no"
        cells = [
            e(one.get("name", "unnamed")),
            f'<td class="text {kind}">{"✓" if outcome == _GOOD else "✗"} {e(outcome)}</td>',
            _text(one.get("gpus")),
            f"{minutes:.2f}" if minutes is not None else "—",
        ]
        if price is not None:
            cells.append(f"{minutes / 60 * price:.2f}" if minutes is not None else "—")
        cells += [_startups(one), _samples(one), e(_why(one))]
        rows.append(cells)
    heads = ["layout", "outcome", "GPUs", "GPU-minutes", *(["cost"] if price is not None else [])]
    heads += ["start-up (s)", "samples", "why"]
    inside = (
        table(heads, rows, words=(len(heads) - 1,), texts=(1,))
        if rows
        else '<p class="facts">The run came to no layout.</p>'
    )
    logs = "".join(_log(one) for one in run.layouts)
    return section("Layouts of the run", inside + logs, name="layouts")


def _why(one: Mapping[str, Any]) -> str:
    said = [str(one["reason"])] if one.get("reason") else []
    said += [str(warning) for warning in _list(one.get("warnings"))]
    lost = _list(one.get("lost"))
    said += [count(len(lost), "point") + " could not be measured"] if lost else []
    return "; ".join(said) or "—"


def _startups(one: Mapping[str, Any]) -> str:
    starts = one.get("startup_s")
    if not isinstance(starts, dict):
        return "—"
    seconds = [value for each in starts.values() for value in _list(each) if isinstance(value, int | float)]
    return ", ".join(f"{value:.0f}" for value in seconds) or "—"


def _samples(one: Mapping[str, Any]) -> str:
    tables = one.get("tables")
    if not isinstance(tables, dict):
        return "—"
    rows = [row for each in tables.values() if isinstance(each, dict) for row in each.values()]
    total = sum(value for row in rows if isinstance(row, dict) and (value := _number(row.get("samples"))) is not None)
    return f"{total:,.0f}"


def _log(one: Mapping[str, Any]) -> str:
    lines = [str(line) for line in _list(one.get("log"))]
    if not lines:
        return ""
    text = e("\n".join(lines))
    return f"<details><summary>Last lines of {e(one.get('name', 'the engine'))}</summary><pre>{text}</pre></details>"


def of_layout(one: Mapping[str, Any]) -> str:
    """Facts of a measured layout that its profiles do not hold."""
    rows = []
    clocks = one.get("clocks")
    if isinstance(clocks, dict):
        for key, value in clocks.items():
            rows.append((_CLOCKS.get(str(key), str(key).replace("_", " ")), flat(value)))
    reasons = one.get("reasons")
    if isinstance(reasons, dict) and reasons:
        rows.append(("samples taken", flat(reasons)))
    seconds = one.get("measuring_s")
    if isinstance(seconds, dict) and seconds:
        rows.append(("measuring", ", ".join(f"{name} {flat(value)} s" for name, value in seconds.items())))
    lost = _list(one.get("lost"))
    inside = facts(rows)
    if lost:
        listed = "".join(f"<li>{e(flat(point))}</li>" for point in lost)
        inside += f"<details><summary>{count(len(lost), 'point')} not measured</summary><ul>{listed}</ul></details>"
    return inside


_CLOCKS = {
    "sm_clock_mhz": "SM clock (MHz)",
    "temperature_c": "temperature (°C)",
    "slowed_readings": "readings slowed",
    "readings": "clock readings",
    "problem": "clocks",
}


def how(run: Run) -> str:
    """Settings, machine and code."""
    rows = [("run", str(run.folder)), ("code", flat(run.data.get("code")))]
    rows += [(f"machine: {key}".replace("_", " "), flat(value)) for key, value in run.section("machine").items()]
    settings = {key: value for key, value in run.section("settings").items() if value not in (None, [], ())}
    rows += [(f"--{key}".replace("_", "-"), flat(value)) for key, value in settings.items()]
    return section("How this was run", facts(rows), name="how")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return "—" if value is None else e(value)
