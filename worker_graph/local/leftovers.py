"""What a supervisor that was killed left running: noted while it runs, ended before the next start."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from profiler.atomic import write_atomic
from worker_graph.local.process import kill_session

_FILE = "processes.json"


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
        say(f"ended {len(left)} processes that an earlier run had left")
    return len(left)


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None where there is no such process (or no /proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold anything; the start time is the 22nd.
    return int(stat.rsplit(")", 1)[1].split()[19])
