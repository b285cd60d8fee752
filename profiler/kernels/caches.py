"""KV caches as tensors: what their shapes say, and where their blocks lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from profiler.errors import InputError
from profiler.kernels.layout import Form, KvLayout, Side, check_ids


@dataclass(frozen=True, slots=True, eq=False)
class KvCache:
    """The KV cache of one rank.

    Attributes:
        tensors: one a layer, all alike.
        layout: their sizes.
    """

    tensors: tuple[torch.Tensor, ...]
    layout: KvLayout

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor], form: Form) -> KvCache:
        """Check the layers of a cache.

        Raises:
            InputError: there are none, they differ in shape, number format, strides or device, or a token's heads do
                not lie back to back.
        """
        if not tensors:
            raise InputError("has no layers", expected="at least one tensor", field="cache")
        first = tensors[0]
        two = 0 if form == "kv_first" else 1
        if first.dim() != 5 or first.shape[two] != 2:
            expected = f"5 axes, of which axis {two} has length 2 ({form})"
            raise InputError(f"layer 0 has shape {tuple(first.shape)}", expected=expected, field="cache")
        for number, tensor in enumerate(tensors):
            for what in ("shape", "dtype", "device"):
                if getattr(tensor, what) != getattr(first, what):
                    problem = f"layer {number} has {what} {getattr(tensor, what)}"
                    raise InputError(problem, expected=f"{getattr(first, what)} as layer 0 has", field="cache")
            if tensor.stride() != first.stride():
                raise InputError(f"layer {number} has other strides than layer 0", field="cache")
        block_size, kv_heads, head_dim = first.shape[2:]
        if first.stride()[2:] != (kv_heads * head_dim, head_dim, 1):
            problem = f"a block's tokens do not lie back to back (strides {first.stride()})"
            raise InputError(problem, expected="[block_size, kv_heads, head_dim] contiguous", field="cache")
        blocks = int(first.shape[1 - two])
        layout = KvLayout(
            layers=len(tensors),
            blocks=blocks,
            block_size=int(block_size),
            kv_heads=int(kv_heads),
            head_dim=int(head_dim),
            dtype=str(first.dtype).removeprefix("torch."),
            element_bytes=first.dtype.itemsize,
            form=form,
        )
        return cls(tuple(tensors), layout)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.tensors[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Number format."""
        return self.tensors[0].dtype

    def side(self, head: int = 0) -> Side:
        """Its addresses, from a head on."""
        layout, first = self.layout, self.tensors[0]
        two = 0 if layout.form == "kv_first" else 1
        size = layout.element_bytes
        return Side(
            pointers=tuple(t.data_ptr() for t in self.tensors),
            half_stride=first.stride(two) * size,
            block_stride=first.stride(1 - two) * size,
            slot_stride=layout.slot_bytes,
            start=head * layout.head_dim * size,
        )

    def halves(self, layer: int) -> torch.Tensor:
        """One layer as a view [blocks, 2, block_size, kv_heads, head_dim], whatever its form."""
        tensor = self.tensors[layer]
        return tensor.transpose(0, 1) if self.layout.form == "kv_first" else tensor


@dataclass(frozen=True, slots=True, eq=False)
class Ids:
    """Block ids that were checked against a cache's size, on a device.

    Attributes:
        tensor: int64, shape (n,).
        numbers: the same on the host.
        blocks: of the cache that they were checked against.
        distinct: whether each occurs once.
    """

    tensor: torch.Tensor
    numbers: tuple[int, ...]
    blocks: int
    distinct: bool = field(default=False)

    @classmethod
    def of(cls, ids: Sequence[int], cache: KvCache, name: str = "ids", *, distinct: bool = False) -> Ids:
        """Check ids and bring them to the cache's device, once for any number of copies.

        Raises:
            InputError: there is none, one is out of range, or `distinct` and one is there twice.
        """
        numbers = tuple(int(i) for i in ids)
        check_ids(numbers, cache.layout.blocks, name, distinct=distinct)
        return cls(
            torch.tensor(numbers, dtype=torch.int64, device=cache.device), numbers, cache.layout.blocks, distinct
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, which: range) -> Ids:
        """Some of them, without another check."""
        piece = slice(which.start, which.stop)
        return Ids(self.tensor[piece], self.numbers[piece], self.blocks, self.distinct)

    def fit(self, cache: KvCache, name: str, *, distinct: bool = False) -> None:
        """Refuse a cache that they were not checked against.

        Raises:
            InputError: it has fewer blocks, lies elsewhere, or needs distinct ids.
        """
        if self.blocks > cache.layout.blocks:
            problem = f"checked against a cache of {self.blocks} blocks, used on one of {cache.layout.blocks}"
            raise InputError(problem, expected="ids that were checked against this cache", field=name)
        if self.tensor.device != cache.device:
            raise InputError(f"are on {self.tensor.device}", expected=f"{cache.device}", field=name)
        if distinct and not self.distinct:
            raise InputError("were not checked for duplicates", expected="distinct=True for a destination", field=name)


def buffer_side(buffer: torch.Tensor, layout: KvLayout) -> Side:
    """Addresses of a contiguous buffer [n, layers, 2, block_size, kv_heads, head_dim]."""
    return Side(
        pointers=tuple(buffer.data_ptr() + layer * 2 * layout.half_bytes for layer in range(layout.layers)),
        half_stride=layout.half_bytes,
        block_stride=layout.block_bytes,
        slot_stride=layout.slot_bytes,
    )


def check_buffer(buffer: torch.Tensor, layout: KvLayout, count: int, name: str) -> None:
    """A buffer is one that `count` blocks of the cache fill exactly.

    Raises:
        InputError: shape or number format differ, or it is not contiguous.
    """
    wanted = layout.buffer_shape(count)
    if tuple(buffer.shape) != wanted:
        raise InputError(f"has shape {tuple(buffer.shape)}", expected=f"{wanted}", field=name)
    if str(buffer.dtype).removeprefix("torch.") != layout.dtype:
        raise InputError(f"has dtype {buffer.dtype}", expected=f"torch.{layout.dtype}", field=name)
    if not buffer.is_contiguous():
        raise InputError("is not contiguous", expected="a contiguous buffer", field=name)
