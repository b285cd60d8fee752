"""Prompts share what they shall share and nothing else."""

from __future__ import annotations

import json

from profiler.measure.prompts import Streams


def test_shorter_prompts_are_beginnings_of_longer_ones() -> None:
    streams = Streams(seed=1)
    short, long = json.loads(streams.prompt(3, 500)), json.loads(streams.prompt(3, 9000))
    assert len(short) == 500
    assert len(long) == 9000
    assert long[:500] == short
    # Also when the longer one is made first.
    other = Streams(seed=1)
    assert json.loads(other.prompt(3, 9000)) == long
    assert json.loads(other.prompt(3, 500)) == short


def test_streams_differ_from_their_first_block_on() -> None:
    streams = Streams(seed=1)
    blocks = {tuple(streams.tokens(k, 16)) for k in range(500)} | {
        tuple(streams.tokens(streams.fresh(), 16)) for _ in range(500)
    }
    assert len(blocks) == 1000


def test_an_extended_prompt_has_its_head_and_a_tail_of_its_own() -> None:
    streams = Streams(seed=2)
    head = streams.tokens(7, 64)
    one, two = (json.loads(streams.extended(head, 100)) for _ in range(2))
    assert one[:64] == two[:64] == head.tolist()
    assert len(one) == 100
    assert one[64:] != two[64:]


def test_seeds_give_other_streams() -> None:
    assert Streams(1).prompt(0, 32) != Streams(2).prompt(0, 32)
