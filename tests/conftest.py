"""What holds for every test."""

import os
import signal
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

# A run in the background ignores SIGINT, one under nohup SIGHUP, and would hand that down to the programs whose Ctrl-C
# and closed terminals are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Time is no matter of correctness, and machines that run tests are busy.
hypothesis.settings.register_profile("plimsoll", deadline=None)
hypothesis.settings.load_profile("plimsoll")


#: Reasons that lie in the machine and not in what is installed on it; such a skip stays one.
MACHINE = ("too busy", "not allowed here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With PLIMSOLL_NO_SKIPS set, what would be skipped for want of a program fails: a skipped check proves nothing."""
    report = yield
    strict = os.environ.get("PLIMSOLL_NO_SKIPS") and not hasattr(report, "wasxfail")
    if report.skipped and strict and not any(reason in str(report.longrepr) for reason in MACHINE):
        report.outcome = "failed"
        report.longrepr = f"PLIMSOLL_NO_SKIPS is set, and this was skipped: {report.longrepr}"
    return report
