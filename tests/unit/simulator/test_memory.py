"""KV blocks by hand: admission, preemption, back-pressure from decode to prefill, and what never fits."""

import numpy as np
import pytest

from tests.engines import (
    DECODE,
    PREFILL,
    aggregated,
    disaggregated,
    engine,
    finish,
    start,
    transfer,
)

exactly = pytest.approx


def test_a_prompt_waits_until_its_blocks_are_free() -> None:
    # 7 of 10 blocks are taken, 4 are asked for.
    rows = [(0.0, 100, 3, 0), (1.0, 64, 1, 0)]
    run = finish(aggregated(engine(capacity=160)), rows)
    freed = 11.0 + (5.1 + 0.100) + (5.1 + 0.101)
    assert run.ttft == exactly([11.0, freed + 10.64 - 1.0])
    fits = finish(aggregated(engine(capacity=176)), rows)
    assert fits.ttft[1] == exactly(11.0 + 10.64 + 0.1 - 1.0)


def test_nobody_overtakes_the_head_of_the_queue() -> None:
    rows = [(0.0, 100, 3, 0), (1.0, 64, 1, 0), (2.0, 16, 1, 0)]
    run = finish(aggregated(engine(capacity=160)), rows)
    assert run.ttft[2] + 2.0 == exactly(run.ttft[1] + 1.0)


def test_the_block_that_the_running_batch_takes_next_is_not_free() -> None:
    # A holds two of three blocks and takes the third in its very first decode step; B must not be given it.
    rows = [(0.0, 32, 2, 0), (1.0, 16, 1, 0)]
    run = start(aggregated(engine(capacity=48)), rows).to(10.32 + 1.0)
    worker = run.simulation.raw.workers[0]
    assert (worker["seats"], worker["blocks"], worker["wait_count"]) == (1, 2, 1)
    run.to(1e6)
    a_done = 10.32 + 5.1 + 0.032
    assert run.end == exactly([a_done, a_done + 10.16])
    assert run.simulation.total("preempted") == 0


def test_a_hand_off_is_not_given_the_block_that_the_running_batch_takes_next() -> None:
    rows = [(0.0, 31, 3, 0), (10.0, 16, 1, 0)]
    run = finish(disaggregated(engine(), engine(capacity=48, kv_ms=0.0), transfer(0.0, 0.0)), rows)
    a_first = 10.31 + 5.1
    a_done = a_first + 2 * 5.1
    # B is prefilled at 20.47, in A's second step; at its end A, now of 33 tokens, has the last block.
    assert run.end == exactly([a_done, a_done + 5.1])
    assert run.simulation.total("preempted") == 0


def test_what_was_handed_over_waits_for_the_block_of_its_first_token() -> None:
    # B's 16 tokens fill their block, and its first token needs the one that A's 20 tokens have in part.
    rows = [(0.0, 20, 5, 0), (5.0, 16, 1, 0)]
    run = finish(disaggregated(engine(), engine(capacity=48, kv_ms=0.0), transfer(0.0, 0.0)), rows)
    a_done = 10.2 + 5 * 5.1
    assert run.end == exactly([a_done, a_done + 5.1])
    assert run.simulation.total("preempted") == 0


def test_the_last_admitted_is_preempted_and_recomputed() -> None:
    # Three blocks. A: 20 + 14 tokens, B: 10 + 10 tokens. B needs its second block while A holds two.
    rows = [(0.0, 20, 14, 0), (1.0, 10, 10, 0)]
    run = finish(aggregated(engine(capacity=48, kv_ms=0.0)), rows)
    a_first = 10.2
    b_first = a_first + 10.1
    preempted = b_first + 6 * 5.2  # B holds 16 tokens and has 7 of its 10 tokens
    a_done = preempted + 6 * 5.1  # A had 8 of 14
    b_again = a_done + 10.17  # the prompt and its 7 tokens; the eighth comes with them
    b_done = b_again + 2 * 5.1
    assert run.ttft == exactly([a_first, b_first - 1.0])
    assert run.end == exactly([a_done, b_done])
    totals = {name: run.simulation.total(name) for name in ("preempted", "generated_tokens", "prefilled_tokens")}
    assert totals == {"preempted": 1, "generated_tokens": 24, "prefilled_tokens": 20 + 10 + 17}


