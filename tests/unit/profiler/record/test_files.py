import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputError
from profiler.load import Outcome, Result
from profiler.record import Client, RunMeta, Worker, find_runs, read_recording, write_recording

META = RunMeta(
    name="low",
    mode="disaggregated",
    model="m",
    gpu="h100-sxm",
    served_model="m",
    workers=(Worker(role="prefill", tp=1), Worker(role="decode", tp=2, kv_capacity_tokens=1000)),
    schedule={"kind": "poisson"},
    prompt_seed=3,
    date=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    command="profiler record",
    versions={"python": "3.11"},
    duration_s=10.0,
    rate_rps=2.0,
    outcomes={"completed": 2, "timeout": 1},
    client=Client(cpu_share=0.1, late_p50_ms=0.1, late_p99_ms=1.0, late_max_ms=2.0),
)
RESULTS = [
    Result(0.0, 10, 3, Outcome.COMPLETED, 50.0, 5.0, 60.0, late_ms=700.0, prefill_ms=40.0),
    Result(0.5, 20, 1, Outcome.COMPLETED, 55.0, None, 55.0),
    Result(1.0, 30, 2, Outcome.TIMEOUT, None, None, 600.0),
]


def test_a_run_comes_back_as_it_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "low.csv"
    write_recording(path, META, RESULTS)
    back = read_recording(path)
    assert back.meta == META
    # The first was sent late, after the second.
    np.testing.assert_allclose(back.sent_s, [0.5, 0.7, 1.0])
    assert back.isl.tolist() == [20, 10, 30]
    assert back.completed.tolist() == [True, True, False]
    np.testing.assert_allclose(back.ttft_ms, [55.0, 50.0, np.nan])
    np.testing.assert_allclose(back.itl_ms, [np.nan, 5.0, np.nan])
    np.testing.assert_allclose(back.prefill_ms, [np.nan, 40.0, np.nan])
    assert [worker.tp for worker in back.meta.of("decode")] == [2]


def test_runs_are_csv_files_with_a_json(tmp_path: Path) -> None:
    write_recording(tmp_path / "a" / "low.csv", META, RESULTS)
    (tmp_path / "a" / "other.csv").write_text("x\n1\n")
    write_recording(tmp_path / "a" / "profiles" / "b" / "low.csv", META, RESULTS)
    assert find_runs(tmp_path) == [tmp_path / "a" / "low.csv"]
    assert find_runs(tmp_path, below=False) == []
    # Only names below the folder count.
    assert find_runs(tmp_path / "a" / "profiles") == [tmp_path / "a" / "profiles" / "b" / "low.csv"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.500000,20", "0.500000,x", "line 3, field isl"),
        ("0.500000,20", "0.500000,0", "line 3, field isl"),
        ("completed,55.000", "complete,55.000", "line 3"),
        ("completed,55.000", "completed,", "line 3, field ttft_ms"),
        ("outcome", "outcomes", "field outcome: missing"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "low.csv"
    write_recording(path, META, RESULTS)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        read_recording(path)


def test_a_run_needs_both_files(tmp_path: Path) -> None:
    path = tmp_path / "low.csv"
    write_recording(path, META, RESULTS)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_recording(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_recording(path)
