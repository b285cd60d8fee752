"""An interrupt that Python drops ends the program all the same."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

#: What a deleter raises is printed, and lost.
LOSES = """
import signal, sys, time
sys.unraisablehook = lambda lost: print("lost", lost.exc_type.__name__, flush=True)
{first}
class Deaf:
    def __init__(self, error):
        self.error = error
    def __del__(self):
        if self.error is None:
            signal.raise_signal(signal.SIGINT)
        raise self.error
Deaf(ValueError())
Deaf(None)
time.sleep({sleep_s})
"""

KEEPS = "from profiler.interrupts import keep_interrupts; keep_interrupts()"


def run(first: str, sleep_s: float) -> tuple[int, str]:
    program = [sys.executable, "-c", LOSES.format(first=first, sleep_s=sleep_s)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60.0)
    return done.returncode, done.stdout


def test_python_loses_it() -> None:
    assert run("", 0.5) == (0, "lost ValueError\nlost KeyboardInterrupt\n")


def test_it_is_sent_again_and_nothing_else_is_hidden() -> None:
    assert run(KEEPS, 60.0) == (-signal.SIGINT, "lost ValueError\n")


@pytest.mark.parametrize("command", ["planner", "profiler"])
def test_the_commands_keep_interrupts(command: str) -> None:
    """From before their first import."""
    program = (
        "import sys\n"
        f"import {command}.__main__ as entry\n"
        f"assert '{command}.cli' not in sys.modules\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n    entry.main()\nfinally:\n    print(sys.unraisablehook.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60.0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("profiler.interrupts\n")
