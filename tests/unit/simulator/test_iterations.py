"""Iterations by hand: prefill 10 ms + 0.01 ms a token; decode 5 ms + 0.1 ms a request + 0.001 ms a KV token."""

import numpy as np
import pytest

from tests.engines import aggregated, disaggregated, engine, finish, start, transfer

exactly = pytest.approx


def test_a_lone_request_on_an_aggregated_worker() -> None:
    run = finish(aggregated(engine()), [(3.0, 1000, 5, 0)])
    assert run.ttft == exactly([20.0])
    # Four more tokens, behind 1000, 1001, 1002 and 1003 tokens of KV.
    assert run.itl == exactly([5.1 + 1.0015])


def test_a_lone_request_on_prefill_and_decode_workers() -> None:
    run = finish(disaggregated(engine(), engine()), [(3.0, 1000, 5, 0)])
    prefill, handoff, first_step = 20.0, 4.0, 5.1 + 1.0
    assert run.ttft == exactly([prefill + handoff + first_step])
    assert run.itl == exactly([5.1 + 1.0025])


def test_a_single_output_token_has_no_itl() -> None:
    assert np.isnan(finish(aggregated(engine()), [(0.0, 100, 1, 0)]).itl).all()


def test_prompts_that_waited_share_an_iteration() -> None:
    rows = [(0.0, 100, 1, 0), (1.0, 200, 1, 0), (2.0, 300, 1, 0)]
    alpha = 1e-4
    run = finish(aggregated(engine(attention=alpha)), rows)
    first = 11.0 + alpha * 100**2
    # The fixed part once, the tokens of both, and the attention of each among its own tokens only.
    both = 15.0 + alpha * (200**2 + 300**2)
    assert run.ttft == exactly([first, first + both - 1.0, first + both - 2.0])


def test_a_prompt_of_two_and_a_half_budgets_takes_the_time_of_the_table() -> None:
    timing = engine(token_ms=0.05, attention=1e-5, batched=400)
    run = finish(aggregated(timing), [(0.0, 1000, 1, 0)])
    assert run.ttft == exactly([float(timing.prompt_ms(1000))])
    # Its arrival, the worker's start and three iterations.
    assert run.simulation.total("events") == 5


def test_what_is_left_of_the_budget_goes_to_the_next_prompt() -> None:
    # 100 | 400 of B | 200 of B and 200 of C | 50 of C; a prompt's later chunks go on along its own curve.
    rows = [(0.0, 100, 1, 0), (1.0, 600, 1, 0), (2.0, 250, 1, 0)]
    run = finish(aggregated(engine(token_ms=0.05, batched=400)), rows)
    first = 15.0
    second = first + 30.0
    third = second + 20.0
    # The last 50 tokens cost 2.5 ms by the curve, but no iteration is faster than one decode step.
    fourth = third + 5.1
    assert run.ttft == exactly([first, third - 1.0, fourth - 2.0])


def test_decodes_share_the_iteration_of_a_prompt() -> None:
    run = finish(aggregated(engine()), [(0.0, 100, 3, 0), (5.0, 200, 2, 0)])
    first = 11.0
    # B's prompt, and A's decode beyond the fixed part that both halves share.
    mixed = first + 12.0 + (5.1 + 0.1 - 5.1)
    last = mixed + 5.0 + 2 * 0.1 + 0.001 * (101 + 200)
    assert run.ttft == exactly([first, mixed - 5.0])
    assert run.itl == exactly([(last - first) / 2, last - mixed])


def test_running_decodes_count_against_the_token_budget() -> None:
    # One token of the second iteration is A's decode, so 99 of B's 100 fit; its last token follows.
    rows = [(0.0, 100, 9, 0), (5.0, 100, 1, 0)]
    run = finish(aggregated(engine(token_ms=0.1, kv_ms=0.0, batched=100)), rows)
    assert run.ttft == exactly([20.0, 15.0 + (10.0 + 9.9) + 5.1])


def test_a_seat_must_be_free() -> None:
    run = finish(aggregated(engine(seqs=1)), [(0.0, 100, 3, 0), (1.0, 100, 1, 0)])
    seat_free = 11.0 + (5.1 + 0.100) + (5.1 + 0.101)
    assert run.ttft == exactly([11.0, seat_free + 11.0 - 1.0])


