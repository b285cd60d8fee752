"""What holds for every test."""

import os
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

# Time is no matter of correctness, and machines that run tests are busy.
hypothesis.settings.register_profile("plimsoll", deadline=None)
hypothesis.settings.load_profile("plimsoll")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With PLIMSOLL_NO_SKIPS set, what would be skipped for want of a program fails: a skipped check proves nothing."""
    report = yield
    if report.skipped and os.environ.get("PLIMSOLL_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"PLIMSOLL_NO_SKIPS is set, and this was skipped: {report.longrepr}"
    return report
