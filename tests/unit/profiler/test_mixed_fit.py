"""What prompts add to an iteration of decodes: the parts that made a table come back out of it."""

from __future__ import annotations

import numpy as np
import pytest

from profiler.csvfile import Samples
from profiler.mixed_fit import MixedFit, fit_mixed

TOKENS, BATCHES = (256.0, 1024.0, 4096.0), (8.0, 32.0, 128.0)
ADDED = dict(zip(TOKENS, (5.0, 18.0, 80.0), strict=True))
PER_REQUEST, ATTENTION = 0.07, 1e-6


def _decode(batch: np.ndarray) -> np.ndarray:
    return 6.0 + 0.02 * batch


def _rows(
    tokens: tuple[float, ...] = TOKENS, batches: tuple[float, ...] = BATCHES, repeats: int = 4, noise: float = 0.0
) -> dict[str, np.ndarray]:
    at = np.array([(n, b, r) for n in tokens for b in batches for r in range(repeats)])
    prompts, batch, repeat = at.T
    value = np.array([ADDED[n] for n in prompts]) + ATTENTION * prompts**2 + PER_REQUEST * batch + _decode(batch)
    value *= np.exp(np.random.default_rng(5).normal(0.0, noise, len(at)))
    return {
        "prefill_tokens": prompts, "batch": batch, "kv_tokens": 512.0 * batch, "iteration_ms": value, "repeat": repeat,
    }  # fmt: skip


def _fit(rows: Samples) -> MixedFit | None:
    return fit_mixed(rows, _decode(rows["batch"]), ATTENTION)


def _known(rows: Samples) -> MixedFit:
    found = _fit(rows)
    assert found is not None
    return found


def test_both_parts_come_back() -> None:
    fit = _known(_rows())
    assert fit.tokens.tolist() == list(TOKENS)
    assert fit.added_ms == pytest.approx(list(ADDED.values()))
    assert fit.per_request_ms == pytest.approx(PER_REQUEST)


def test_both_parts_come_back_from_noise() -> None:
    fit = _known(_rows(repeats=7, noise=0.01))
    assert fit.added_ms == pytest.approx(list(ADDED.values()), rel=0.1)
    assert fit.per_request_ms == pytest.approx(PER_REQUEST, rel=0.3)


def test_a_point_is_the_mean_of_its_repeats_however_they_differ() -> None:
    # Launches of the 1,024 tokens are quick three times and slow once, at each batch.
    rows = _rows()
    rows["iteration_ms"][(rows["prefill_tokens"] == 1024) & (rows["repeat"] == 2)] += 20.0
    fit = _known(rows)
    assert fit.added_ms == pytest.approx([5.0, 18.0 + 20.0 / 4, 80.0])
    assert fit.per_request_ms == pytest.approx(PER_REQUEST)


def test_one_odd_point_decides_nothing() -> None:
    rows = _rows()
    rows["iteration_ms"][(rows["prefill_tokens"] == 256) & (rows["batch"] == 32)] *= 3.0
    fit = _known(rows)
    assert fit.added_ms == pytest.approx(list(ADDED.values()))
    assert fit.per_request_ms == pytest.approx(PER_REQUEST)


def test_one_batch_says_nothing_of_a_request() -> None:
    fit = _known(_rows(batches=(32.0,)))
    assert fit.per_request_ms == 0.0
    assert fit.added_ms == pytest.approx([added + 32 * PER_REQUEST for added in ADDED.values()])


def test_a_request_never_saves_time() -> None:
    rows = _rows()
    rows["iteration_ms"] = rows["iteration_ms"] - 0.1 * rows["batch"]
    assert _known(rows).per_request_ms == 0.0


def test_prompts_a_little_shorter_are_the_same_node() -> None:
    rows = _rows()
    # As the largest prompts are: what the token budget leaves beside the batch.
    largest = rows["prefill_tokens"] == 4096
    at = 4096.0 - rows["batch"][largest]
    rows["iteration_ms"][largest] += ATTENTION * (at**2 - 4096.0**2)
    rows["prefill_tokens"][largest] = at
    fit = _known(rows)
    assert fit.tokens.tolist() == [256.0, 1024.0, 4096.0 - 32.0]
    assert fit.added_ms == pytest.approx(list(ADDED.values()))


def test_more_tokens_never_add_less() -> None:
    rows = _rows()
    rows["iteration_ms"][rows["prefill_tokens"] == 1024] -= 15.0  # below what 256 add
    assert _known(rows).added_ms == pytest.approx([5.0, 5.0, 80.0])
    rows["iteration_ms"][rows["prefill_tokens"] == 256] -= 10.0  # less than nothing
    assert _known(rows).added_ms == pytest.approx([0.0, 3.0, 80.0])


def test_between_and_beyond_the_nodes() -> None:
    fit = MixedFit(np.array([100.0, 300.0]), np.array([2.0, 6.0]), 0.0)
    tokens = np.array([0.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0])
    other = 10.0 + 0.1 * tokens  # rises by 10 from node to node beyond 300
    assert fit.along(tokens, other) == pytest.approx([0.0, 1.0, 2.0, 4.0, 6.0, 16.0, 26.0])


def test_what_a_lone_prompt_of_hardly_any_tokens_takes_decides_nothing() -> None:
    fit = MixedFit(np.array([256.0, 1024.0]), np.array([3.0, 40.0]), 0.0)
    tokens = np.array([0.0, 32.0, 64.0, 256.0, 1024.0])
    # A mixture of experts reads few of them for one token, so that its time there, which nobody measured, is far less.
    found = fit.along(tokens, np.array([2.0, 13.0, 13.5, 15.0, 55.0]))
    # Below the first node as much is hidden as at it, 12 ms.
    assert found == pytest.approx([0.0, 1.0, 1.5, 3.0, 40.0])
    # The table's first node is as the tokens' own time has it, too, where lone prompts of them take hardly less.
    assert fit.along(tokens, np.array([14.9, 14.9, 14.9, 15.0, 55.0]))[[0, 3, 4]] == pytest.approx([0.0, 3.0, 40.0])


def test_where_lone_prompts_step_up_those_beside_decodes_do() -> None:
    fit = MixedFit(np.array([100.0, 300.0]), np.array([4.0, 12.0]), 0.0)
    tokens = np.array([0.0, 50.0, 100.0, 150.0, 160.0, 200.0, 300.0])
    # CUDA graphs end at 150 tokens: launches take 5 ms before, 13 ms from there on, and 1 ms is hidden at both nodes.
    alone = np.where(tokens > 150, 13.0, 5.0)
    found = fit.along(tokens, alone)
    assert found[[0, 2, 6]] == pytest.approx([0.0, 4.0, 12.0])
    assert found[3] == pytest.approx(6.0)  # as arithmetic rises
    assert found[4] == pytest.approx(13.0 - 1.0)  # as launches do
    assert (np.diff(found) >= 0).all()


def test_nothing_measured_is_nothing_known() -> None:
    rows = _rows()
    assert _fit({name: column[:0] for name, column in rows.items()}) is None
    # Decodes alone and prompts alone.
    rows["prefill_tokens"][::2], rows["batch"][1::2] = 0.0, 0.0
    assert _fit(rows) is None
