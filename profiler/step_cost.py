"""Cost of a decode step as physics has it: constant, per request, per KV token; calibrated by points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.affine import fit_cost
from profiler.roofline import Roofline


@dataclass(frozen=True)
class StepCost:
    """max(constant + per_request * batch, roofline of the weights) + per_kv_token * kv, in milliseconds.

    The roofline alone misses what an engine spends per request on sampling and scheduling, which at short
    contexts is most of a step; so the coefficients are fitted, none below the roofline's. Grows with both
    arguments.
    """

    constant: float
    per_request: float
    per_kv_token: float
    roofline: Roofline | None

    @classmethod
    def fit(
        cls,
        batch: NDArray[np.float64],
        kv_tokens: NDArray[np.float64],
        itl_ms: NDArray[np.float64],
        roofline: Roofline | None,
    ) -> StepCost:
        """Calibrate on points of shape (n,)."""
        # A step with nothing in it still costs something; without a floor a ratio could divide by zero.
        least = 0.01 * float(itl_ms.min())
        floors = (least, 0.0, 0.0)
        if roofline is not None:
            floors = (max(least, roofline.weights_ms), 0.0, roofline.kv_ms_per_token)
        constant, per_request, per_kv = fit_cost(np.column_stack([batch, kv_tokens]), itl_ms, floors)
        return cls(float(constant), float(per_request), float(per_kv), roofline)

    def ms(self, batch: ArrayLike, kv_tokens: ArrayLike) -> NDArray[np.float64]:
        """Milliseconds of a step (broadcast)."""
        step = self.constant + self.per_request * np.asarray(batch, dtype=np.float64)
        if self.roofline is not None:
            step = np.maximum(step, self.roofline.step_ms(batch))
        return np.asarray(step + self.per_kv_token * np.asarray(kv_tokens, dtype=np.float64))
