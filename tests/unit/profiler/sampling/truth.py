"""An engine that is known exactly: its times by formula, with knees, and samples of it with noise."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from profiler.measure.base import Point, Sample
from profiler.sampling import Choice, Domain, Sampling
from profiler.sampling.noise import VALUE
from profiler.schema import TableName

ITERATION_TOKENS = 8192
#: Batch from which a decode step of the formula below is bound by arithmetic.
KNEE = 117


def domain(**changes: object) -> Domain:
    limits: dict[str, object] = {
        "tables": ("prefill", "decode", "mixed", "transfer"),
        "max_model_len": 32768,
        "kv_capacity_tokens": 450_000,
        "max_num_seqs": 256,
        "max_num_batched_tokens": ITERATION_TOKENS,
        "block_size": 16,
        "prefix_caching": True,
    }
    return Domain(**(limits | changes))  # type: ignore[arg-type]


def prefill_ms(isl: float, batch: float = 1, hit: float = 0) -> float:
    """Flat to 267 tokens, then linear with attention's square, and 4 ms for each iteration that it is split into."""
    tokens = (isl - hit) * batch
    iterations = math.ceil(tokens / ITERATION_TOKENS)
    return 4 * iterations + max(8.0, 0.03 * tokens) + 1.5e-6 * batch * (isl**2 - hit**2)


def decode_ms(batch: float, kv_tokens: float) -> float:
    """Weights or arithmetic of the batch padded to a CUDA graph, the longer, and the KV cache."""
    padded = batch if batch < 8 else math.ceil(batch / 8) * 8
    return 2 + max(7.0, 0.06 * padded) + 0.02 * batch + 4e-5 * kv_tokens


TRUTH: Mapping[TableName, Callable[..., float]] = MappingProxyType(
    {
        "prefill": prefill_ms,
        "decode": decode_ms,
        "mixed": lambda tokens, batch, kv_tokens: decode_ms(batch, kv_tokens) + 0.03 * tokens,
        "transfer": lambda tokens: 3 + 0.004 * tokens,
    }
)


def sample(point: Point, factor: float = 1.0) -> Sample:
    value = TRUTH[point.table](*point.at) * factor
    return Sample(point, {VALUE[point.table]: value}, wall_s=0.5 + value / 1e3)


def run(sampling: Sampling, noise: float, seed: int = 0, most: int = 2000) -> tuple[list[Sample], list[Choice]]:
    """Take what is asked for, each with a random factor exp(N(0, noise)), until nothing is."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    choices: list[Choice] = []
    while (choice := sampling.choose(samples)) is not None:
        assert len(samples) < most, "does not end"
        choices.append(choice)
        samples.append(sample(choice.point, math.exp(rng.normal(0, noise))))
    return samples, choices
