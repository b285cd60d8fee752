from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from planner.whatif.traces import collect, open_trace, summarize
from planner.whatif.traces.readers import source
from planner.whatif.traces.readers.source import MAX_LINE_BYTES
from profiler.errors import InputError

PLAIN = "arrival_s,isl,osl\n0.5,10,20\n0.5,11,21\n2.25,12,22\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:46.6805901,396,109"
)


def request(timestamp: object = 0, isl: object = 1100, osl: object = 5, hash_ids: object = (0, 1, 2)) -> str:
    if isinstance(hash_ids, tuple):
        hash_ids = list(hash_ids)
    return json.dumps({"timestamp": timestamp, "input_length": isl, "output_length": osl, "hash_ids": hash_ids})


def write(folder: Path, content: str | bytes, name: str = "trace.dat") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def failure(folder: Path, content: str | bytes) -> InputError:
    path = write(folder, content)
    with pytest.raises(InputError) as caught:
        collect(open_trace(path))
    assert caught.value.source == str(path)
    return caught.value


def test_plain_is_rebased_and_typed(tmp_path: Path) -> None:
    got = collect(open_trace(write(tmp_path, PLAIN)))
    assert got.arrival_s.tolist() == [0.0, 0.0, 1.75]
    assert got.isl.tolist() == [10, 11, 12]
    assert got.osl.tolist() == [20, 21, 22]
    assert got.prefix_hit_tokens.tolist() == [0, 0, 0]
    assert [a.dtype for a in (got.arrival_s, got.isl, got.osl, got.prefix_hit_tokens)] == [
        np.float64,
        np.int32,
        np.int32,
        np.int32,
    ]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN + "\n\n",
        "\n" + PLAIN.replace("\n", "\n\n"),
        PLAIN.rstrip("\n"),
        "note,osl,arrival_s,isl\nx,20,0.5,10\n,21,0.5,11\n\u00e9,22,2.25,12\n",
        '"arrival_s","isl","osl"\n"0.5","10","20"\n0.5,11.0,21\n2.25, 12 ,22\n',
        gzip.compress(PLAIN.encode(), mtime=0),
    ],
    ids=["crlf", "bom", "blank end", "blank lines", "no newline", "other columns", "quotes", "gzip"],
)
def test_plain_variants_read_the_same(tmp_path: Path, content: str | bytes) -> None:
    got = collect(open_trace(write(tmp_path, content)))
    assert got.arrival_s.tolist() == [0.0, 0.0, 1.75]
    assert got.isl.tolist() == [10, 11, 12]
    assert got.osl.tolist() == [20, 21, 22]


def test_recorded_hits_are_kept_unless_the_cache_is_off(tmp_path: Path) -> None:
    path = write(tmp_path, "arrival_s,isl,osl,prefix_hit_tokens\n0,10,1,9\n1,10,1,0\n")
    assert collect(open_trace(path)).prefix_hit_tokens.tolist() == [9, 0]
    assert collect(open_trace(path, prefix_cache_tokens=4)).prefix_hit_tokens.tolist() == [9, 0]
    assert collect(open_trace(path, prefix_cache_tokens=0)).prefix_hit_tokens.tolist() == [0, 0]


def test_azure_keeps_seven_digits(tmp_path: Path) -> None:
    got = collect(open_trace(write(tmp_path, AZURE)))
    assert got.arrival_s.tolist() == [0.0, 1e-7]
    assert got.isl.tolist() == [374, 396]


def test_azure_of_whole_seconds_far_away_is_refused(tmp_path: Path) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    error = failure(tmp_path, head + "2023-11-16 18:15:45,1,1\n9999-11-16 18:15:45,1,1\n")
    assert (error.line, error.field) == (3, "TIMESTAMP")


def test_azure_with_an_offset(tmp_path: Path) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    content = head + "2024-05-10 00:00:00+00:00,1,2\n2024-05-10 02:00:01.5+02:00,1,2\n"
    assert collect(open_trace(write(tmp_path, content))).arrival_s.tolist() == [0.0, 1.5]


