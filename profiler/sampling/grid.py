"""The coarse grid that every table starts from, in an order that spares the engine's KV cache.

Points come in groups that are measured together. Filling the cache with the contexts of a decode point costs their
prefill, but prompts that were computed before hit the engine's prefix cache: so a group is one context, its largest
batch first, and longer contexts, which push the others out, come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from profiler.measure.base import Point
from profiler.roofline import Roofline
from profiler.sampling.domain import Domain
from profiler.sampling.words import Reason
from profiler.schema import TableName

#: Points that are measured one after the other, each with why it is there.
Group = Sequence[tuple[Point, Reason]]

_PREFILL_POINTS, _TRANSFER_POINTS = 7, 6
_CONTEXTS = (256, 1024, 4096, 16384)
_SHORTEST_CONTEXT = 128
_BATCH_RATIO = 4
#: (isl, batch): sums from a quarter of the usual 8,192 tokens of an iteration to four times as many.
_BATCHED = ((128, 16), (256, 8), (512, 16), (2048, 4), (4096, 4), (1024, 32))
_HIT_LENGTHS = (2048, 8192)
_HIT_SHARES = (0.25, 0.5, 0.75, 0.9)
_MIXED_TOKENS = (256, 640, 1024, 4096)
_MIXED_BATCHES = (128, 32, 8, 2)
_MIXED_CONTEXTS = (512, 2048)
#: The longest context gets a row of its own where it is beyond the last one by this ratio.
_FAR = 1.5
#: Two places closer than this ratio tell the same.
_CLOSE = 1.3


def groups(domain: Domain, table: TableName, roofline: Roofline | None) -> list[Group]:
    """Groups of a table's first grid; every point is within the domain."""
    if table == "prefill":
        made = [_lone(domain, roofline), _batched(domain), _hits(domain)]
    elif table == "decode":
        made = [row(domain, context, roofline) for context in contexts(domain)]
    elif table == "mixed":
        made = _mixed(domain)
    else:
        lengths = _geometric(domain, _TRANSFER_POINTS)
        made = [[(Point("transfer", (float(n),)), Reason.GRID) for n in lengths]]
    inside = [[(point, why) for point, why in group if domain.contains(point)] for group in made]
    return [group for group in inside if group]


