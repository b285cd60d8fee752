"""The table of recorded runs in the docs is what the committed runs and profiles give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from planner.cli import app

ROOT = Path(__file__).parents[3]
NAMES = ("ttft_p50", "ttft_p90", "ttft_p99", "itl_p50", "itl_p90")


def _documented() -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """Of each run its name, and the cells of what was measured and of the simulator's error."""
    text = (ROOT / "docs/reference/gpu-results.md").read_text(encoding="utf-8")
    table = text[text.index("| engine | run |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    pairs = [(rows[i], rows[i + 1]) for i in range(0, len(rows), 2)]
    return [
        (one[1], dict(zip(NAMES, one[4:], strict=True)), dict(zip(NAMES, two[4:], strict=True))) for one, two in pairs
    ]


def test_the_documented_comparison_is_what_the_runs_give(monkeypatch: pytest.MonkeyPatch) -> None:
    # The trace's rows may be missing here: its run is then not among those compared.
    monkeypatch.delenv("PLIMSOLL_TRACES", raising=False)
    folder = ROOT / "profiling_results"
    done = CliRunner().invoke(
        app, ["accuracy", "--runs", str(folder / "validation"), "--profiles", str(folder), "--output", "json"]
    )
    runs = json.loads(done.stdout)["runs"]
    documented = [row for row in _documented() if row[0] != "azure"]
    assert len(runs) == len(documented) > 0
    for run in runs:
        name = run["run"].split("/")[1]
        shown = {key: f"{run['measured_ms'][key]:.3g}" for key in NAMES}
        [errors] = [errors for at, measured, errors in documented if at == name and measured == shown]
        for key in NAMES:
            stated = float(re.sub(r"[*% ]", "", errors[key]))
            assert stated == pytest.approx(100 * run["errors"][key], abs=0.11), (run["file"], key)
            # A miss is in bold.
            assert ("**" in errors[key]) == (key in run["missed"]), (run["file"], key)