def test_a_prompt_in_progress_is_preempted_before_an_older_decode() -> None:
    # Four blocks, 10 tokens an iteration. A takes its third block while B, of two blocks, is in its prompt.
    rows = [(0.0, 30, 5, 0), (1.0, 30, 1, 0)]
    run = finish(aggregated(engine(capacity=64, batched=10, kv_ms=0.0, token_ms=1.0)), rows)
    assert run.simulation.total("preempted") == 1
    # A: 30 tokens in three chunks, two mixed steps of 9 prompt tokens, and then alone.
    a_first = 40.0
    # B's first chunk pays the fixed part, its second goes on along the curve.
    a_alone = a_first + 19.0 + 9.0
    a_done = a_alone + 2 * 5.1
    assert run.end == exactly([a_done, a_done + 40.0])
    assert run.simulation.total("prefilled_tokens") == 30 + 18 + 30


def test_what_can_never_fit_fails_at_once() -> None:
    tight = engine(capacity=160)
    run = finish(aggregated(tight), [(0.0, 150, 10, 0), (1.0, 150, 11, 0), (2.0, 200, 1, 0)])
    assert len(run.ttft) == 1
    assert run.simulation.total("failed") == 2
    # Prefill must hold the prompt, decode the prompt and all tokens.
    rows = [(0.0, 160, 1, 0), (1.0, 161, 1, 0)]
    assert finish(disaggregated(tight, engine()), rows).simulation.total("failed") == 1
    rows = [(0.0, 150, 10, 0), (1.0, 150, 11, 0)]
    assert finish(disaggregated(engine(), tight), rows).simulation.total("failed") == 1


def test_prefill_holds_its_blocks_until_the_hand_off_ends() -> None:
    # The prefill worker holds two prompts; the decode worker is ready at 1000 ms.
    prefill = engine(capacity=320, batched=160)
    rows = [(0.0, 160, 1, 0), (1.0, 160, 1, 0), (2.0, 160, 1, 0)]
    run = start(disaggregated(prefill, engine()), rows, {PREFILL: 1, DECODE: 0})
    run.simulation.add_worker(DECODE, 1000.0)
    run.to(999.0)
    assert run.simulation.total("prefilled_tokens") == 320
    assert run.simulation.supply(PREFILL).waiting == 1
    assert run.simulation.supply(PREFILL).kv_usage == 1.0
    assert run.simulation.supply(DECODE).waiting == 2
    run.to(1e6)
    moved = 1000.0 + 2.32
    step = 5.1 + 0.16
    # The third prompt starts when the hand-offs end, not when they start nor when their requests are done.
    third = moved + 11.6 + 2.32 + step
    assert run.end == exactly([moved + step, moved + 2 * step, third])


def test_a_prompt_that_comes_during_a_hand_off_waits_for_its_end() -> None:
    # The prefill worker holds one prompt; its hand-off lasts from 11.6 to 13.92 ms.
    run = finish(disaggregated(engine(capacity=160), engine()), [(0.0, 160, 1, 0), (12.0, 160, 1, 0)])
    assert run.end[1] == exactly(13.92 + 11.6 + 2.32 + 5.1 + 0.16)


def test_a_full_decode_pool_stalls_prefill() -> None:
    # Decode seats one request of 100 steps; prefill holds one prompt.
    rows = [(float(i), 160, 100, 0) for i in range(3)]
    engines = disaggregated(engine(capacity=160), engine(seqs=1, kv_ms=0.0))
    run = finish(engines, rows)
    a_done = 11.6 + 2.32 + 100 * 5.1
    # B was prefilled while A decoded; C's prefill could start only when B's hand-off had ended.
    b_done = a_done + 2.32 + 100 * 5.1
    assert run.end == exactly([a_done, b_done, b_done + 2.32 + 100 * 5.1])
    stalled = start(engines, rows).to(a_done - 1.0)
    assert stalled.simulation.total("prefilled_tokens") == 320


def test_everything_is_free_at_the_end() -> None:
    rng = np.random.default_rng(3)
    rows = [
        (float(t), int(i), int(o), 0)
        for t, i, o in zip(
            rng.exponential(8.0, 400).cumsum(), rng.integers(1, 300, 400), rng.integers(1, 100, 400), strict=True
        )
    ]
    for engines in (
        aggregated(engine(capacity=800, seqs=9)),
        disaggregated(engine(capacity=800), engine(capacity=800)),
    ):
        run = finish(engines, rows, 2)
        raw = run.simulation.raw
        assert run.simulation.total("preempted") > 0
        assert run.simulation.total("completed") == 400
        assert not raw.workers["blocks"].any()
        assert not raw.workers["seats"].any()
        assert not raw.workers["kv"].any()
        assert not raw.workers["in_flight"].any()
        assert not raw.phase.any()
        for role in engines.roles:
            assert run.simulation.supply(role).kv_usage == 0.0
