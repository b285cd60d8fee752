"""The command line in this process: the program's name and its arguments go in, exit code and both streams come out."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from planner.cli import main
from profiler import console

PROFILES = Path(__file__).parents[3] / "profiling_results" / "llama-3.1-8b-instruct-fp8"
SHIPPED = PROFILES / "h200-sxm" / "vllm-unknown"

#: About 240 requests in a minute; one prefill and one decode worker keep them within 200 ms and 10 ms.
TRACE = "generate:conversation,rps=4,duration_s=60,seed=3"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON; nothing else may be in it."""
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `planner ARGUMENTS`."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["planner", *map(str, arguments)])
        # Messages are compared as they are, not as a narrow terminal would break them.
        for stream in (console.stdout, console.stderr):
            monkeypatch.setattr(stream, "width", 200)
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def whatif(command: Command) -> Command:
    """Runs `planner whatif` on the shipped profile and a small trace; arguments that are given again count."""

    def run(*arguments: object, trace: object = TRACE, profile: object = PROFILES) -> Ended:
        base = ["--trace", trace, "--profile", profile, "--max-gpus", 8, "--jobs", 1, "--ttft-ms", 200, "--itl-ms", 10]
        return command("whatif", *base, *arguments)

    return run


def refused(ended: Ended, *words: str) -> None:
    """Exit code 2, nothing on standard output, and the words in what is said."""
    assert ended.code == 2, ended
    assert ended.out == ""
    for word in words:
        assert word in ended.err, ended.err


@pytest.fixture(scope="session")
def journal_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The journal of a small replay; records are far apart in load, so that the plan changes."""
    folder = tmp_path_factory.mktemp("journal")
    with pytest.MonkeyPatch.context() as patch:
        trace = "generate:step,rps=8,duration_s=120,step_at_s=40,step_factor=8,seed=5"
        words = ["--trace", trace, "--profile", PROFILES, "--ttft-ms", 200, "--itl-ms", 10, "--max-gpus", 10]
        words += ["--policy", "planner:interval_s=10", "--journal", folder / "j.jsonl", "--output", "json"]
        patch.setattr(sys, "argv", ["planner", "whatif", *map(str, words)])
        with pytest.raises(SystemExit):
            main()
    return (folder / "j.jsonl").read_text(encoding="utf-8")


@pytest.fixture
def journal(journal_text: str, tmp_path: Path) -> Path:
    """The journal as a file of the test's own."""
    path = tmp_path / "journal.jsonl"
    path.write_text(journal_text, encoding="utf-8")
    return path
