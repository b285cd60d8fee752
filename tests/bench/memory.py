"""Peak memory of a replay against the length of the trace: `python -m tests.bench.memory`. One process per length."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

from planner.whatif.policies import make_policy
from planner.whatif.replay import replay
from tests.bench.common import conversation, setting_for


def one(hours: int, spec: str) -> None:
    setting = setting_for(conversation(3600 * hours))
    outcome = replay(setting, make_policy(spec, setting), spec)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    print(json.dumps({"requests": outcome.requests, "mib": peak}))


def main() -> None:
    base = None
    for hours in (1, 4, 16):
        command = [sys.executable, "-m", "tests.bench.memory", str(hours), "static:4p4d"]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        got = json.loads(line)
        base = base or got["mib"]
        print(f"{got['requests']:>10,} requests: peak {got['mib']:.0f} MiB, {got['mib'] / base:.2f} of the shortest")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        one(int(sys.argv[1]), sys.argv[2])
    else:
        main()
