"""Samples on disk: whatever byte a kill comes at, the whole lines before it count and the run goes on."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import InputError
from profiler.job.journal import Journal, StorageError
from profiler.measure import Point, Sample

FINGERPRINT = {"model": {"name": "m"}, "gpu": "h100-sxm", "versions": {"aggregated": "0.26.0"}}
DECODE = Point("decode", (4.0, 1024.0))


def sample(itl_ms: float) -> Sample:
    return Sample(DECODE, {"batch": 4.0, "kv_tokens": 1024.0, "context_tokens": 256.0, "itl_ms": itl_ms}, 0.5)


def written(path: Path) -> bytes:
    journal = Journal(path)
    journal.open(FINGERPRINT)
    journal.started("aggregated", 31.5, {"version": "0.26.0"}, "1.0 of the estimate", ["vllm", "serve"])
    journal.add("aggregated", sample(7.25), "grid", 0.6)
    journal.lose("aggregated", Point("prefill", (128.0, 1.0, 0.0)), "requests were lost", 0.2)
    journal.add("aggregated", sample(7.5), "repeat", 0.7)
    journal.close()
    return path.read_bytes()


def test_everything_comes_back(tmp_path: Path) -> None:
    written(tmp_path / "j")
    journal = Journal(tmp_path / "j")
    history = journal.history("aggregated")
    assert history.samples == [sample(7.25), sample(7.5)]
    assert history.lost == [(Point("prefill", (128.0, 1.0, 0.0)), "requests were lost")]
    assert history.spent_s == pytest.approx(1.5)
    assert history.reasons == {("decode", "grid"): 1, ("decode", "repeat"): 1}
    assert journal.startups_s == {"aggregated": [31.5]}
    assert journal.commands == {"aggregated": ["vllm", "serve"]}
    assert journal.fingerprint == FINGERPRINT


def test_a_kill_at_any_byte_loses_no_whole_line(tmp_path: Path) -> None:
    content = written(tmp_path / "whole")
    for cut in range(len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        before = [s.values["itl_ms"] for s in Journal(path).history("aggregated").samples]
        assert before == ([] if whole < 3 else [7.25] if whole < 5 else [7.25, 7.5]), cut
        if cut % 7:
            continue  # each of these writes waits for the disk
        journal = Journal(path)
        journal.open(FINGERPRINT)
        journal.add("aggregated", sample(9.0), "grid", 0.1)
        journal.close()
        assert [s.values["itl_ms"] for s in Journal(path).history("aggregated").samples] == [*before, 9.0]


def test_a_last_line_of_zeros_is_mended(tmp_path: Path) -> None:
    # What some file systems leave of a line whose blocks were not written before the power went.
    path = tmp_path / "j"
    path.write_bytes(written(tmp_path / "whole") + b"\0" * 300 + b"\n")
    journal = Journal(path)
    assert len(journal.history("aggregated").samples) == 2
    # What is written next is shorter than what was torn, of which nothing may be left behind it.
    journal.open(FINGERPRINT)
    journal.spend("aggregated", 0.5)
    journal.close()
    assert b"\0" not in path.read_bytes()
    assert Journal(path).history("aggregated").spent_s == pytest.approx(2.0)


def test_a_line_in_the_middle_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"hello\n", *lines[2:]]))
    with pytest.raises(InputError, match="line 3"):
        Journal(path)


def test_samples_of_something_else_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "j")
    with pytest.raises(InputError, match=r'field gpu: .*"h100-sxm", and now it is "h200-sxm"'):
        Journal(tmp_path / "j").open(FINGERPRINT | {"gpu": "h200-sxm"})
    assert len(Journal(tmp_path / "j").history("aggregated").samples) == 2


class FullDisk:
    """A file on a disk that has room for a few bytes more."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: bytes) -> None:
        self.file.write(data[:10])
        self.file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_full_disk_is_said_and_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path)
    journal = Journal(path)
    journal.open(FINGERPRINT)
    journal._file = FullDisk(journal._file)  # type: ignore[assignment]
    with pytest.raises(StorageError, match="No space left on device; the 2 samples before are kept"):
        journal.add("aggregated", sample(8.0), "grid", 0.1)
    journal.close()
    assert [s.values["itl_ms"] for s in Journal(path).history("aggregated").samples] == [7.25, 7.5]


def test_values_that_are_not_known_stay_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.open(FINGERPRINT)
    journal.add("decode", Sample(DECODE, {"itl_ms": 1.0, "server_itl_ms": math.nan}, 0.1), "grid", 0.1)
    journal.close()
    assert math.isnan(Journal(tmp_path / "j").history("decode").samples[0].values["server_itl_ms"])
