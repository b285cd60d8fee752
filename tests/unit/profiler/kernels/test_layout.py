"""Addresses, checks and head plans of block copies, without torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import InputError
from profiler.kernels.layout import (
    KvLayout,
    Side,
    check_ids,
    check_same,
    chunks,
    heads_of_rank,
    plan_permutation,
    plan_runs,
)

LAYOUT = KvLayout(4, 100, 16, 8, 128, "bfloat16", 2, "kv_first")


def test_sizes_of_a_block() -> None:
    assert LAYOUT.layer_shape == (2, 100, 16, 8, 128)
    assert LAYOUT.half_bytes == 16 * 8 * 128 * 2
    assert LAYOUT.block_bytes == int(np.prod(LAYOUT.buffer_shape(1))) * 2
    assert KvLayout(4, 100, 16, 8, 128, "bfloat16", 2, "block_first").layer_shape == (100, 2, 16, 8, 128)


@pytest.mark.parametrize(
    ("ids", "distinct", "words"),
    [
        ([], False, "names no block"),
        ([0, 100], False, "block 100 at position 1 is not in the cache; expected ids from 0 to 99"),
        ([-1], False, "block -1 at position 0"),
        ([3, 4, 3], True, "block 3 is there twice"),
    ],
)
def test_wrong_ids_are_refused(ids: list[int], distinct: bool, words: str) -> None:
    with pytest.raises(InputError, match="field ids") as caught:
        check_ids(ids, 100, "ids", distinct=distinct)
    assert words in str(caught.value)


def test_a_source_may_name_a_block_twice() -> None:
    check_ids([3, 4, 3], 100, "ids", distinct=False)


def test_every_difference_of_two_caches_is_named() -> None:
    other = KvLayout(5, 7, 32, 8, 128, "float8_e4m3fn", 1, "block_first")
    with pytest.raises(InputError) as caught:
        check_same(LAYOUT, other)
    for words in ("layers is 4 and 5", "block_size is 16 and 32", "dtype is bfloat16 and float8_e4m3fn"):
        assert words in str(caught.value)
    assert "blocks is" not in str(caught.value)
    check_same(LAYOUT, KvLayout(4, 7, 16, 2, 128, "bfloat16", 2, "block_first"), heads=False)


def test_whole_blocks_are_one_run_of_wide_words() -> None:
    side = Side((4096, 8192), 1 << 20, 2048, 128)
    runs = plan_runs(side, side, 16, 128)
    assert (runs.slots, runs.run_bytes, runs.word_bytes) == (1, 2048, 16)


@pytest.mark.parametrize(
    ("side", "word"),
    [
        (Side((4096, 8200), 1 << 20, 2048, 128), 8),  # one layer starts at a multiple of 8 only
        (Side((4096,), 1 << 20, 2048, 128, start=4), 4),
        (Side((4096,), (1 << 20) + 2, 2048, 128), 2),
        (Side((4097,), 1 << 20, 2048, 128), 1),
    ],
)
def test_words_are_as_wide_as_every_address_allows(side: Side, word: int) -> None:
    aligned = Side((4096,), 1 << 20, 2048, 128)
    assert plan_runs(side, aligned, 16, 128).word_bytes == word
    assert plan_runs(aligned, side, 16, 128).word_bytes == word


def test_some_heads_of_a_token_are_a_run_for_each_token() -> None:
    whole, part = Side((4096,), 1 << 20, 4096, 256), Side((4096,), 1 << 20, 2048, 128)
    runs = plan_runs(whole, part, 16, 128)
    assert (runs.slots, runs.run_bytes) == (16, 128)


def test_heads_are_split_and_then_copied() -> None:
    assert [list(heads_of_rank(8, 4, r)) for r in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [list(heads_of_rank(2, 4, r)) for r in range(4)] == [[0], [0], [1], [1]]
    with pytest.raises(InputError, match="6 KV heads on 4 ranks"):
        heads_of_rank(6, 4, 0)


POWERS = st.integers(0, 4).map(lambda e: 2**e)


@given(heads=POWERS, source=POWERS, target=POWERS)
def test_a_permutation_writes_every_head_of_every_rank_once(heads: int, source: int, target: int) -> None:
    moves = plan_permutation(heads, source, target)
    written = {}
    for move in moves:
        for i in range(move.heads):
            sent = heads_of_rank(heads, source, move.source_rank)[move.source_head + i]
            place = (move.target_rank, move.target_head + i)
            assert place not in written
            written[place] = sent
    wanted = {(r, i): head for r in range(target) for i, head in enumerate(heads_of_rank(heads, target, r))}
    assert written == wanted


def test_neighbouring_heads_move_together_and_replicas_take_turns() -> None:
    assert [(m.source_rank, m.target_rank, m.heads) for m in plan_permutation(8, 2, 1)] == [(0, 0, 4), (1, 0, 4)]
    assert {m.source_rank for m in plan_permutation(1, 2, 4)} == {0, 1}


@given(count=st.integers(1, 200), size=st.integers(1, 50))
def test_chunks_cover_everything_once(count: int, size: int) -> None:
    parts = list(chunks(count, size))
    assert [i for part in parts for i in part] == list(range(count))
    assert all(0 < len(part) <= size for part in parts)
