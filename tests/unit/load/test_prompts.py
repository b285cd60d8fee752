import json

from hypothesis import given
from hypothesis import strategies as st

from profiler.load.prompts import Kind, Prompts

TEXTS, IDS = Prompts(Kind.WORDS, 5), Prompts(Kind.IDS, 5)


@given(st.integers(0, 2**40), st.integers(1, 200_000))
def test_length_is_what_was_asked(number: int, length: int) -> None:
    assert len(json.loads(TEXTS.as_json(number, length)).split(" ")) == length
    ids = json.loads(IDS.as_json(number, length))
    assert len(ids) == length
    assert all(10 <= token < 1010 for token in ids)


def test_no_two_begin_alike() -> None:
    beginnings = {tuple(json.loads(TEXTS.as_json(number, 64)).split()[:7]) for number in range(5000)}
    assert len(beginnings) == 5000


def test_seeds() -> None:
    assert Prompts(Kind.WORDS, 5).as_json(3, 100) == TEXTS.as_json(3, 100)
    assert Prompts(Kind.WORDS, 6).as_json(3, 100).split()[:7] != TEXTS.as_json(3, 100).split()[:7]
