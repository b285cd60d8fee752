"""The page as a whole: what a browser would be given."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from planner.core.state import Decision
from planner.core.types import Level
from planner.whatif.outcome import Outcome
from planner.whatif.report import Report, write_report

Make = Callable[..., Any]
SECTIONS = ("headline", "policies", "scatter", "load", "workers", "latency", "attainment", "decisions", "settings")


class Seen(HTMLParser):
    """Elements with their attributes, and text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[tuple[str, str | None]]] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "link", "img"}:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"} and self.rows:
            self.rows[-1].append(("", dict(attrs).get("data-v")))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.text += data
            if {"td", "th"} & set(self._open) and self.rows and self.rows[-1]:
                shown, value = self.rows[-1][-1]
                self.rows[-1][-1] = (shown + data, value)


def written(tmp_path: Path, report: Report) -> str:
    path = tmp_path / "report.html"
    write_report(path, report)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"], "nothing else is left behind"
    return path.read_text(encoding="utf-8")


def drawn(seen: Seen) -> dict[str, Any]:
    """Traces of each figure, by the id of its element."""
    figures = {}
    for script in seen.scripts:
        if found := re.search(r'Plotly\.newPlot\(\s*"([^"]+)",\s*', script):
            figures[found[1]] = json.JSONDecoder().raw_decode(script, found.end())[0]
    return figures


def full(outcome: Make, decision: Make, report: Make) -> Report:
    everyone = (
        outcome("static:2p2d", 0.80, 1.5),
        outcome("planner", 0.97, 2.0),
        outcome("static:3p3d", 0.96, 3.0),
        outcome("hpa", 0.90, 2.5, interval_s=15.0),
        outcome("clairvoyant", 0.99, 1.8),
    )
    decisions = (decision(10.0, 1, 1), decision(50.0, 1, 3), decision(60.0, 3, 2))
    made: Report = report(*everyone, decisions=decisions)
    return made


def test_every_part_is_there_and_nothing_is_loaded(tmp_path: Path, outcome: Make, decision: Make, report: Make) -> None:
    text = written(tmp_path, full(outcome, decision, report))
    seen = Seen(text)
    assert [a["id"] for tag, a in seen.elements if tag == "section"] == list(SECTIONS)
    for tag, attributes in seen.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert not attributes.keys() & {"src", "href", "action", "srcset"}, (tag, attributes)
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert styles
    assert not any("url(" in style or "@import" in style for style in styles)
    policy = next(a["content"] for t, a in seen.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    figures = drawn(seen)
    assert set(figures) == {
        "chart-scatter", "chart-load", "chart-latency", "chart-attainment",
        *(f"chart-workers-{i}" for i in range(4)),
    }  # fmt: skip
    assert [t["name"] for t in figures["chart-load"]] == [
        "forecast, median", "forecast, up to its 0.9 quantile", "sized for (surge included)", "observed arrivals",
    ]  # fmt: skip
    assert len(text) < 6_000_000


def test_the_table_holds_the_outcomes(tmp_path: Path, outcome: Make, decision: Make, report: Make) -> None:
    told = full(outcome, decision, report)
    rows = [row for row in Seen(written(tmp_path, told)).rows if len(row) == 13]
    head, *body = rows
    assert [row[0][0] for row in body] == ["clairvoyant", "planner", "static:3p3d", "static:2p2d", "hpa"]
    assert head[2][0] == "attainment"
    by_name = {o.policy: o for o in told.outcomes}
    for row in body:
        o = by_name[row[0][0]]
        assert [float(value or "nan") for _, value in row[1:]] == [
            float(o.attainment >= 0.95), o.attainment, o.ttft_attainment, o.itl_attainment,
            o.ttft_ms["p50"], o.ttft_ms["p99"], o.itl_ms["p50"], o.itl_ms["p99"],
            o.gpu_hours, o.peak_gpus, o.scale_ups + o.scale_downs, o.failed + o.unfinished,
        ]  # fmt: skip
    ours = [shown for shown, _ in body[1]]
    assert ours[1:] == [
        "✓ yes", "97.00 %", "98.00 %", "99.00 %", "51.2", "1,234", "7.5", "12.2", "2.00", "7", "3 / 2", "0",
    ]  # fmt: skip


def test_decisions_that_changed_something_are_listed(
    tmp_path: Path, outcome: Make, decision: Make, report: Make
) -> None:
    seen = Seen(written(tmp_path, full(outcome, decision, report)))
    assert "2 of 3 decisions changed a pool" in seen.text
    rows = [row for row in seen.rows if len(row) == 7][1:]
    assert [row[0][0] for row in rows] == ["0:00:50", "0:01:00"]
    assert "1 → 3" in seen.text
    assert "sized_for_ttft" in seen.text
    assert "3p2d: saves 1 GPUs but attains <90 %>" in seen.text
    assert "prefill: 4 wanted, 3 by <window>" in seen.text


def test_an_unknown_present_is_no_change(tmp_path: Path, outcome: Make, report: Make) -> None:
    blind = Decision(10.0, Level.LAST_GOOD, {"prefill": 3}, {}, {}, ("supply unknown",), "unknown_supply")
    text = written(tmp_path, report(outcome("planner"), decisions=(blind,)))
    assert "No decision changed a pool." in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "a&b\"'<b>"])
