"""A disk that is full, a file that may not grow, a folder that is read-only: the planner scales on and says so."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fault_tolerance.planner.installation import PAIR, PATIENCE_S, Planner, planner_of
from tests.fault_tolerance.planner.stages import Installation, at_rest
from tests.servers import get, needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]


def mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path | None]]:
    """Two small disks of their own in memory, one for the journal; None where mounting is not allowed."""
    disks: dict[str, Path | None] = {}
    with ExitStack() as stack:
        for name in ("journal", "checkpoint"):
            folder = tmp_path_factory.mktemp(name)
            disks[name] = folder if mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)) else None
            if disks[name] is not None:
                stack.callback(subprocess.run, ["umount", str(folder)], check=True)
        yield disks


@pytest.fixture(scope="module")
def planner(
    shared: Installation, disks: dict[str, Path | None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Planner]:
    folder = tmp_path_factory.mktemp("planner")
    places = {name: str((disk or folder) / name) for name, disk in disks.items()}
    planner = planner_of(folder, shared.graph, shared.prometheus.url, service=places)
    with ExitStack() as stack:
        planner.start(stack)
        yield planner


def fault_of(planner: Planner, stage: str) -> str:
    """What a stage fails with now; empty when it works."""
    fault = planner.state()["errors"].get(stage)
    return fault["text"] if fault is not None and fault["active"] else ""


def gauge(planner: Planner, name: str) -> float:
    lines = get(f"{planner.url}/metrics").splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"sla_planner_{name}{{"))


def fill(file: Path) -> None:
    """Write until the disk is full: what is left is less than a record."""
    with file.open("wb", buffering=0) as sink, contextlib.suppress(OSError):
        while sink.write(bytes(4096)):
            pass


def still_scales(installation: Installation, planner: Planner) -> None:
    """Too many workers are asked for; the planner lowers them, and its API lists how."""
    since_s = time.time()
    installation.graph.client.scale(dict.fromkeys(PAIR, 2))
    at_rest(installation, planner)
    reasons = {reason for one in planner.decisions(since_s) for reason in one["reasons"]}
    assert {f"{name}:scale_down" for name in PAIR} <= reasons


def nothing_is_lost(planner: Planner, since_s: float) -> None:
    """Every tick of that time is in the journal once, in order, in whole lines."""
    ticks = [one["at_s"] for one in planner.decisions(since_s)]
    written = [record["decision"]["at_s"] for record in planner.records()]
    assert written == sorted(set(written))
    assert set(ticks[:-1]) <= set(written)
    assert planner.state()["history"]["lost_records"] == 0


def test_full_disk(installation: Installation, planner: Planner, disks: dict[str, Path | None]) -> None:
    disk = disks["journal"]
    if disk is None:
        pytest.skip("mounting a small disk is not allowed here")
    at_rest(installation, planner)
    began_s = time.time()
    filler = disk / "filler"
    fill(filler)
    wait_until(lambda: "No space left" in fault_of(planner, "journal"), "it says so", PATIENCE_S)
    still_scales(installation, planner)
    assert planner.state()["history"]["pending_records"] > 0
    assert gauge(planner, "journal_working") == 0.0
    assert not fault_of(planner, "checkpoint"), "that one is on another disk"

    filler.unlink()
    wait_until(lambda: not fault_of(planner, "journal"), "it writes again", PATIENCE_S)
    assert planner.state()["history"]["pending_records"] == 0
    assert gauge(planner, "journal_working") == 1.0
    nothing_is_lost(planner, began_s)


def test_file_that_may_not_grow(installation: Installation, planner: Planner) -> None:
    at_rest(installation, planner)
    began_s = time.time()
    pid = planner.process.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    # In the middle of a record, so that half of one must be taken back.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (planner.journal.stat().st_size + 5000, hard))
    try:
        wait_until(lambda: "File too large" in fault_of(planner, "journal"), "it says so", PATIENCE_S)
        still_scales(installation, planner)
        assert planner.state()["history"]["pending_records"] > 0
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    wait_until(lambda: not fault_of(planner, "journal"), "it writes again", PATIENCE_S)
    nothing_is_lost(planner, began_s)


def test_checkpoint_folder_read_only(
    installation: Installation, planner: Planner, disks: dict[str, Path | None]
) -> None:
    disk = disks["checkpoint"]
    if disk is None:
        pytest.skip("mounting a small disk is not allowed here")
    at_rest(installation, planner)
    checkpoint = disk / "checkpoint"
    # A checkpoint that is being written keeps the disk from being made read-only for a moment.
    wait_until(lambda: mount("-o", "remount,ro", str(disk)), "the disk is read-only", PATIENCE_S)
    kept = checkpoint.read_bytes()
    try:
        wait_until(lambda: "Read-only file system" in fault_of(planner, "checkpoint"), "it says so", PATIENCE_S)
        still_scales(installation, planner)
        assert checkpoint.read_bytes() == kept, "the last one is whole"
        assert not fault_of(planner, "journal")
    finally:
        assert mount("-o", "remount,rw", str(disk))
    wait_until(lambda: not fault_of(planner, "checkpoint"), "it writes again", PATIENCE_S)
    assert checkpoint.read_bytes() != kept

    def alone() -> bool:
        # The next one may be being written.
        return [file.name for file in disk.iterdir()] == ["checkpoint"]

    wait_until(alone, "and leaves no half of one", PATIENCE_S)