def test_mooncake_prefix_cache(tmp_path: Path) -> None:
    lines = [
        request(1000, 1536, 5, (0, 1, 2)),
        request(1000, 1400, 5, (0, 1, 3)),  # two blocks shared
        request(4000, 1024, 5, (0, 1)),  # all of it: all but the last token
        request(5000, 600, 5, (9, 1)),  # only leading blocks count
    ]
    path = write(tmp_path, "\n".join(lines))
    unlimited = collect(open_trace(path))
    assert unlimited.arrival_s.tolist() == [0.0, 0.0, 3.0, 4.0]
    assert unlimited.prefix_hit_tokens.tolist() == [0, 1024, 1023, 0]
    assert collect(open_trace(path, prefix_cache_tokens=0)).prefix_hit_tokens.tolist() == [0, 0, 0, 0]
    # Two blocks fit: the heads of the prompts stay, their tails are evicted first.
    assert collect(open_trace(path, prefix_cache_tokens=1024)).prefix_hit_tokens.tolist() == [
        0,
        1024,
        1023,
        0,
    ]


def test_mooncake_cache_evicts_the_least_recent(tmp_path: Path) -> None:
    prompts = [(0,), (1,), (0,), (2,), (1,), (0,)]
    path = write(tmp_path, "\n".join(request(i, 513, 1, ids) for i, ids in enumerate(prompts)))
    hits = collect(open_trace(path, prefix_cache_tokens=1024)).prefix_hit_tokens
    # (2,) evicts 1, not 0, which was used since; then (1,) evicts 0.
    assert hits.tolist() == [0, 0, 512, 0, 0, 0]


def test_a_negative_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 0"):
        open_trace(write(tmp_path, PLAIN), prefix_cache_tokens=-1)


HEAD = "arrival_s,isl,osl\n0,1,1\n"
HIT = "arrival_s,isl,osl,prefix_hit_tokens\n0,10,1,0\n"
STAMP = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
FIRST = request() + "\n"

BAD = [
    ("", None, None, "the file is empty"),
    ("\n\n", None, None, "the file is empty"),
    ("arrival_s,isl,osl\n", 1, None, "no requests"),
    ("a,b,c\n1,2,3\n", 1, None, "no known trace format begins with 'a,b,c'"),
    ("arrival_s,osl\n0,1\n", 1, "isl", "no such column"),
    ("TIMESTAMP,ContextTokens\n0,1\n", 1, "GeneratedTokens", "no such column"),
    ("arrival_s,isl,osl,isl\n0,1,1,1\n", 1, "isl", "twice"),
    (HEAD + "1,x,1\n", 3, "isl", "found 'x'"),
    (HEAD + "1,1,\n", 3, "osl", "the cell is empty"),
    (HEAD + "1,NaN,1\n", 3, "isl", "found 'NaN'"),
    (HEAD + "inf,1,1\n", 3, "arrival_s", "found 'inf'"),
    (HEAD + "1,1e999,1\n", 3, "isl", "found '1e999'"),
    (HEAD + "1,0,1\n", 3, "isl", "found 0"),
    (HEAD + "1,1,-7\n", 3, "osl", "found -7"),
    (HEAD + "1,1,2.5\n", 3, "osl", "found 2.5"),
    (HEAD + "1,10000001,1\n", 3, "isl", "found 10000001"),
    (HEAD + "1,1\n", 3, None, "2 cells"),
    (HEAD + "1,1,1,1\n", 3, None, "4 cells"),
    (HEAD + "1,1,1\n\n0.5,1,1\n", 5, "arrival_s", "earlier than the line before"),
    (HEAD + "-1,1,1\n", 3, "arrival_s", "found -1"),
    (HEAD + "1e12,1,1\n", 3, "arrival_s", "more than ten years"),
    (HEAD + "2,1,1\n1,1,1\n3,x,1\n", 4, "arrival_s", "earlier"),
    (HEAD + '"1,1,1\n2,1,1\n3,1,1"\n', 3, "arrival_s", ""),
    (HEAD + "1,1,1\r2,1,1\n", 3, None, ""),
    (HIT + "1,10,1,10\n", 3, "prefix_hit_tokens", "found 10"),
    (HIT + "1,10,1,-1\n", 3, "prefix_hit_tokens", "found -1"),
    (STAMP + "2023-13-16 18:15:46.68,1,1\n", 3, "TIMESTAMP", "found '2023-13-16 18:15:46.68'"),
    (STAMP + "2023-11-17,1,1\n", 3, "TIMESTAMP", "found '2023-11-17'"),
    (STAMP + "NaT,1,1\n", 3, "TIMESTAMP", "found 'NaT'"),
    (STAMP + "2023-11-16 18:15:45,1,1\n", 3, "TIMESTAMP", "earlier"),
    (STAMP + "9999-11-16 18:15:45,1,1\n", 3, "TIMESTAMP", ""),
    (FIRST + '{"timestamp": 1, "input_le', 2, None, "malformed JSON"),
    (FIRST + "[1]\n", 2, None, "found '[1]'"),
    (FIRST + "{}\n", 2, "timestamp", "is missing"),
    (FIRST + request(True), 2, "timestamp", "found 'true'"),
    (FIRST + request("1"), 2, "timestamp", "found '\"1\"'"),
    (FIRST + request(float("nan")), 2, "timestamp", "NaN"),
    (FIRST + request(-1), 2, "timestamp", "found '-1'"),
    (FIRST + request(1, 0), 2, "input_length", "found '0'"),
    (FIRST + request(1, 5.5), 2, "input_length", "found '5.5'"),
    (FIRST + request(1, 5, None), 2, "output_length", "found 'null'"),
    (FIRST + request(1, 5, 10**7 + 1), 2, "output_length", "found"),
    (FIRST + request(1, 5, 5, "x"), 2, "hash_ids", "found"),
    (FIRST + request(1, 5, 5, [1, "x"]), 2, "hash_ids", "in the list"),
    (request(5) + "\n" + request(4) + "\n{", 2, "timestamp", "earlier"),
    (FIRST + "[" * 100_000, 2, None, "malformed JSON"),
    (FIRST + '{"timestamp": ' + "9" * 5000, 2, None, "malformed JSON"),
    (HEAD.encode() + b"1,\xff,1\n", 3, None, "0xff is not UTF-8"),
    (HEAD.encode() + b"1,1\0,1\n", 3, None, "NUL"),
    (PLAIN.encode("utf-16"), 1, None, ""),
    (gzip.compress(PLAIN.encode(), mtime=0)[:-12], None, None, "damaged gzip"),
    (gzip.compress(PLAIN.encode(), mtime=0) + b"junk", None, None, "damaged gzip"),
    (b"\x1f\x8b\x08" + bytes(range(256)), None, None, "damaged gzip"),
    (bytes(range(1, 256)), None, None, ""),
    (HEAD + "1,1," + "1" * (MAX_LINE_BYTES + 1), 3, None, "line"),
    (HEAD + "1," + "1" * (MAX_LINE_BYTES * 9) + ",1\n", 3, None, "line"),
]