def test_a_seat_on_a_decode_worker_is_taken_from_the_hand_off_on() -> None:
    rows = [(0.0, 100, 4, 0), (30.0, 100, 1, 0)]
    run = finish(disaggregated(engine(), engine(seqs=1, kv_ms=0.0)), rows)
    prefilled, moved = 11.0, 11.0 + 2.2
    seat_free = moved + 4 * 5.1
    assert prefilled + 30.0 > seat_free  # not the limit here …
    assert run.ttft == exactly([moved + 5.1, 11.0 + 2.2 + 5.1])
    late = finish(disaggregated(engine(), engine(seqs=1, kv_ms=0.0)), [rows[0], (5.0, 100, 1, 0)])
    # … but here: B is prefilled at 22 and its hand-off starts only when A is done.
    assert late.ttft == exactly([moved + 5.1, seat_free + 2.2 + 5.1 - 5.0])


def test_a_hand_off_makes_the_iteration_longer_with_which_it_begins() -> None:
    # Prompts end at 11 and at 41 ms. B's hand-off begins with A's seventh iteration, which is longer by its post …
    rows = [(0.0, 100, 10, 0), (30.0, 100, 1, 0)]
    handoff = transfer(post_ms=2.0, post_token_ms=0.01)
    run = finish(disaggregated(engine(), engine(kv_ms=0.0), handoff), rows)
    first = 11.0 + 2.2 + 5.1
    # … of 3 ms; A's own found the worker idle.
    sixth = 11.0 + 2.2 + 6 * 5.1
    assert sixth - 5.1 < 41.0 < sixth
    joins = sixth + 5.1 + 3.0
    assert run.ttft[0] == exactly(first)
    assert run.end[0] == exactly(11.0 + 2.2 + 10 * 5.1 + 3.0 + 0.1)
    assert run.ttft[1] == exactly(joins + 5.2 - 30.0)


def test_hand_offs_that_begin_together_are_posted_one_after_the_other() -> None:
    # A prompt that ends alone, and two that end in one iteration.
    rows = [(0.0, 50, 40, 0), (20.0, 100, 1, 0), (20.5, 200, 1, 0), (20.6, 300, 1, 0)]
    quick, slow = (
        finish(disaggregated(engine(), engine(kv_ms=0.0), transfer(post_token_ms=each)), rows) for each in (0.0, 0.02)
    )
    assert slow.end[0] - quick.end[0] == exactly(0.02 * 600)


def test_a_prefix_hit_is_not_computed_again() -> None:
    timing = engine(attention=1e-5)
    run = finish(aggregated(timing), [(0.0, 1000, 1, 600)])
    assert run.ttft == exactly([10.0 + 4.0 + 1e-5 * (1000**2 - 600**2)])
    assert run.ttft == exactly([float(timing.prompt_ms(1000, 600))])
    assert run.simulation.total("prefilled_tokens") == 400
    chunked = finish(aggregated(engine(attention=1e-5, token_ms=0.1, batched=150)), [(0.0, 1000, 1, 600)])
    assert chunked.ttft == exactly([10.0 + 40.0 + 1e-5 * (1000**2 - 600**2)])


def test_an_arrival_joins_at_the_next_iteration_and_not_in_its_middle() -> None:
    rows = [(0.0, 100, 50, 0), (11.0 + 2.5 * 5.1, 100, 1, 0)]
    run = finish(aggregated(engine(kv_ms=0.0)), rows)
    assert run.ttft[1] == exactly(0.5 * 5.1 + 11.0)
    # Of A's 49 further tokens one came in the mixed iteration, whose decode half cost nothing extra.
    assert run.itl[0] == exactly((48 * 5.1 + 11.0) / 49)


def test_a_decode_speeds_its_way_through_bends_of_the_table() -> None:
    timing = engine(capacity=1600, bend=1e-5, kv_nodes=33)
    run = finish(aggregated(timing), [(0.0, 100, 1400, 0)])
    steps = timing.iteration_ms(np.ones(1399), np.arange(100, 1499))
    assert run.itl == exactly([steps.mean()], rel=1e-9)
    # 28 stretches between nodes, and not 1399 iterations.
    assert run.simulation.total("events") < 40


def test_a_batch_that_shrinks_gets_faster() -> None:
    rows = [(0.0, 10, 1, 0), (1.0, 50, 4, 0), (2.0, 50, 2, 0)]
    run = finish(aggregated(engine(kv_ms=0.0)), rows)
    both = 10.1 + 11.0
    assert run.end == exactly([10.1, both + 5.2 + 5.1 + 5.1, both + 5.2])


def test_time_may_stop_anywhere() -> None:
    run = start(aggregated(engine(kv_ms=0.0)), [(0.0, 100, 11, 0)])
    run.to(11.0 + 4.5 * 5.1)
    assert len(run.ttft) == 0
    assert run.simulation.supply(run.simulation.engines.roles[0]).running == 1
    run.to(11.0 + 10 * 5.1 - 0.001)
    assert len(run.ttft) == 0
    assert run.to(11.0 + 10 * 5.1 + 0.001).end == exactly([62.0])
