"""Convergence times of the tests of this folder, for docs/reference/kubernetes-failures.md:

for run in 1 2 3; do PLIMSOLL_FIGURES=figures.tsv pytest tests/fault_tolerance/kubernetes; done
python -m tests.fault_tolerance.kubernetes.figures figures.tsv
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median


def table(lines: list[str]) -> str:
    """Markdown: median, least and most of each, in the order in which they came first."""
    found: dict[str, list[float]] = {}
    for line in lines:
        seconds, _, what = line.partition("\t")
        found.setdefault(what, []).append(float(seconds))
    rows = [
        f"| {what} | {median(all_s):.1f} | {min(all_s):.1f} to {max(all_s):.1f} | {len(all_s)} |"
        for what, all_s in found.items()
    ]
    return "\n".join(["| What | Median, s | Least to most, s | Runs |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()))
