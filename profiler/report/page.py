"""The report as HTML: summary, a section a layout, validation, and how it was run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from profiler.csvfile import COLUMNS
from profiler.picture import STYLE, chart
from profiler.report import figures, run_parts
from profiler.report.assets import POLICY_OF_PAGE, SCRIPT, STYLES
from profiler.report.points import Array
from profiler.report.subject import Layout, Subject
from profiler.report.words import count, e, facts, ms, percent, section, table, tile
from profiler.schema import TableError, TableName, Validation
from profiler.tables import Profile, fingerprint

#: What a validation should reach: relative error, and the looser one of the tail of TTFT.
TARGET, TAIL_TARGET = 0.10, 0.20

_TITLES: Mapping[TableName, str] = {
    "prefill": "Prefill: TTFT of a lone prompt",
    "decode": "Decode: ITL of running batches",
    "mixed": "Mixed: iterations with prefill and decode",
    "transfer": "Hand-off",
}


def page(subject: Subject) -> str:
    """HTML of a page that needs no network: the drawing library is inside."""
    charts = _Charts()
    parts = [_head(subject)]
    if subject.run is not None:
        parts.append(run_parts.outcomes(subject.run))
    parts += [_layout(subject, layout, charts) for layout in subject.layouts]
    parts.append(_validation(subject))
    if subject.run is not None:
        parts.append(run_parts.how(subject.run))
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{POLICY_OF_PAGE}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{e(_title(subject))}</title><style>{STYLE}{STYLES}</style></head>\n"
        f"<body><main>{body}</main><script>{SCRIPT if charts.any else ''}</script></body></html>\n"
    )


class _Charts:
    """Charts of one page; the first one brings the drawing library."""

    def __init__(self) -> None:
        self.any = False
        self._number = itertools.count()

    def __call__(self, figure: Any) -> str:
        first, self.any = not self.any, True
        return chart(figure, library=first, name=f"chart-{next(self._number)}")


def _title(subject: Subject) -> str:
    models = sorted({profile.meta.model.name for profile in subject.profiles})
    if not models and subject.run is not None:
        models = [str(subject.run.section("model").get("name", subject.path.name))]
    return f"Profile of {', '.join(models)}"


def _head(subject: Subject) -> str:
    run, profiles = subject.run, subject.profiles
    gpus = sorted({profile.meta.gpu.name for profile in profiles})
    engines = sorted({f"{p.meta.engine.name} {p.meta.engine.version or '(version unknown)'}" for p in profiles})
    dates = sorted({str(profile.meta.date) for profile in profiles if profile.meta.date is not None})
    said = [*gpus, *engines, *(dates[:1] if len(dates) == 1 else [f"{dates[0]} to {dates[-1]}"] if dates else [])]
    return (
        f'<h1>{e(_title(subject))}</h1><p class="facts">{e(", ".join(said) or subject.path)}</p>'
        f'<section id="headline"><h2 class="verdict">{e(_headline(subject))}</h2>'
        f'<div class="tiles">{"".join(_tiles(subject))}</div>{_warnings(subject)}'
        + ("" if run is None or run.data.get("ended") else '<p class="no">The run has not ended.</p>')
        + "</section>"
    )


def _headline(subject: Subject) -> str:
    if subject.run is None:
        return f"{count(len(subject.layouts), 'layout')} measured"
    tried = [one for one in subject.run.layouts if one.get("outcome") != "skipped"]
    done = [one for one in tried if one.get("outcome") == "done"]
    skipped = len(subject.run.layouts) - len(tried)
    words = f"{len(done)} of {count(len(tried), 'layout')} measured"
    return f"{words}, {skipped} skipped" if skipped else words


def _tiles(subject: Subject) -> Iterator[str]:
    run = subject.run
    costs = [layout.gpu_minutes for layout in subject.layouts]
    known = [cost for cost in costs if cost is not None]
    if run is not None:
        money = "" if run.price_per_gpu_hour is None else f"cost {run.gpu_minutes / 60 * run.price_per_gpu_hour:.2f}"
        yield tile("GPU time", f"{run.gpu_minutes:.1f}<small> GPU-min</small>", money or "failed starts included")
    elif known:
        yield tile("GPU time", f"{sum(map(sum, known)):.1f}<small> GPU-min</small>", "start-up included")
    if known:
        most = max(measuring for _, measuring in known)
        yield tile("Measuring", f"{most:.1f}<small> GPU-min</small>", "of the dearest layout, start-up apart")
    errors: dict[TableName, list[float]] = {}
    for profile in subject.profiles:
        for name, error in _errors(profile).items():
            errors.setdefault(name, []).append(error.mean)
    for name in COLUMNS:
        if name in errors:
            under = "leave-one-out, mean of the worst layout"
            yield tile(f"{name.capitalize()} error", percent(max(errors[name])), under)
    starts = [s for profile in subject.profiles for s in profile.meta.startup_s or ()]
    if starts:
        yield tile(
            "Start-up", f"{float(np.median(starts)):.0f}<small> s</small>", f"median; at most {max(starts):.0f} s"
        )


def _errors(profile: Profile) -> Mapping[TableName, TableError]:
    """As stored; computed for a profile that stores none."""
    return profile.meta.errors or profile.leave_one_out()


def _warnings(subject: Subject) -> str:
    listed = sorted({warning for profile in subject.profiles for warning in profile.meta.warnings})
    return f'<ul class="notes">{"".join(f"<li>{e(text)}</li>" for text in listed)}</ul>' if listed else ""


def _layout(subject: Subject, layout: Layout, charts: _Charts) -> str:
    drawn = []
    tables = layout.tables
    for name, profile in tables:
        twice = sum(other == name for other, _ in tables) > 1
        title = _TITLES[name] + (f" ({profile.meta.role})" if twice else "")
        drawn.append(f"<h3>{e(title)}</h3>{''.join(_table(name, profile, charts))}")
    return section(layout.name, _layout_facts(layout) + "".join(drawn) + _of_run(subject, layout))


def _of_run(subject: Subject, layout: Layout) -> str:
    """What the run says of the layout beside its profiles."""
    if subject.run is None:
        return ""
    folders = {profile.path.resolve() for profile in layout.profiles}
    base = subject.run.folder.parent
    for one in subject.run.layouts:
        named = one.get("profiles")
        if isinstance(named, list) and any((base / str(name)).resolve() in folders for name in named):
            return run_parts.of_layout(one)
    return ""


def _layout_facts(layout: Layout) -> str:
    meta = layout.profiles[0].meta
    limits = ", ".join(f"{name} {value:,}" for name, value in meta.limits if value is not None)
    rows = [
        ("profiles", ", ".join(f"{p.meta.role} ({fingerprint(p.path)[:12]})" for p in layout.profiles)),
        ("GPUs per worker", str(meta.gpu.count_per_worker)),
        ("engine", f"{meta.engine.name} {meta.engine.version or '(version unknown)'}"),
        ("arguments", "unknown" if meta.engine.arguments is None else " ".join(meta.engine.arguments) or "none"),
        ("driver", meta.driver or "unknown"),
        ("limits", limits or "unknown"),
    ]
    capacity = next((p.meta for p in layout.profiles if p.meta.kv_capacity_tokens is not None), meta)
    tokens = capacity.kv_capacity_tokens
    rows.append(("KV capacity", "unknown" if tokens is None else f"{tokens:,} tokens"))
    if capacity.kv_capacity_check:
        rows.append(("cross-check", capacity.kv_capacity_check))
    starts = meta.startup_s
    rows.append(("start-up", ", ".join(f"{s:.1f} s" for s in starts) if starts else "not measured"))
    cost = layout.gpu_minutes
    if cost is not None:
        rows.append(("cost", f"{cost[1]:.2f} GPU-minutes of measuring, {cost[0]:.2f} of start-up"))
    sources = sorted({f"{p.meta.source.text} ({p.meta.source.licence})" for p in layout.profiles})
    rows += [("source", text) for text in sources]
    return f"<details open><summary>Provenance</summary>{facts(rows)}</details>"


def _table(name: TableName, profile: Profile, charts: _Charts) -> Iterator[str]:
    """Captions and pictures of one table."""
    rows = profile.samples[name]
    samples = len(rows["repeat"]) if "repeat" in rows else len(next(iter(rows.values())))
    error = _errors(profile).get(name)
    words = f"{count(samples, 'sample')}. "
    if "repeat" in rows and rows["repeat"].max() > 0:
        words += "Bars span the repeats of a point. "
    if error is not None:
        words += (
            f"Leave-one-out error {percent(error.mean)} mean, {percent(error.worst)} worst of {error.points} points."
        )
    elif name != "mixed":
        words += "Too few points for a leave-one-out error."
    if name == "prefill":
        yield _caption(words) + charts(figures.lone_prompts(profile))
        yield from _accuracy(name, profile, charts)
        others = figures.other_prompts(profile)
        if others is not None:
            yield "<h3>Prefill: several prompts at once, and prefix hits</h3>"
            yield _caption(_prediction_words(others[1])) + charts(others[0])
    elif name == "decode":
        yield _caption(words) + charts(figures.decode(profile))
        yield from _accuracy(name, profile, charts)
    elif name == "transfer":
        yield _caption(words) + charts(figures.transfer(profile))
        yield from _accuracy(name, profile, charts)
    else:
        found = figures.mixed(profile)
        if found is None:
            yield _caption(words + "This profile holds no prefill or decode table to predict them from.")
        else:
            yield _caption(f"{words} {_prediction_words(found[1])}") + charts(found[0])


def _accuracy(name: TableName, profile: Profile, charts: _Charts) -> Iterator[str]:
    figure = figures.accuracy_of(name, profile)
    if figure is not None:
        repeated = any(trace.name == "spread of repeats" for trace in figure.data)
        scatter = "What a point's repeats scatter by, and how" if repeated else "No point was repeated. How"
        yield _caption(f"{scatter} far the table would be off without the point:") + charts(figure)


def _prediction_words(errors: Array) -> str:
    size = np.abs(errors)
    return (
        f"The engine model, as simulation and sizing use it, against {count(len(errors), 'point')}: "
        f"{percent(float(np.median(size)))} off in the median, {percent(float(size.max()))} at worst, "
        f"bias {percent(float(np.median(errors)), sign=True)}."
    )


def _caption(text: str) -> str:
    return f'<p class="caption">{e(text)}</p>'


def _validation(subject: Subject) -> str:
    """Measured against simulated; a run that several profiles of a layout carry is shown once."""
    rows, seen = [], set()
    metrics = ("ttft_p50", "ttft_p90", "ttft_p99", "itl_p50", "itl_p90")
    for layout in subject.layouts:
        for profile in layout.profiles:
            for one in profile.meta.validation:
                key = one.model_dump_json()
                if key in seen:
                    continue
                seen.add(key)
                rows.append(
                    [
                        e(one.run),
                        e(one.mode),
                        f"{one.requests:,}",
                        f"{one.rate_rps:g}",
                        *(_held(one, m) for m in metrics),
                    ]
                )
    if not rows:
        return section("Validation", '<p class="facts">No run was held against the simulator.</p>', name="validation")
    heads = [
        "run",
        "mode",
        "requests",
        "requests/s",
        *(f"{m.replace('_', ' ').upper().replace(' P', ' p')} (ms)" for m in metrics),
    ]
    words = (
        "Open-loop runs that the tables have not seen: measured → simulated, and the relative error. "
        f"The target is {TARGET:.0%}, {TAIL_TARGET:.0%} for TTFT p99.".replace("%", " %")
    )
    return section("Validation", _caption(words) + table(heads, rows), name="validation")


def _held(one: Validation, metric: str) -> str:
    measured, simulated = one.measured_ms.get(metric), one.simulated_ms.get(metric)
    if measured is None or simulated is None:
        return "<td>—</td>"
    error = simulated / measured - 1.0
    ok = abs(error) <= (TAIL_TARGET if metric == "ttft_p99" else TARGET)
    return (
        f'<td class="{"yes" if ok else "no"}">{ms(measured)} → {ms(simulated)}<br>'
        f"{'✓' if ok else '✗'} {percent(error, sign=True)}</td>"
    )