def test_names_are_text_wherever_they_stand(
    name: str, tmp_path: Path, outcome: Make, decision: Make, report: Make
) -> None:
    everyone = (outcome("planner"), outcome(name, 0.99, 1.0), outcome(f"static:{name}", 0.99, 1.5))
    told = report(
        *everyone,
        decisions=(decision(50.0, 1, 3),),
        title=name,
        trace_name=name,
        notes=(name,),
        settings=[(name, name)],
    )
    seen = Seen(written(tmp_path, told))
    plain = Seen(written(tmp_path, report(outcome("planner"), outcome("x", 0.99, 1.0), outcome("static:y", 0.99, 1.5),
                                          decisions=(decision(50.0, 1, 3),), title="t", trace_name="t",
                                          notes=("n",), settings=[("s", "s")])))  # fmt: skip
    assert [tag for tag, _ in seen.elements] == [tag for tag, _ in plain.elements]
    # title twice, trace twice, note, setting twice, and each policy in headline, table and tab at least
    assert seen.text.count(name) >= 7 + 5
    for traces in drawn(seen).values():
        for trace in traces:
            assert "<" not in trace["name"]
            assert "<" not in json.dumps(trace.get("customdata", ""))


@pytest.mark.parametrize("policy", ["planner", "static:1p1d", "hpa", "clairvoyant"])
def test_a_single_policy_without_decisions(policy: str, tmp_path: Path, outcome: Make, report: Make) -> None:
    seen = Seen(written(tmp_path, report(outcome(policy))))
    assert "1 policy on the same requests" in seen.text
    assert "No decisions came with this report." in seen.text


def test_a_policy_that_completed_nothing(tmp_path: Path, outcome: Make, report: Make) -> None:
    dead = outcome("planner", 0.0, completed=False)
    seen = Seen(written(tmp_path, report(dead)))
    assert "No policy meets the SLA" in seen.text
    row = next(row for row in seen.rows if row[0][0] == "planner")
    assert [shown for shown, _ in row[5:9]] == ["—"] * 4
    assert row[12] == ("6,000", "6000")


def test_a_replay_without_a_request(tmp_path: Path, outcome: Make, report: Make) -> None:
    empty = outcome("planner", 0.0, 0.0, span_s=0.0, completed=False)
    written(tmp_path, report(empty, requests=0, span_s=0.0))


def test_lines_of_a_week_are_thinned(tmp_path: Path, outcome: Make, report: Make) -> None:
    week = 7 * 86400.0
    text = written(tmp_path, report(outcome("planner", span_s=week), outcome("static:3p3d", span_s=week), span_s=week))
    assert len(text) < 6_000_000


def test_a_report_without_outcomes_is_refused(tmp_path: Path, report: Make) -> None:
    with pytest.raises(ValueError, match="at least one policy"):
        write_report(tmp_path / "report.html", report())
    assert not list(tmp_path.iterdir())


def test_a_failure_keeps_the_old_page(
    tmp_path: Path, outcome: Make, report: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(self: Path, target: Path) -> Path:
        assert self.stat().st_size > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(path, report(outcome("planner")))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_page_appears_in_one_step(
    tmp_path: Path, outcome: Make, report: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "report.html", []
    path.write_text("old")
    plain = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((self.parent == target.parent, target.read_text(), self.read_text(encoding="utf-8")[-8:]))
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_report(path, report(outcome("planner")))
    assert seen == [(True, "old", "</html>\n")]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_plotly_is_imported_only_to_write() -> None:
    code = "import sys, planner.whatif.report as r; r.write_report; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_same_report_is_the_same_page(tmp_path: Path, outcome: Make, decision: Make, report: Make) -> None:
    told = full(outcome, decision, report)
    assert written(tmp_path, told) == written(tmp_path, told)


def test_many_policies_are_tabled_but_not_all_drawn(tmp_path: Path, outcome: Make, report: Make) -> None:
    fleets: list[Outcome] = [outcome(f"static:{i}p{i}d", 0.5 + i / 100, float(i)) for i in range(1, 41)]
    seen = Seen(written(tmp_path, report(outcome("planner"), *fleets)))
    assert sum(row[0][0].startswith("static:") for row in seen.rows) == 40
    assert sum(name.startswith("chart-workers") for name in drawn(seen)) == 2
