"""Whatever is wrong is said in one line on standard error, with exit code 2 and nothing written."""

import gzip
import os
import shutil
from pathlib import Path

import pytest

from tests.unit.cli.conftest import PROFILES, SHIPPED, TRACE, Command, refused

NUMBERS = ("nan", "inf", "-inf", "-1", "0", "some", "", "1e400")
#: What of these each flag takes.
GOOD = {"--startup-s": {"0"}, "--seed": {"0"}, "--prefix-cache-tokens": {"0"}}


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    "flag",
    ["--ttft-ms", "--itl-ms", "--attainment", "--rate-scale", "--time-scale", "--startup-s", "--max-gpus", "--seed",
     "--jobs", "--prefix-cache-tokens"],
)  # fmt: skip
def test_nonsense_numbers(whatif: Command, flag: str, value: str) -> None:
    if value in GOOD.get(flag, ()):
        return
    refused(whatif("--policy", "static:1p1d", f"{flag}={value}"), flag.strip("-").replace("-", "_").split("_")[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attainment", "1.01"], "a share above 0 and up to 1"),
        (["--attainment", "95"], "a share above 0 and up to 1"),
        (["--rate-scale", "1001"], "at most 1000"),
        (["--time-scale", "1e9"], "time scale"),
        (["--startup-s", "1e9"], "from 0 to 86400 seconds"),
        (["--max-gpus", "2.5"], "--max-gpus"),
        (["--max-gpus", "9" * 30], "at most 1000000"),
        (["--max-gpus", "1", "--policy", "static:1p1d"], "--start"),
        (["--output", "yaml"], "--output"),
        (["--routing", "random"], "--routing"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--polcy", "planner"], "--polcy"),
        (["surplus"], "surplus"),
        (["--start", "1a1d"], "'1a1d' is not a layout of this graph"),
        (["--start", ""], "--start"),
        (["--start", "banana"], "such as 2a"),
        (["--start", "5p4d"], "5p4d takes 9 GPUs; expected at most 8 (--max-gpus)"),
        (["--start", "9a"], "9a takes 9 GPUs"),
        (["--policy", "plannr"], "planner | static | hpa | dynamo-classic | clairvoyant"),
        (["--policy", ""], "unknown policy ''"),
        (["--policy", "static"], "such as 3p4d"),
        (["--policy", "static:"], "such as 3p4d"),
        (["--policy", "static:2a"], "'2a' is not a layout of this graph"),
        (["--policy", "static:-1p1d"], "such as 3p4d"),
        (["--policy", "static:1p1d.."], "such as 3p4d"),
        (["--policy", "static:8p1d"], "takes 9 GPUs"),
        (["--policy", "static:1p1d..8p8d"], "takes 9 GPUs"),
        (["--policy", "static:2p2d..1p3d"], "runs backwards"),
        (["--policy", "static:1p1d..9999p9999d"], "99,980,001 layouts"),
        (["--policy", "static:1p1d..2a"], "'2a' is not a layout of this graph"),
        (["--policy", "planner:confidence"], "confidence has no value"),
        (["--policy", "planner:confidence=0.2"], "from 0.5 to below 1"),
        (["--policy", "planner:confidence=1"], "from 0.5 to below 1"),
        (["--policy", "planner:confidence=nan"], "a number, confidence=NUMBER"),
        (["--policy", "planner:interval_s=0"], "expected greater than 0"),
        (["--policy", "planner:surge.most=0.5"], "surge.most is 0.5"),
        (["--policy", "planner:forecast.history_bins=20.5"], "forecast.history_bins is 20.5"),
        (["--policy", "planner:max_gpus=99"], "unknown option 'max_gpus=99'"),
        (["--policy", "planner:surge=1"], "unknown option 'surge=1'"),
        (["--policy", "planner:without=sense"], "without=lead-time | "),
        (["--policy", "planner:without"], "without=lead-time | "),
        (["--policy", "planner:interval_s=1e-9"], "from 0.1 to 86400 seconds"),
        (["--policy", "planner:interval_s=1e300"], "from 0.1 to 86400 seconds"),
        (["--policy", "planner:lead_time_s=1e9"], "from 0 to 86400 seconds"),
        (["--policy", "planner:lead_time_s=86400,interval_s=1"], "at most 10,000"),
        (["--policy", "planner:speed=9"], "unknown option 'speed=9'"),
        (["--policy", "planner:capacity=oracle"], "closed-form | simulator"),
        (["--policy", "planner:capacity"], "closed-form | simulator"),
        (["--policy", "clairvoyant:x"], "expected no options"),
        (["--start", "1a", "--policy", "static:1p1d"], "such as 2a"),
        (["--start", "1a", "--policy", "dynamo-classic"], "does not apply to an aggregated graph"),
    ],
)
def test_wrong_usage(whatif: Command, words: list[str], said: str) -> None:
    refused(whatif(*words), said)


def test_every_flag_that_must_be_given(command: Command) -> None:
    every = {"--trace": TRACE, "--profile": PROFILES, "--ttft-ms": 200, "--itl-ms": 10}
    for missing in every:
        words = [word for flag, value in every.items() if flag != missing for word in (flag, value)]
        refused(command("whatif", *words), missing)
    assert command().code == 2
    assert command("--help").code == command("whatif", "--help").code == 0
    refused(command("replan"), "replan")


# -- profiles ----------------------------------------------------------------------------------------------------------


def test_folders_without_the_profiles(whatif: Command, tmp_path: Path) -> None:
    refused(whatif(profile=tmp_path / "none"), "--profile", "holds no profile")
    refused(whatif(profile=tmp_path), "--profile", "holds no profile", str(tmp_path))
    refused(whatif(profile=tmp_path / ("x" * 300)), "--profile")
    file = tmp_path / "file"
    file.write_text("x")
    refused(whatif(profile=file), "--profile")


def test_a_role_without_a_profile_or_with_two(whatif: Command, tmp_path: Path) -> None:
    for role, missing in (("prefill", "decode"), ("decode", "prefill")):
        refused(whatif(profile=SHIPPED / f"{role}-tp1-dp1"), f"no {missing} profile among those given")
        refused(whatif("--start", "1a", profile=SHIPPED / f"{role}-tp1-dp1"), "the aggregated graph is not described")
    shutil.copytree(SHIPPED / "prefill-tp1-dp1", tmp_path / "another")
    refused(whatif("--profile", tmp_path), "2 prefill layouts", "one per role", str(tmp_path / "another"))


def test_a_profile_that_is_damaged(whatif: Command, tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    shutil.copytree(SHIPPED, folder)
    meta = folder / "prefill-tp1-dp1" / "profile.json"
    good = meta.read_text()
    for text, said in (("{", "not JSON"), ("{}", "missing"), (good.replace('"tp"', '"tq"'), "field tp: missing")):
        meta.write_text(text)
        refused(whatif(profile=folder), str(meta), said)
    meta.write_text(good)
    (folder / "prefill-tp1-dp1" / "prefill.csv").write_bytes(b"\x00\xff" * 50)
    refused(whatif(profile=folder), "prefill.csv")


# -- traces ------------------------------------------------------------------------------------------------------------

HEADER = "arrival_s,isl,osl\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "t.csv"),
        (b"\n\n", "t.csv"),
        (bytes(range(128, 256)) + b"\xff\xfe\x00", "t.csv"),
        (HEADER.encode(), "t.csv"),
        (b"a,b,c\n1,2,3\n", "t.csv"),
        ((HEADER + "0,10,10\n1,ten,10\n").encode(), "t.csv, line 3, field isl"),
        ((HEADER + "0,10,10\n1,10\n").encode(), "t.csv, line 3"),
        ((HEADER + "0,10,10\n1,10,0\n").encode(), "t.csv, line 3, field osl"),
        ((HEADER + "0,10,10\n1,-5,10\n").encode(), "t.csv, line 3, field isl"),
        ((HEADER + "0,10,10\nnan,10,10\n").encode(), "t.csv, line 3, field arrival_s"),
        ((HEADER + "5,10,10\n1,10,10\n").encode(), "t.csv, line 3, field arrival_s"),
        (b'{"timestamp": 0, "input_length": "x", "output_length": 1, "hash_ids": []}\n', "t.csv, line 1"),
        (gzip.compress((HEADER + "0,10,10\n" * 5000).encode(), mtime=0)[:-30], "t.csv"),
        (b"\x1f\x8b\x08", "t.csv"),
    ],
)  # fmt: skip
def test_malformed_traces(whatif: Command, tmp_path: Path, content: bytes, said: str) -> None:
    trace = tmp_path / "t.csv"
    trace.write_bytes(content)
    refused(whatif("--policy", "static:1p1d", trace=trace), said)


