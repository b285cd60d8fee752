from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.whatif.outcome import Outcome
from planner.whatif.report import Report, write_report
from planner.whatif.report_change import change_figure, changes
from planner.whatif.transition import Course, Moment

Make = Callable[..., Any]


def course(**changed: Any) -> Course:
    """Four workers of TP2 to two of TP4 with room for one: piece by piece, from 120 s to 240 s."""
    moments = [
        Moment(120.0, (4, 0, 0), (0, 0, 0)),
        Moment(130.0, (4, 0, 0), (0, 1, 0)),
        Moment(140.0, (4, 0, 0), (0, 1, 0)),
        Moment(150.0, (4, 0, 0), (1, 0, 0)),
        Moment(160.0, (2, 0, 2), (1, 0, 0)),
        Moment(180.0, (2, 0, 0), (1, 1, 0)),
        Moment(230.0, (0, 0, 2), (2, 0, 0)),
        Moment(240.0, (0, 0, 0), (2, 0, 0)),
    ]
    facts: dict[str, Any] = {
        "pool": "chat", "layouts": ("tp2", "tp4"), "gpus": (2, 4), "began_s": 120.0, "ended_s": 240.0, "reached": True,
        "old_workers": 4, "new_workers": 2, "peak_gpus": 12, "moments": moments,
    }  # fmt: skip
    return Course(**{**facts, **changed})


def lines(figure: Any) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Times and workers by row and phase."""
    return {(one.yaxis, one.name): (list(one.x), list(one.y)) for one in figure.data}


def test_both_layouts_are_drawn_with_when_it_begins_and_ends() -> None:
    figure = change_figure(course())
    drawn = lines(figure)
    assert set(drawn) == {(axis, name) for axis in ("y", "y2") for name in ("ready", "starting", "draining")}
    # Minutes; what repeats is left out.
    assert drawn["y", "ready"] == ([2.0, 160 / 60, 3.0, 230 / 60, 4.0], [4, 2, 2, 0, 0])
    assert drawn["y", "draining"][1] == [0, 2, 0, 2, 0]
    assert drawn["y2", "starting"] == ([2.0, 130 / 60, 2.5, 3.0, 230 / 60, 4.0], [0, 1, 0, 1, 0, 0])
    assert [one.text for one in figure.layout.annotations] == ["begins", "done"]
    assert [one.x for one in figure.layout.annotations] == [2.0, 4.0]
    assert {shape.x0 for shape in figure.layout.shapes} == {2.0, 4.0}
    assert figure.layout.yaxis.title.text == "tp2 workers (2 GPUs)"
    assert figure.layout.yaxis2.title.text == "tp4 workers (4 GPUs)"


def test_one_that_is_rolled_back_or_does_not_end_says_so() -> None:
    back = change_figure(course(reached=False))
    assert [one.text for one in back.layout.annotations] == ["begins", "rolled back"]
    endless = change_figure(course(ended_s=None))
    assert [one.text for one in endless.layout.annotations] == ["begins"]
    with pytest.raises(ValueError, match="did not begin"):
        change_figure(Course())


def test_the_page_has_it_where_one_began(tmp_path: Path, outcome: Make, report: Make) -> None:
    ours: Outcome = replace(outcome("planner"), layout_change=course(pool="<chat>"))
    never: Outcome = replace(outcome("planner:interval_s=5"), layout_change=Course())
    assert [one.words.partition(":")[0] for one in changes([never, ours])] == ["planner"]
    path = tmp_path / "report.html"
    made: Report = report(ours, never)
    write_report(path, made)
    text = path.read_text(encoding="utf-8")
    assert text.count('id="layout-change"') == 1
    assert "Layout change of &lt;chat&gt;" in text
    assert "layout change of 4 to 2 workers done in 120 s from 120 s on" in text
    assert "chart-change-0" in text
    assert "chart-change-1" not in text
