from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from profiler.load.stream import Counting, Reading, Transcript
from tests.unit.load.servers import DONE, chunk, line, usage

EVENTS = [
    b": keep-alive\n\n",
    chunk(" w1", ids=[1]),
    chunk(" w2 w3", ids=[2, 3]),
    chunk("", ids=[4]),
    chunk(" é\n]", ids=[5]),
    usage(7, 5),
    DONE,
]
BODY = b"".join(EVENTS)


def read(pieces: list[bytes], counting: Counting = Counting.IDS) -> Reading:
    transcript = Transcript()
    for at, piece in enumerate(pieces):
        transcript.add(piece, float(at))
    return transcript.read(counting)


def test_counts_by_chunk_word_and_id() -> None:
    assert [read(EVENTS, counting).counted_tokens for counting in Counting] == [3, 5, 5]


@given(st.lists(st.integers(0, len(BODY)), max_size=30))
def test_where_bytes_are_cut_changes_nothing_but_times(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BODY)]
    pieces = [BODY[a:b] for a, b in pairwise(edges)]
    reading, whole = read(pieces), read([BODY])
    assert reading.first_s is not None
    assert reading.last_s is not None
    # An event is there when its first newline is.
    for found, event in ((reading.first_s, 1), (reading.last_s, 4)):
        end = len(b"".join(EVENTS[: event + 1])) - 1
        assert edges[int(found)] < end <= edges[int(found) + 1]
    fields = [field for field in Reading.__dataclass_fields__ if field not in {"first_s", "last_s"}]
    assert [getattr(reading, field) for field in fields] == [getattr(whole, field) for field in fields]


@given(st.integers(0, len(BODY) - 1))
def test_a_stream_that_breaks_off_is_read_up_to_there(length: int) -> None:
    reading = read([BODY[:length]])
    complete = [event for event in range(len(EVENTS)) if len(b"".join(EVENTS[: event + 1])) - 1 <= length]
    assert reading.counted_tokens == sum([0, 1, 2, 1, 1, 0, 0][event] for event in complete)
    assert reading.done == (6 in complete)
    assert reading.error == ""


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    read([*pieces, BODY])
    read([line(piece.replace(b"\n", b"")) for piece in pieces])


def test_carriage_returns() -> None:
    assert read([BODY.replace(b"\n", b"\r\n")]) == read([BODY])