@pytest.mark.parametrize(("content", "line", "field", "says"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input_names_line_field_and_value(
    tmp_path: Path, content: str | bytes, line: int | None, field: str | None, says: str
) -> None:
    error = failure(tmp_path, content)
    if line is not None:
        assert error.line == line
    assert error.field == field
    assert says in error.problem
    assert error.expected
    assert len(str(error)) < 600


def test_a_bad_line_far_into_the_file_is_found(tmp_path: Path) -> None:
    lines = ["arrival_s,isl,osl", *(f"{i / 100},100,{i % 50 + 1}" for i in range(200_000))]
    lines[150_000] = "1500,abc,1"
    error = failure(tmp_path, "\n".join(lines))
    assert (error.line, error.field) == (150_001, "isl")


@pytest.mark.parametrize("block_bytes", range(1, 80, 3))
def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(source, "BLOCK_BYTES", block_bytes)
    good = "arrival_s,isl,osl\n" + "".join(f"{i},{i + 1},1\n" for i in range(10))
    assert collect(open_trace(write(tmp_path, good))).isl.tolist() == list(range(1, 11))
    error = failure(tmp_path, good + "8.5,1,1\n10,1,1\n")
    assert (error.line, error.field) == (12, "arrival_s")


def test_unknown_header_lists_what_is_accepted(tmp_path: Path) -> None:
    expected = failure(tmp_path, "time,in,out\n1,2,3\n").expected
    assert all(word in expected for word in ("arrival_s,isl,osl", "TIMESTAMP", "Mooncake"))


@pytest.mark.parametrize("path", ["nowhere.csv", ".", "/dev/zero", "nul\0.csv"])
def test_what_is_not_a_file(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError):
        open_trace(tmp_path / path)


def test_chunks_restart(tmp_path: Path) -> None:
    trace = open_trace(write(tmp_path, "arrival_s,isl,osl\n" + "".join(f"{i},{i + 1},1\n" for i in range(70_000))))
    first = trace.chunks()
    assert len(next(first)) == 65_536
    assert summarize(trace).requests == 70_000
    assert len(next(first)) == 70_000 - 65_536