def test_traces_that_are_not_there(whatif: Command, tmp_path: Path) -> None:
    refused(whatif(trace=tmp_path / "none.csv"), "none.csv")
    refused(whatif(trace=tmp_path), str(tmp_path))
    refused(whatif(trace=tmp_path / ("x" * 300)), "xxx")
    refused(whatif(trace="generate:conversatoin"), "did you mean conversation?")
    refused(whatif(trace="generate:conversation,rps=nan"), "rps")
    refused(whatif(trace=""))


def test_a_trace_without_requests_has_no_answer(whatif: Command) -> None:
    refused(whatif(trace="generate:conversation,rps=0.001,duration_s=1"), "--trace", "holds no request")
    refused(whatif("--rate-scale", "1e-9"), "--trace", "holds no request")


# -- files to write ----------------------------------------------------------------------------------------------------

OUTPUTS = ("--report", "--requests-out", "--journal")


@pytest.mark.parametrize("flag", OUTPUTS)
def test_files_that_cannot_be_written_are_found_before_the_work(whatif: Command, tmp_path: Path, flag: str) -> None:
    file = tmp_path / "file"
    file.write_text("here before")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for wrong, said in (
        (tmp_path / "none" / "x", "cannot be written"),
        (file / "x", "cannot be written"),
        (tmp_path, "is a folder"),
        (tmp_path / ("x" * 255), "cannot be written"),
        (tmp_path / ("x" * 300), "cannot be written"),
        (pipe, "is a device or pipe"),
    ):
        # The trace is wrong, too; it is not even opened.
        refused(whatif("--policy", "planner", flag, wrong, trace="none"), flag, said)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "pipe"]
    assert file.read_text() == "here before"
    assert pipe.is_fifo()