def contexts(domain: Domain) -> list[int]:
    """Contexts of the first decode rows, whole blocks, increasing; the last is the longest where that is shorter."""
    longest, block = domain.longest_context, domain.block_size
    wanted = [-(-context // block) * block for context in _CONTEXTS]
    chosen = [context for context in dict.fromkeys(wanted) if context <= longest]
    # What lies between the last row and the longest context would otherwise be extrapolated.
    if longest >= block and (not chosen or (len(chosen) < len(_CONTEXTS) and longest > _FAR * chosen[-1])):
        chosen.append(longest)
    short = -(-_SHORTEST_CONTEXT // block) * block
    if len(chosen) == 1 and short * 2 <= chosen[0]:
        chosen.insert(0, short)
    return chosen


def row(domain: Domain, context: int, roofline: Roofline | None) -> Group:
    """Decode points of one context: batches 1, 4, 16, … to the largest that fits, largest first.

    The batch from which the roofline says that arithmetic takes longer than reading the weights is among them.
    """
    largest = domain.largest_batch(context)
    if largest < 1:
        return []
    batches = {1}
    while max(batches) * _BATCH_RATIO * _CLOSE < largest:
        batches.add(max(batches) * _BATCH_RATIO)
    batches.add(largest)
    knee = _compute_bound_from(roofline)
    why = dict.fromkeys(batches, Reason.GRID)
    if knee is not None and knee < largest and all(not _near(knee, batch) for batch in batches):
        why[knee] = Reason.KNEE
    return [(decode_point(batch, context), why[batch]) for batch in sorted(why, reverse=True)]


def decode_point(batch: int, context: int) -> Point:
    """The decode point of `batch` requests of `context` tokens each."""
    return Point("decode", (float(batch), float(batch * context)))


def _lone(domain: Domain, roofline: Roofline | None) -> Group:
    lengths = _geometric(domain, _PREFILL_POINTS)
    if not lengths:
        return []
    why = dict.fromkeys(lengths, Reason.GRID)
    # Beyond the tokens of one iteration a prompt is computed in chunks; below the roofline's ridge its time is that
    # of reading the weights. Where such a knee falls near a point of the grid it takes its place.
    for knee in (domain.max_num_batched_tokens, _compute_bound_from(roofline)):
        if knee is None or not lengths[0] < knee < lengths[-1]:
            continue
        for length in [n for n, reason in why.items() if _near(n, knee) and n not in {lengths[0], lengths[-1]}]:
            if why[length] is Reason.GRID:
                del why[length]
        if all(not _near(n, knee) or n in {lengths[0], lengths[-1]} for n in why):
            why[knee] = Reason.KNEE
    for n in _step(domain, lengths):
        why[n] = Reason.KNEE
    return [(Point("prefill", (float(n), 1.0, 0.0)), why[n]) for n in sorted(why)]


def _step(domain: Domain, lengths: Sequence[int]) -> list[int]:
    """Lengths around the end of the CUDA graphs: both sides of the step, and one more on each to check them by."""
    last = domain.max_cudagraph_tokens
    if last is None or not lengths[0] < last - 2 * domain.block_size < last * 2 < lengths[-1]:
        return []
    return [last * 5 // 8, last, last + domain.block_size, last * 7 // 5]


def _batched(domain: Domain) -> Group:
    """Prompts sent together, their sum below, at and above the tokens of one iteration."""
    limit = domain.max_num_batched_tokens
    shapes = [shape for shape in _BATCHED if domain.contains(_batched_point(*shape))]
    below = (max(limit // 8, domain.shortest_isl), 4)
    above = (max(limit // 2, domain.shortest_isl), 4)
    if not any(isl * batch < limit for isl, batch in shapes):
        shapes.append(below)
    if not any(isl * batch > limit for isl, batch in shapes):
        shapes.append(above)
    return [(_batched_point(isl, batch), Reason.CHECK) for isl, batch in dict.fromkeys(shapes)]


def _batched_point(isl: int, batch: int) -> Point:
    return Point("prefill", (float(isl), float(batch), 0.0))


def _hits(domain: Domain) -> Group:
    """Lone prompts of two lengths whose beginnings are cached."""
    if not domain.prefix_caching:
        return []
    block = domain.block_size
    lengths = [length for length in _HIT_LENGTHS if length <= domain.longest] or [domain.longest]
    found = {}
    for length in lengths:
        for share in _HIT_SHARES:
            hit = int(share * length) // block * block
            if hit > 0:
                found[Point("prefill", (float(length), 1.0, float(hit)))] = Reason.CHECK
    return list(found.items())


def _mixed(domain: Domain) -> list[Group]:
    """Every pair of prefill tokens and batch once, contexts alternating, one group per context."""
    block, longest = domain.block_size, domain.longest_mixed_context
    if longest < block:
        return []
    rounded = [-(-context // block) * block for context in _MIXED_CONTEXTS]
    lengths = [c for c in dict.fromkeys(rounded) if c <= longest] or [longest]
    if len(lengths) == 1 and longest > _FAR * lengths[0]:
        lengths.append(longest)
    most_requests = domain.largest_mixed_batch(lengths[0])
    batches = [b for b in _MIXED_BATCHES if b <= most_requests][:3] or [1]
    found: dict[int, dict[Point, Reason]] = {context: {} for context in lengths}
    for i, batch in enumerate(batches):
        most = min(domain.max_num_batched_tokens - batch, domain.longest)
        # Most tokens first: few of them may be lost in noise, which must not pass for the end of what the engine holds.
        tokens = [most] + [t for t in reversed(_MIXED_TOKENS) if t * _CLOSE < most]
        for j, prefill in enumerate(tokens):
            first = (i + j) % len(lengths)
            for context in lengths[first:] + lengths[:first]:  # the other one where this one does not fit
                point = Point("mixed", (float(prefill), float(batch), float(batch * context)))
                if domain.contains(point):
                    found[context][point] = Reason.GRID
                    break
    return [list(points.items()) for points in found.values()]


def _geometric(domain: Domain, count: int) -> list[int]:
    """About `count` lengths in equal ratios over the prompts that can be measured; whole blocks where that is fine."""
    first, last = domain.shortest_isl, domain.longest
    if last < first:
        return [] if last < 1 else [last]
    inner = [first * (last / first) ** (i / (count - 1)) for i in range(1, count - 1)]
    block = domain.block_size
    rounded = [round(n / block) * block if n >= 8 * block else round(n) for n in inner]
    return _spaced([first, *rounded, last])


def _spaced(lengths: Iterable[int]) -> list[int]:
    """Lengths in order without those that are near the one before; first and last stay."""
    ordered = sorted(set(lengths))
    kept = ordered[:1]
    for n, after in pairwise([*ordered[1:], ordered[-1]]):
        if not _near(n, kept[-1]) and (n == after or not _near(n, ordered[-1])):
            kept.append(n)
    if kept[-1] != ordered[-1]:
        kept.append(ordered[-1])
    return kept


def _near(a: float, b: float) -> bool:
    return max(a, b) < _CLOSE * min(a, b)


def _compute_bound_from(roofline: Roofline | None) -> int | None:
    """Tokens in a step from which arithmetic takes longer than reading the weights; None when not known."""
    if roofline is None:
        return None
    many = 1e9
    return max(round(roofline.weights_ms / (float(roofline.step_ms(many)) / many)), 1)
