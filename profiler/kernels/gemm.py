"""Matrix products of one layer at the model's sizes, on weights that lie in memory, not in the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch

from profiler.errors import InputError
from profiler.kernels.clock import Clock
from profiler.kernels.micro import Gemm, GemmPoint

#: Number formats that a product can be timed in: those of the weights, as vLLM names them.
_PLAIN = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
FORMATS = (*_PLAIN, "fp8")


def check_dtype(dtype: str) -> str:
    """A format that products can be timed in.

    Raises:
        InputError: it is not one: weight-only formats such as int4 need an engine's own kernels.
    """
    if dtype not in FORMATS:
        problem = f"products in {dtype!r} cannot be timed with torch alone"
        raise InputError(problem, expected=", ".join(FORMATS), field="--dtype")
    return dtype


def activation_dtype(dtype: str) -> torch.dtype:
    """What activations are held in where the weights have this format."""
    return _PLAIN.get(dtype, torch.bfloat16)


class Products:
    """One product's weights, in as many copies as the cache needs to forget them.

    Args:
        clock: times the calls.
        name: of the product.
        n, k: rows of the weight as a linear layer has it, and columns.
        dtype: number format of the weights.
    """

    def __init__(self, clock: Clock, name: Gemm, n: int, k: int, dtype: str) -> None:
        self._clock, self._name, self._n, self._k, self._dtype = clock, name, n, k, check_dtype(dtype)
        held = activation_dtype(dtype)
        size = n * k * (1 if dtype == "fp8" else held.itemsize)
        # Values as in a trained layer, so that products neither overflow nor are all alike.
        scale = k**-0.5
        self._weights = [self._cast(torch.randn(n, k, device=clock.device, dtype=held) * scale)
                         for _ in range(clock.copies(size))]  # fmt: skip

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(torch.float8_e4m3fn) if self._dtype == "fp8" else tensor

    def measure(self, m: int) -> GemmPoint:
        """Time of m rows of activations times the weight."""
        held = activation_dtype(self._dtype)
        rows = self._cast(torch.randn(m, self._k, device=self._clock.device, dtype=held))
        # A large product reuses each weight often enough that a warm cache changes nothing: fewer copies will do.
        weights = self._weights if m < 1024 else self._weights[:2]
        time = self._clock.measure([self._call(rows, w) for w in weights], f"{self._name} m={m}")
        backend = "torch._scaled_mm" if self._dtype == "fp8" else "torch.mm"
        return GemmPoint(name=self._name, m=m, n=self._n, k=self._k, backend=backend, time=time)

    def _call(self, rows: torch.Tensor, weight: torch.Tensor) -> Callable[[], object]:
        if self._dtype != "fp8":
            out = torch.empty(rows.shape[0], self._n, device=rows.device, dtype=rows.dtype)
            return lambda: torch.mm(rows, weight.t(), out=out)
        one = torch.ones((), device=rows.device, dtype=torch.float32)
        return lambda: torch._scaled_mm(rows, weight.t(), one, one, out_dtype=torch.bfloat16)  # noqa: SLF001 - torch has no public name for it
