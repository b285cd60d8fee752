"""The kernel's binary heap, with removals from its middle as a preemption makes them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.whatif.simulator import heaps
from planner.whatif.simulator.compiled import entry
from planner.whatif.simulator.state import TURN, Records


@entry
def sift_up(entries: Records, place: int) -> None:
    """The kernel's own, callable from here."""
    heaps.sift_up(entries, place)


@entry
def heap_remove(entries: Records, place: int, count: int) -> None:
    """The kernel's own, callable from here."""
    heaps.heap_remove(entries, place, count)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 200))
def test_a_heap_stays_one(seed: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    entries = np.zeros(200, dtype=TURN)
    held: list[tuple[int, int]] = []
    # It grows to about forty entries and shrinks again, with some of the other move all along.
    for slot, grow in enumerate(rng.random(200) < np.repeat([0.7, 0.3], 100)):
        if grow:
            key = int(rng.integers(distinct))
            entries["key"][len(held)], entries["slot"][len(held)] = key, slot
            held.append((key, slot))
            sift_up(entries, len(held) - 1)
        elif held:
            place = int(rng.integers(len(held)))
            held.remove((int(entries["key"][place]), int(entries["slot"][place])))
            heap_remove(entries, place, len(held) + 1)
        keys = entries["key"][: len(held)]
        children = np.arange(1, len(held))
        assert (keys[children] >= keys[(children - 1) // 2]).all()
    assert sorted(zip(keys.tolist(), entries["slot"][: len(held)].tolist(), strict=True)) == sorted(held)
