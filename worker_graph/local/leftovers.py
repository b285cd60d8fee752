"""What a supervisor that was killed left running: noted while it runs, ended before the next start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from profiler.atomic import write_atomic
from worker_graph.local.process import kill_session

_FILE = "processes.json"

#: Seconds that a killed session gets to be gone: one with gigabytes of memory takes a while to give them back.
_GONE_S = 10.0


def write(run_dir: Path, pids: Iterable[int]) -> None:
    """Note the sessions that run. A process id alone may be given again; its start time tells."""
    noted = [{"pid": pid, "started": _started(pid)} for pid in pids]
    write_atomic(run_dir / _FILE, json.dumps(noted))


def end(run_dir: Path, say: Callable[[str], None]) -> int:
    """End what is noted and still runs; returns how many sessions that were."""
    try:
        noted = json.loads((run_dir / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    except ValueError as error:
        say(f"{run_dir / _FILE} cannot be read ({error}); what an earlier run left may still be running")
        return 0
    left = [one["pid"] for one in noted if one["started"] is not None and _started(one["pid"]) == one["started"]]
    for pid in left:
        kill_session(pid)
    if left:
        # A process that dies still holds its ports and its memory, and the next graph asks for the same ones.
        end_s = time.monotonic() + _GONE_S
        while (running := _running_in(set(left))) and time.monotonic() < end_s:
            time.sleep(0.02)
        say(f"ended {len(left)} processes that an earlier run had left")
        if running:
            say(f"of these, {', '.join(map(str, sorted(running)))} still run {_GONE_S:g} s after SIGKILL")
    return len(left)


def _running_in(sessions: set[int]) -> set[int]:
    """Those of these sessions in which a process runs."""
    found = set[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        # One that only waits to be collected holds nothing any more, unless other threads than its first live on.
        if fields is not None and (fields[0] != "Z" or int(fields[17]) > 1):
            found.add(int(fields[3]))
    return found & sessions


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None where there is no such process (or no /proc)."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """What the kernel says of a process, from its state on (the third field, as the manual counts them)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold anything.
    return stat.rsplit(")", 1)[1].split()
