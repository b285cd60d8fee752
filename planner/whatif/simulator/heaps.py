"""Slots, linked lists and binary heaps of the kernel."""

from __future__ import annotations

from planner.whatif.simulator.compiled import kernel
from planner.whatif.simulator.state import HEAD, NONE, TAIL, Records, Sim


@kernel
def take_slot(s: Sim) -> int:
    """A free request slot; the caller has checked that there is one."""
    slot = s.totals[0].free_slot
    s.totals[0].free_slot = s.requests[slot].next
    s.totals[0].in_flight += 1
    return slot


@kernel
def give_slot(s: Sim, slot: int) -> None:
    """Put a request slot back."""
    s.requests[slot].next = s.totals[0].free_slot
    s.totals[0].free_slot = slot
    s.totals[0].in_flight -= 1


@kernel
def append(s: Sim, owner: int, kind: int, slot: int) -> None:
    """Put a slot at the end of an owner's list."""
    s.requests[slot].next = NONE
    if s.lists[owner, kind, HEAD] == NONE:
        s.lists[owner, kind, HEAD] = slot
    else:
        s.requests[s.lists[owner, kind, TAIL]].next = slot
    s.lists[owner, kind, TAIL] = slot


@kernel
def prepend(s: Sim, owner: int, kind: int, slot: int) -> None:
    """Put a slot at the front of an owner's list."""
    head = s.lists[owner, kind, HEAD]
    s.requests[slot].next = head
    if head == NONE:
        s.lists[owner, kind, TAIL] = slot
    s.lists[owner, kind, HEAD] = slot


@kernel
def pop(s: Sim, owner: int, kind: int) -> int:
    """Take the first slot of an owner's list; the list is not empty."""
    slot = s.lists[owner, kind, HEAD]
    s.lists[owner, kind, HEAD] = s.requests[slot].next
    if s.lists[owner, kind, HEAD] == NONE:
        s.lists[owner, kind, TAIL] = NONE
    return slot


@kernel
def _swap(entries: Records, a: int, b: int) -> None:
    key, slot = entries[a].key, entries[a].slot
    entries[a].key, entries[a].slot = entries[b].key, entries[b].slot
    entries[b].key, entries[b].slot = key, slot


@kernel
def sift_up(entries: Records, place: int) -> None:
    """Restore the order of a binary min-heap after the entry at `place` became smaller."""
    while place > 0:
        parent = (place - 1) >> 1
        if entries[parent].key <= entries[place].key:
            return
        _swap(entries, parent, place)
        place = parent


@kernel
def sift_down(entries: Records, place: int, count: int) -> None:
    """Restore the order of a binary min-heap after the entry at `place` became larger."""
    while True:
        child = 2 * place + 1
        if child >= count:
            return
        if child + 1 < count and entries[child + 1].key < entries[child].key:
            child += 1
        if entries[place].key <= entries[child].key:
            return
        _swap(entries, place, child)
        place = child


@kernel
def heap_remove(entries: Records, place: int, count: int) -> None:
    """Take the entry at `place` out of a heap of `count` entries."""
    last = count - 1
    entries[place].key, entries[place].slot = entries[last].key, entries[last].slot
    if place < last:
        sift_down(entries, place, last)
        sift_up(entries, place)


@kernel
def start_transfer(s: Sim, slot: int, end_ms: float) -> None:
    """Queue the end of a hand-off."""
    count = s.totals[0].transfers
    s.transfers[count].key = end_ms
    s.transfers[count].slot = slot
    s.totals[0].transfers = count + 1
    sift_up(s.transfers, count)


@kernel
def end_transfer(s: Sim) -> int:
    """Take out the hand-off that ends first."""
    slot = s.transfers[0].slot
    heap_remove(s.transfers, 0, s.totals[0].transfers)
    s.totals[0].transfers -= 1
    return slot
