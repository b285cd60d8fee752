"""Dynamo 1.6's own model of an engine: a plane over two features of a forward pass, fitted to 64 retained passes.

What `aisimulate_core` does in its mode `fpm_regression`, which the planner of ai-dynamo 1.6 uses unless it is given a
configuration for NVIDIA's performance database: time = a + b * attention + c * tokens, with b and c not negative and a
free. Attention counts the KV tokens that decodes read and the pairs of tokens in prompts; the pass holds no lengths,
so prompts are taken as equally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: `max_num_fpm_samples`, `load_min_observations`, and the cells on each axis that `fpm_sample_bucket_size` 16 makes.
MOST_SAMPLES, LEAST_SAMPLES, CELLS_PER_AXIS = 64, 5, 4

#: An axis that varies by less than this share of its mean says nothing; no estimate is below the floor, ms.
_LEAST_SPREAD, _FLOOR_MS = 1e-12, 1e-6


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward pass of an engine holds.

    Attributes:
        prompts: prompts of which it computes something.
        prompt_tokens: tokens that it computes of them.
        decodes: requests of which it computes the next token.
        decode_kv: KV tokens that these read.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    decodes: int = 0
    decode_kv: int = 0

    @property
    def empty(self) -> bool:
        """Whether it computes nothing."""
        return self.prompt_tokens <= 0 and self.decodes <= 0

    @property
    def features(self) -> tuple[float, float]:
        """(attention, tokens).

        Attention is KV tokens read + P^2 / (2 N) + P / 2, P tokens of N equally long prompts without cached ones.
        """
        tokens = float(self.prompt_tokens)
        pairs = tokens**2 / (2.0 * max(1, self.prompts)) + tokens / 2.0 if self.prompt_tokens > 0 else 0.0
        return float(self.decode_kv) + pairs, tokens + float(self.decodes)


@dataclass(frozen=True, slots=True)
class _Sample:
    features: tuple[float, float]
    time_ms: float
    cell: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Plane:
    """time = intercept + slopes . features, ms."""

    intercept: float
    slopes: tuple[float, float]

    def at(self, features: tuple[float, float]) -> float:
        """Time of a pass with these features, ms."""
        return self.intercept + self.slopes[0] * features[0] + self.slopes[1] * features[1]


class Regression:
    """Retained passes and the plane through them.

    Which passes stay: the features' logarithms span a grid of 4 x 4 cells, whose bounds only ever grow, and a pass too
    many drives the oldest one out of the fullest cell. The peer leaves ties between cells to chance; here the first in
    order of the grid loses.
    """

    def __init__(self, *, most: int = MOST_SAMPLES, least: int = LEAST_SAMPLES, cells: int = CELLS_PER_AXIS) -> None:
        self._most, self._least, self._cells = most, least, cells
        self._low, self._high = np.full(2, np.inf), np.full(2, -np.inf)
        self._samples: list[_Sample] = []
        self._plane: Plane | None = None
        self._stale = False

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def samples(self) -> tuple[tuple[tuple[float, float], float], ...]:
        """Features and time of each retained pass, oldest first."""
        return tuple((sample.features, sample.time_ms) for sample in self._samples)

    def add(self, held: Pass, time_ms: float) -> None:
        """Take in a pass and its time; an empty one, and one without a time, counts for nothing."""
        if held.empty or not np.isfinite(time_ms) or time_ms <= 0.0:
            return
        place = np.log1p(held.features)
        if np.any(place < self._low) or np.any(place > self._high):
            self._low, self._high = np.minimum(self._low, place), np.maximum(self._high, place)
            self._samples = [self._placed(sample.features, sample.time_ms) for sample in self._samples]
        self._samples.append(self._placed(held.features, time_ms))
        if len(self._samples) > self._most:
            self._retire()
        self._stale = True

    def _placed(self, features: tuple[float, float], time_ms: float) -> _Sample:
        span = self._high - self._low
        share = np.divide(np.log1p(features) - self._low, span, out=np.zeros(2), where=span > 0.0)
        first, second = np.minimum((share * self._cells).astype(int), self._cells - 1)
        return _Sample(features, time_ms, (int(first), int(second)))

    def _retire(self) -> None:
        cells = [sample.cell for sample in self._samples]
        fullest = min(set(cells), key=lambda cell: (-cells.count(cell), cell))
        del self._samples[cells.index(fullest)]

    @property
    def plane(self) -> Plane | None:
        """The fit; None with fewer than five passes, or when nothing that they hold makes them longer."""
        if self._stale:
            self._plane = fit_plane(self.samples) if len(self._samples) >= self._least else None
            self._stale = False
        return self._plane

    def time_ms(self, held: Pass) -> float | None:
        """Estimated time of a pass, ms: 0 for an empty one, None without a fit."""
        if held.empty:
            return 0.0
        plane = self.plane
        return None if plane is None else max(_FLOOR_MS, plane.at(held.features))


class Stores:
    """A regression for each kind of pass: prompts alone, decodes alone, both. None knows of another's passes."""

    def __init__(self) -> None:
        self._of: dict[tuple[bool, bool], Regression] = {}

    def _store(self, held: Pass) -> Regression:
        return self._of.setdefault((held.prompt_tokens > 0, held.decodes > 0), Regression())

    def add(self, held: Pass, time_ms: float) -> None:
        """Take in a pass, as `Regression.add`."""
        if not held.empty:
            self._store(held).add(held, time_ms)

    def time_ms(self, held: Pass) -> float | None:
        """Estimated time of a pass, as `Regression.time_ms`; None while too few of its kind were seen."""
        return 0.0 if held.empty else self._store(held).time_ms(held)

    @property
    def ready(self) -> bool:
        """Whether passes of any kind can be estimated."""
        return any(regression.plane is not None for regression in self._of.values())

    @property
    def samples(self) -> tuple[tuple[tuple[float, float], float], ...]:
        """Retained passes of every kind."""
        return tuple(sample for regression in self._of.values() for sample in regression.samples)


def fit_plane(samples: Sequence[tuple[tuple[float, float], float]]) -> Plane | None:
    """Least squares with slopes that are not negative and a free intercept; None where no slope is positive.

    Args:
        samples: features and time in ms of each pass.
    """
    from scipy.optimize import nnls  # noqa: PLC0415 - slow to import, and only this policy needs it

    x: NDArray[np.float64] = np.array([features for features, _ in samples], dtype=np.float64)
    y: NDArray[np.float64] = np.array([time_ms for _, time_ms in samples], dtype=np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    varies = spread > _LEAST_SPREAD * np.maximum(1.0, np.abs(mean))
    if not varies.any():
        return None
    # Centred, the intercept drops out; scaled, features of very different size are equally well conditioned.
    scaled = (x - mean)[:, varies] / spread[varies]
    found, _ = nnls(scaled, y - y.mean())
    slopes = np.zeros(2)
    slopes[varies] = found / spread[varies]
    if not np.any(slopes > 0.0):
        return None
    return Plane(float(y.mean() - slopes @ mean), (float(slopes[0]), float(slopes[1])))
