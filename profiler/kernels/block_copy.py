"""Copy of KV blocks: gather, scatter, between caches, to and from the host, and between tensor-parallel sizes.

A buffer is [n, layers, 2, block_size, kv_heads, head_dim]: a block of all layers is one piece, which is what a store of
blocks keeps and what a link sends.

To and from the host a copy goes over a buffer on the device, in chunks: the kernel fills one half of it while the copy
engine empties the other. The kernel could also write to pinned host memory by itself (`via="mapped"`); that needs no
buffer but holds multiprocessors for as long as the host link takes, while an engine wants them for its next step.

What does a copy is chosen at run time: the Triton kernel, or plain torch calls where there is no Triton, no GPU, or
where the first launch fails. `Copier.choice` says which and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from profiler.errors import InputError
from profiler.kernels import plain_copy
from profiler.kernels.caches import Ids, KvCache, check_buffer
from profiler.kernels.layout import KvLayout, Move, check_same, chunks, plan_permutation

CopyMethod = Literal["triton", "index", "per_block"]

#: Bytes of each half of the buffer on the device that copies to and from the host go over.
STAGE_BYTES = 64 << 20


class Mover(Protocol):
    """Moves bytes; everything that it is given was checked."""

    def gather(self, cache: KvCache, ids: Ids, out: torch.Tensor) -> None:
        """Blocks into a buffer."""

    def scatter(self, buffer: torch.Tensor, cache: KvCache, ids: Ids) -> None:
        """A buffer into blocks."""

    def copy(self, source: KvCache, target: KvCache, source_ids: Ids, target_ids: Ids, move: Move) -> None:
        """Heads of blocks of one cache into heads of blocks of another."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What moves the bytes, and why it."""

    method: CopyMethod
    why: str


def choose(device: torch.device, asked: CopyMethod | None = None) -> tuple[Mover, Choice]:
    """The mover for a device.

    Args:
        device: that holds the caches.
        asked: a method to take; None takes the kernel where it runs and plain copies elsewhere.
    """
    if asked == "per_block":
        return plain_copy.PerBlock(), Choice("per_block", "asked for")
    if asked == "index":
        return plain_copy.Index(), Choice("index", "asked for")
    try:
        from profiler.kernels.triton_copy import Kernel, interpreted  # noqa: PLC0415 - not there on every machine
    except ImportError as error:
        return _fallback(f"no Triton: {error}", asked)
    if device.type != "cuda" and not interpreted():
        return _fallback(f"caches on {device.type}, and the kernel needs a GPU", asked)
    mover = Kernel()
    try:
        _probe(mover, device)
    except Exception as error:  # noqa: BLE001 - compilers and drivers fail in many ways, and none may stop a copy
        return _fallback(f"the kernel's first launch failed: {type(error).__name__}: {str(error)[:200]}", asked)
    return mover, Choice("triton", "asked for" if asked else "the kernel runs on this device")


def _fallback(why: str, asked: CopyMethod | None) -> tuple[Mover, Choice]:
    if asked == "triton":
        raise InputError(why, expected="a method that runs here, such as index", field="method")
    return plain_copy.Index(), Choice("index", why)


def _probe(mover: Mover, device: torch.device) -> None:
    """One small copy whose result is known; launch errors come to light only when the device is waited for."""
    data = torch.arange(2 * 4 * 2 * 2 * 8, dtype=torch.int32, device=device).reshape(2, 4, 2, 2, 8)
    cache = KvCache.of([data], "kv_first")
    out = torch.zeros(cache.layout.buffer_shape(2), dtype=data.dtype, device=device)
    mover.gather(cache, Ids.of([2, 1], cache), out)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if not torch.equal(out[:, 0].cpu(), data[:, [2, 1]].transpose(0, 1).cpu()):
        raise RuntimeError("it copied something else")