def test_no_output_is_an_input_or_another_output(whatif: Command, tmp_path: Path) -> None:
    trace, config, out = tmp_path / "t.csv", tmp_path / "c.yaml", tmp_path / "out"
    trace.write_text(HEADER + "0,10,10\n")
    config.write_text("interval_s: 20\n")
    for flag in OUTPUTS:
        for file, whose in ((trace, "--trace"), (tmp_path / "." / "c.yaml", "--config")):
            words = ("--policy", "planner", "--config", config, flag, file)
            refused(whatif(*words, trace=trace), f"field {flag}: is the file of {whose}, too")
    refused(whatif("--policy", "planner", "--report", out, "--journal", out), "--journal", "the file of --report")
    assert trace.read_text() == HEADER + "0,10,10\n"
    assert config.read_text() == "interval_s: 20\n"


def test_a_journal_needs_the_planner(whatif: Command, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    refused(whatif("--policy", "static:1p1d", "--policy", "hpa", "--journal", journal), "--journal", "--policy planner")


def test_an_error_leaves_nothing_behind(whatif: Command, tmp_path: Path) -> None:
    outputs = [word for flag in OUTPUTS for word in (flag, tmp_path / flag.strip("-"))]
    trace = tmp_path / "t.csv"
    trace.write_text(HEADER + "0,10,10\n" * 3 + "bad\n")
    refused(whatif("--policy", "planner", *outputs, trace=trace), "line 5")
    refused(whatif("--policy", "planner:speed=9", *outputs))
    refused(whatif("--policy", "planner", "--start", "9p9d", *outputs))
    refused(whatif("--policy", "planner", "--policy", "hpa", *outputs), "--requests-out")
    assert [f.name for f in tmp_path.iterdir()] == ["t.csv"]


def test_a_folder_that_goes_away_during_the_work(
    whatif: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    for flag in OUTPUTS:
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr("planner.whatif.run.warm_up", lambda setting: folder.rmdir())  # noqa: ARG005
            refused(whatif("--policy", "planner", flag, folder / "x"), flag, "cannot be written")
        assert not folder.exists()
