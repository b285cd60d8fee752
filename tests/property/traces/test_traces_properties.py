from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.whatif.traces import Trace, TraceChunk, collect, open_trace, scaled, summarize
from planner.whatif.traces.readers.base import MAX_LENGTH_TOKENS
from profiler.errors import InputError

PLAIN = b"arrival_s,isl,osl,prefix_hit_tokens\n0,10,5,0\n0.25,300,5,299\n1e1,7,90,3\n12.5,7,90,6\n"
AZURE = (
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    b"2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:51.2224670,879,55"
)
MOONCAKE = b"\n".join(
    json.dumps({"timestamp": t, "input_length": n, "output_length": 9, "hash_ids": ids}).encode()
    for t, n, ids in ((0, 700, [0, 1]), (0, 1024, [0, 2]), (3000, 5, []), (3001, 1100, [0, 1, 3]))
)
EXAMPLES = st.sampled_from([PLAIN, AZURE, MOONCAKE])
MANY = settings(max_examples=300, deadline=None)


def read(content: bytes) -> None:
    """Reads a file of any content: it must be refused in our own words, or be a trace."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        path.write_bytes(content)
        try:
            got = collect(open_trace(path))
        except InputError as error:
            assert error.source == str(path)  # noqa: PT017
            return
        valid(got)
        assert got.arrival_s[0] == 0


def valid(got: TraceChunk) -> None:
    assert len(got) > 0
    assert np.isfinite(got.arrival_s).all()
    assert np.all(np.diff(got.arrival_s) >= 0)
    assert got.arrival_s[0] >= 0
    for tokens in (got.isl, got.osl):
        assert tokens.min() >= 1
        assert tokens.max() <= MAX_LENGTH_TOKENS
    assert np.all((got.prefix_hit_tokens >= 0) & (got.prefix_hit_tokens < got.isl))


@MANY
@given(st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    read(content)


@MANY
@given(EXAMPLES, st.binary(max_size=200))
def test_any_bytes_after_a_valid_beginning(example: bytes, content: bytes) -> None:
    read(example.split(b"\n")[0] + b"\n" + content)


@MANY
@given(st.data(), EXAMPLES, st.booleans())
def test_mutated_files(data: st.DataObject, example: bytes, packed: bool) -> None:
    content = bytearray(gzip.compress(example, mtime=0) if packed else example)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 8)))
        content[start:end] = data.draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b"\n", b",", b'"', b"-", b"e9", b"NaN", b"inf", b"\r", b"\0", b"{", b"[", b"999999"]),
            )
        )
    read(bytes(content))


@MANY
@given(EXAMPLES, st.integers(0, 400))
def test_cut_off_files(example: bytes, length: int) -> None:
    read(example[:length])


CELL = st.one_of(st.text(max_size=6), st.floats().map(str), st.integers().map(str), st.sampled_from(["", "1", "2"]))


@MANY
@given(st.sampled_from([PLAIN, AZURE]), st.lists(st.lists(CELL, min_size=3, max_size=4), max_size=5))
def test_any_cells(example: bytes, rows: list[list[str]]) -> None:
    read(example.split(b"\n")[0] + b"\n" + "\n".join(",".join(row) for row in rows).encode("utf-8", "replace"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@MANY
@given(JSON, JSON, JSON, JSON)
def test_any_json(timestamp: object, isl: object, osl: object, hash_ids: object) -> None:
    record = {"timestamp": timestamp, "input_length": isl, "output_length": osl, "hash_ids": hash_ids}
    read(json.dumps(record).encode())


class Listed(Trace):
    def __init__(self, arrival_s: list[float], size: int) -> None:
        self.arrival_s, self.size = np.sort(np.array(arrival_s)), size

    @property
    def name(self) -> str:
        return "listed"

    def chunks(self) -> Iterator[TraceChunk]:
        tokens = np.arange(1, len(self.arrival_s) + 1, dtype=np.int32)
        whole = TraceChunk(self.arrival_s, tokens, tokens, tokens - 1)
        for start in range(0, len(whole), self.size):
            yield whole.take(slice(start, start + self.size))


@MANY
@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=60),
    st.integers(1, 70),
    st.one_of(st.integers(1, 12).map(float), st.floats(0.01, 20)),
    st.floats(0.1, 10),
    st.integers(0, 2**40),
)
def test_scaling_keeps_traces_valid(arrival_s: list[float], size: int, rate: float, time: float, seed: int) -> None:
    trace = scaled(Listed(arrival_s, size), rate_scale=rate, time_scale=time, seed=seed)
    got = collect(trace)
    if len(got):
        valid(got)
        assert got.arrival_s[-1] <= max(arrival_s) / time
    if rate >= 1 and rate == int(rate):
        assert len(got) == int(rate) * len(arrival_s)
    if rate >= 1:
        # The first copy of every original keeps its lengths, so none is lost.
        assert set(got.isl.tolist()) == set(range(1, len(arrival_s) + 1))
    assert summarize(trace).requests == len(got)
    again = collect(scaled(Listed(arrival_s, 60), rate_scale=rate, time_scale=time, seed=seed))
    assert np.array_equal(got.arrival_s, again.arrival_s)
    assert np.array_equal(got.isl, again.isl)