class Copier:
    """Copies blocks of caches on one device.

    Attributes:
        choice: what moves the bytes, and why.
    """

    def __init__(
        self, device: torch.device, method: CopyMethod | None = None, *, stage_bytes: int = STAGE_BYTES
    ) -> None:
        self._mover, self.choice = choose(device, method)
        self._device = device
        self._stage_bytes = stage_bytes
        self._stages: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def gather(self, cache: KvCache, ids: Ids, out: torch.Tensor) -> None:
        """Copy blocks of all layers into a buffer on the same device; a block may be asked for more than once.

        Raises:
            InputError: ids, shapes, number formats or devices do not fit.
        """
        ids.fit(cache, "ids")
        check_buffer(out, cache.layout, len(ids), "out")
        self._here(out, "out")
        self._here(cache.tensors[0], "cache")
        self._mover.gather(cache, ids, out)

    def scatter(self, buffer: torch.Tensor, cache: KvCache, ids: Ids) -> None:
        """Copy a buffer on the same device into blocks of all layers.

        Raises:
            InputError: ids, shapes, number formats or devices do not fit, or ids were not checked for duplicates.
        """
        ids.fit(cache, "ids", distinct=True)
        check_buffer(buffer, cache.layout, len(ids), "buffer")
        self._here(buffer, "buffer")
        self._here(cache.tensors[0], "cache")
        self._mover.scatter(buffer, cache, ids)

    def copy(self, source: KvCache, target: KvCache, source_ids: Ids, target_ids: Ids) -> None:
        """Copy blocks from one cache to another on the same device.

        The caches must not share memory: the order in which blocks move is not defined.

        Raises:
            InputError: the caches or the ids do not fit.
        """
        check_same(source.layout, target.layout)
        self._pair(source, target, source_ids, target_ids)
        self._mover.copy(source, target, source_ids, target_ids, Move(0, 0, 0, 0, source.layout.kv_heads))

    def permute(
        self,
        sources: Sequence[KvCache],
        targets: Sequence[KvCache],
        source_ids: Ids,
        target_ids: Ids,
        kv_heads: int,
    ) -> None:
        """Copy blocks from the caches of some TP ranks to those of other TP ranks, all on one device.

        Args:
            sources: one cache a rank; their number is the TP size.
            targets: likewise.
            source_ids: the same blocks on every rank, as engines number them.
            target_ids: likewise, distinct.
            kv_heads: of the whole model; with more ranks than heads, ranks hold replicas.

        Raises:
            InputError: a TP size does not fit the heads, or caches or ids do not fit.
        """
        moves = plan_permutation(kv_heads, len(sources), len(targets))
        for name, caches in (("sources", sources), ("targets", targets)):
            share = max(1, kv_heads // len(caches))
            for rank, cache in enumerate(caches):
                if cache.layout.kv_heads != share:
                    problem = f"rank {rank} of {len(caches)} holds {cache.layout.kv_heads} KV heads of {kv_heads}"
                    raise InputError(problem, expected=f"{share}", field=name)
        for move in moves:
            source, target = sources[move.source_rank], targets[move.target_rank]
            check_same(source.layout, target.layout, heads=False)
            self._pair(source, target, source_ids, target_ids)
        for move in moves:
            self._mover.copy(sources[move.source_rank], targets[move.target_rank], source_ids, target_ids, move)

    def offload(
        self, cache: KvCache, ids: Ids, host: torch.Tensor, via: Literal["staged", "mapped"] = "staged"
    ) -> None:
        """Copy blocks to a buffer on the host; on a GPU done when the current stream is.

        Args:
            cache: on the device.
            ids: of its blocks.
            host: pinned, as copies from pageable memory neither overlap nor reach the link's rate.
            via: `staged` over a buffer on the device, or `mapped`: the kernel writes to the host by itself.

        Raises:
            InputError: ids, shapes or number formats do not fit, the host buffer is not pinned, or `mapped` without the
                kernel.
        """
        ids.fit(cache, "ids")
        self._host(host, cache.layout, len(ids), via)
        if via == "mapped" or self.choice.method == "per_block":
            self._mover.gather(cache, ids, host)
        else:
            self._pipeline(cache, ids, host, restore=False)

    def restore(
        self, host: torch.Tensor, cache: KvCache, ids: Ids, via: Literal["staged", "mapped"] = "staged"
    ) -> None:
        """Copy a buffer on the host into blocks; arguments and errors as of `offload`, ids distinct."""
        ids.fit(cache, "ids", distinct=True)
        self._host(host, cache.layout, len(ids), via)
        if via == "mapped" or self.choice.method == "per_block":
            self._mover.scatter(host, cache, ids)
        else:
            self._pipeline(cache, ids, host, restore=True)

    def _pipeline(self, cache: KvCache, ids: Ids, host: torch.Tensor, *, restore: bool) -> None:
        stages = self._stage(cache)
        parts = list(chunks(len(ids), len(stages[0])))
        if self._side is None:
            for part in parts:
                stage, there = stages[0][: len(part)], host[part.start : part.stop]
                self._one(cache, ids.part(part), stage, there, restore=restore)
            return
        main, side = torch.cuda.current_stream(self._device), self._side
        # The kernel works on the current stream, the copy engine on the side stream. A stage changes hands by events:
        # `free[s]` says that whoever had stage s last is done with it.
        side.wait_stream(main)
        free: list[torch.cuda.Event | None] = [None, None]
        for number, part in enumerate(parts):
            stage, there = stages[number % 2][: len(part)], host[part.start : part.stop]
            first, second = (side, main) if restore else (main, side)
            before = free[number % 2]
            if before is not None:
                first.wait_event(before)
            with torch.cuda.stream(first):
                if restore:
                    stage.copy_(there, non_blocking=True)
                else:
                    self._mover.gather(cache, ids.part(part), stage)
            second.wait_event(first.record_event())
            with torch.cuda.stream(second):
                if restore:
                    self._mover.scatter(stage, cache, ids.part(part))
                else:
                    there.copy_(stage, non_blocking=True)
            free[number % 2] = second.record_event()
        main.wait_stream(side)

    def _one(self, cache: KvCache, ids: Ids, stage: torch.Tensor, there: torch.Tensor, *, restore: bool) -> None:
        if restore:
            stage.copy_(there)
            self._mover.scatter(stage, cache, ids)
        else:
            self._mover.gather(cache, ids, stage)
            there.copy_(stage)

    def _stage(self, cache: KvCache) -> tuple[torch.Tensor, torch.Tensor]:
        layout = cache.layout
        shape = layout.buffer_shape(max(1, self._stage_bytes // layout.block_bytes))
        key = (*shape, layout.element_bytes)
        if key not in self._stages:
            self._stages.clear()
            raw = [torch.empty((*shape[:-1], shape[-1] * layout.element_bytes), dtype=torch.uint8, device=self._device)
                   for _ in range(2)]  # fmt: skip
            self._stages[key] = (raw[0], raw[1])
        one, two = self._stages[key]
        return one.view(cache.dtype), two.view(cache.dtype)

    def _pair(self, source: KvCache, target: KvCache, source_ids: Ids, target_ids: Ids) -> None:
        source_ids.fit(source, "source_ids")
        target_ids.fit(target, "target_ids", distinct=True)
        if len(source_ids) != len(target_ids):
            raise InputError(f"{len(target_ids)} blocks", expected=f"{len(source_ids)}", field="target_ids")
        for name, cache in (("source", source), ("target", target)):
            self._here(cache.tensors[0], name)

    def _here(self, tensor: torch.Tensor, name: str) -> None:
        if tensor.device != self._device:
            raise InputError(f"is on {tensor.device}", expected=f"{self._device}", field=name)

    def _host(self, host: torch.Tensor, layout: KvLayout, count: int, via: str) -> None:
        check_buffer(host, layout, count, "host")
        if host.device.type != "cpu":
            raise InputError(f"is on {host.device}", expected="cpu", field="host")
        if self._device.type == "cuda" and not host.is_pinned():
            raise InputError("is not pinned", expected="pinned memory", field="host")
        if via == "mapped" and self.choice.method != "triton":
            problem = f"only the kernel reaches host memory by itself, and copies are by {self.choice.method}"
            raise InputError(problem, expected="via staged", field="via")


__all__ = ["Choice", "Copier", "CopyMethod", "Ids", "KvCache", "choose"]
