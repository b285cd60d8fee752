"""A layout change in a world that does what it likes: pods appear, serve and end in any order, and the one who carries
the change out is ended between any two writes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.transition import (
    Clear,
    Create,
    Heading,
    Intent,
    Retire,
    Save,
    Scale,
    Seen,
    Side,
    Turn,
    turn,
    turned_back,
)

#: Of a change's at most 16 workers each with a handful of events; a world that is fair for so long has come to its end.
MOST_EVENTS = 600


@dataclass
class Object:
    """What a controller keeps: pods that start, serve, drain."""

    side: Side
    ordered: bool
    bad: bool = False
    desired: int = 0
    pods: list[bool] = field(default_factory=list)
    terminating: int = 0
    there: bool = True
    retired: bool = False

    @property
    def ready(self) -> int:
        return sum(self.pods)

    @property
    def gpus(self) -> int:
        return (len(self.pods) + self.terminating) * self.side.gpus

    def seen(self) -> Seen | None:
        if not self.there:
            return None
        trouble = "crash-looping" if self.bad and len(self.pods) > self.ready else ""
        index = tuple(self.pods) if self.ordered else None
        return Seen(self.desired, len(self.pods), self.ready, self.terminating, trouble, index, self.retired)

    def events(self) -> list[str]:
        found = []
        if len(self.pods) < self.desired:
            found.append("appear")
        if len(self.pods) > self.desired:
            found.append("end")
        if not self.bad and not all(self.pods):
            found.append("serve")
        if self.terminating:
            found.append("gone")
        return found

    def happen(self, event: str) -> None:
        if event == "appear":
            self.pods.append(False)
        elif event == "serve":
            # The newest first: what a lower number then ends is what serves, where the last ones go.
            self.pods[len(self.pods) - 1 - self.pods[::-1].index(False)] = True
        elif event == "gone":
            self.terminating -= 1
        else:
            last = self.ordered or all(self.pods)
            self.pods.pop() if last else self.pods.remove(False)
            self.terminating += 1


@dataclass
class World:
    old: Object
    new: Object
    intent: Intent | None
    max_gpus: int
    others: int
    now_s: float = 0.0
    wanted: int = 0

    def next(self) -> Turn:
        assert self.intent is not None
        seen = {one.side.object_name: one.seen() for one in (self.old, self.new)}
        return turn(
            self.intent,
            seen,
            others_gpus=self.others,
            max_gpus=self.max_gpus,
            now_s=self.now_s,
            wanted=self.wanted,
        )

    def of(self, side: Side) -> Object:
        return self.old if side.object_name == self.old.side.object_name else self.new

    def write(self) -> bool:
        """One write, if there is one; whoever did it forgets everything."""
        write = self.next().write
        if isinstance(write, Create):
            one = self.of(write.side)
            assert not one.there or one.retired
            one.there, one.retired = True, False
        elif isinstance(write, Scale):
            self.of(write.side).desired = write.replicas
        elif isinstance(write, Save):
            self.intent = write.intent
        elif isinstance(write, Retire):
            one = self.of(write.side)
            assert one.desired == 0
            assert not one.pods
            one.retired = True
        elif isinstance(write, Clear):
            self.intent = None
        return write is not None

    def share(self) -> float:
        return self.old.ready / self.old.side.workers + self.new.ready / self.new.side.workers

    def check(self, promised: float) -> None:
        assert self.old.gpus + self.new.gpus + self.others <= self.max_gpus
        assert self.share() >= promised - 1e-9


@st.composite
def worlds(draw: Any) -> World:
    gpus = draw(st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=2, max_size=2))
    need = draw(st.lists(st.integers(1, 6), min_size=2, max_size=2))
    old, new = (Side(name, tp, 1, g, n) for name, tp, g, n in zip("ab", (2, 4), gpus, need, strict=True))
    promised = draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
    surplus, others = draw(st.integers(0, 2)), draw(st.integers(0, 5))
    there = old.workers + surplus
    room = others + old.gpus * there + draw(st.integers(0, new.gpus * (new.workers + 1)))
    ordered = draw(st.booleans())
    return World(
        old=Object(old, ordered, desired=there, pods=[True] * there),
        new=Object(new, ordered, bad=draw(st.sampled_from([False, False, True])), there=False),
        intent=Intent("decode", old, new, promised, patience_s=1000.0, began_s=0.0),
        max_gpus=room,
        others=others,
    )


@settings(max_examples=300, deadline=None)
@given(worlds(), st.data())
def test_any_order_of_events_keeps_budget_and_promise_and_comes_to_an_end(world: World, data: st.DataObject) -> None:
    assert world.intent is not None
    promised = world.intent.promised
    ask_back = data.draw(st.none() | st.integers(0, 30), "asked back at")
    grow = data.draw(st.none() | st.integers(0, 30), "grows at")
    chaos = data.draw(st.lists(st.integers(0, 11), max_size=60), "order")
    for count in range(MOST_EVENTS):
        if world.intent is None:
            break
        if count == ask_back and world.intent.heading is Heading.FORWARD:
            world.intent = turned_back(world.intent, "asked")
        if count == grow:
            world.wanted = world.old.side.workers + 1
        events = [(one, event) for one in (world.old, world.new) for event in one.events()]
        choice = chaos[count] if count < len(chaos) else count
        # Writes and events in any order; afterwards in turn, so that each comes to pass.
        if choice % 3 == 0 or not events:
            wrote = world.write()
            if not wrote and not events:
                world.now_s += 2000.0
        else:
            one, event = events[choice % len(events)]
            one.happen(event)
        world.check(promised)
    if world.intent is None:
        ended = world.new if world.new.there and not world.new.retired else world.old
        other = world.old if ended is world.new else world.new
        assert other.retired or not other.there
        assert other.gpus == 0
        assert not (ended is world.new and world.new.bad)
        assert ended.ready >= ended.side.workers
        return
    # Only a rollback whose own way back has no room may stay open, and then nothing is lost but its time.
    assert world.intent.heading is Heading.BACK
    assert world.share() >= promised


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_the_load_alone_never_lets_a_change_that_serves_turn_back(world: World) -> None:
    world.new.bad = False
    world.max_gpus += world.new.side.gpus * world.new.side.workers
    for count in range(MOST_EVENTS):
        if world.intent is None:
            break
        if not world.write():
            events = [(one, event) for one in (world.old, world.new) for event in one.events()]
            assert events, "it waits for nothing"
            one, event = events[count % len(events)]
            one.happen(event)
        world.check(1.0)
    assert world.intent is None
    assert world.old.retired
    assert not world.new.retired


def test_a_world_can_tell_a_broken_step() -> None:
    side = Side("a", 2, 1, 2, 4)
    world = World(
        Object(side, False, desired=4, pods=[True] * 4),
        Object(Side("b", 4, 1, 4, 2), False, desired=2, pods=[False] * 2),
        None,
        max_gpus=12,
        others=0,
    )
    try:
        world.check(1.0)
    except AssertionError:
        pass
    else:
        raise AssertionError("16 GPUs of 12 went unnoticed")
    assert math.isclose(replace(world, others=0).share(), 1.0)
