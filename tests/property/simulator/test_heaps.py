"""The kernel's binary heap, with removals from its middle as a preemption makes them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.whatif.simulator.heaps import heap_remove, sift_up
from planner.whatif.simulator.state import TURN

#: A key to put in, or a share of the heap at which to take one out.
STEPS = st.lists(st.integers(0, 30) | st.floats(0.0, 0.999), max_size=60)


@settings(deadline=None)
@given(STEPS)
def test_a_heap_stays_one(steps: list[int | float]) -> None:
    entries = np.zeros(64, dtype=TURN)
    held: list[tuple[int, int]] = []
    for slot, step in enumerate(steps):
        if isinstance(step, int):
            entries["key"][len(held)], entries["slot"][len(held)] = step, slot
            held.append((step, slot))
            sift_up(entries, len(held) - 1)
        elif held:
            place = int(step * len(held))
            held.remove((int(entries["key"][place]), int(entries["slot"][place])))
            heap_remove(entries, place, len(held) + 1)
        keys = entries["key"][: len(held)]
        assert sorted(zip(keys.tolist(), entries["slot"][: len(held)].tolist(), strict=True)) == sorted(held)
        children = np.arange(1, len(held))
        assert (keys[children] >= keys[(children - 1) // 2]).all()
