"""A layout change in one object, under an operator that replaces workers as Deployments do; kills between writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.in_place import InPlace, Relayout, Rolling, turn_in_place
from planner.core.transition import Clear, Heading, Intent, Save, Scale, Seen, Side

MOST_EVENTS = 800


@dataclass
class World:
    """Workers of two layouts: [ready or not] each; terminating ones.

    What is asked for reaches it at once, or, through a scaling adapter, some time later.
    """

    intent: Intent | None
    max_gpus: int
    others: int
    desired: int
    bad: bool
    adapter: bool
    rolling: Rolling
    template: str = "old"
    pods: dict[str, list[bool]] = field(default_factory=lambda: {"old": [], "new": []})
    terminating: dict[str, int] = field(default_factory=lambda: {"old": 0, "new": 0})
    now_s: float = 0.0

    def side(self, name: str) -> Side:
        assert self.begun is not None
        return self.begun.old if name == "old" else self.begun.new

    def __post_init__(self) -> None:
        self.begun = self.intent
        self.pods["old"] = [True] * self.desired
        self.carried = self.desired

    @property
    def gpus(self) -> int:
        return sum((len(self.pods[n]) + self.terminating[n]) * self.side(n).gpus for n in ("old", "new"))

    def ready(self, name: str) -> int:
        return sum(self.pods[name])

    def write(self) -> bool:
        assert self.intent is not None
        layout = self.side(self.template)
        old, new = (Seen(0, len(self.pods[n]), self.ready(n), self.terminating[n]) for n in ("old", "new"))
        seen = InPlace(self.desired, (layout.tp, layout.dp), old, new, self.carried, self.rolling)
        _, write = turn_in_place(self.intent, seen, others_gpus=self.others, max_gpus=self.max_gpus, now_s=self.now_s)
        if isinstance(write, Scale):
            self.desired = write.replicas
            self.carried = self.carried if self.adapter else self.desired
        elif isinstance(write, Relayout):
            self.template = "new" if write.side == self.side("new") else "old"
        elif isinstance(write, Save):
            self.intent = write.intent
        elif isinstance(write, Clear):
            self.intent = None
        return write is not None

    def events(self) -> list[tuple[str, str]]:
        now, other = self.template, "old" if self.template == "new" else "new"
        found = [("carry", now)] if self.carried != self.desired else []
        asked = self.carried
        total, surge, away = (
            len(self.pods["old"]) + len(self.pods["new"]), self.rolling.beyond(asked), self.rolling.away(asked)
        )  # fmt: skip
        if len(self.pods[now]) < asked and total < asked + surge:
            found.append(("appear", now))
        serving = self.ready("old") + self.ready("new")
        if self.pods[other] and (not all(self.pods[other]) or serving > asked - away):
            found.append(("end", other))
        if len(self.pods[now]) > asked:
            found.append(("end", now))
        for name in ("old", "new"):
            if not all(self.pods[name]) and not (name == "new" and self.bad):
                found.append(("serve", name))
            if self.terminating[name]:
                found.append(("gone", name))
        return found

    def happen(self, event: str, name: str) -> None:
        pods = self.pods[name]
        if event == "carry":
            self.carried = self.desired
        elif event == "appear":
            pods.append(False)
        elif event == "serve":
            pods[pods.index(False)] = True
        elif event == "gone":
            self.terminating[name] -= 1
        else:
            pods.remove(False) if not all(pods) else pods.pop()
            self.terminating[name] += 1


rollings = st.sampled_from([Rolling(), Rolling(), Rolling(0, 1), Rolling(1, 0), Rolling(Fraction(1), 0)])


@st.composite
def worlds(draw: Any) -> World:
    gpus = draw(st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=2, max_size=2, unique=True))
    need = draw(st.lists(st.integers(1, 6), min_size=2, max_size=2))
    old, new = (Side("dgd", tp, 1, g, n) for tp, g, n in zip((2, 4), gpus, need, strict=True))
    others = draw(st.integers(0, 4))
    room = others + old.gpus * old.workers + draw(st.integers(0, 2 * (old.gpus + new.gpus) * 6))
    promised = draw(st.sampled_from([0.0, 0.3, 0.6, 1.0]))
    intent = Intent("decode", old, new, promised, patience_s=1000.0, began_s=0.0)
    return World(
        intent,
        room,
        others,
        old.workers,
        draw(st.sampled_from([False, False, True])),
        draw(st.booleans()),
        draw(rollings),
    )


@settings(max_examples=300, deadline=None)
@given(worlds(), st.data())
def test_the_budget_holds_and_it_ends_whatever_comes_first(world: World, data: st.DataObject) -> None:
    assert world.intent is not None
    promised = world.intent.promised
    chaos = data.draw(st.lists(st.integers(0, 11), max_size=60), "order")
    for count in range(MOST_EVENTS):
        if world.intent is None:
            break
        events = world.events()
        choice = chaos[count] if count < len(chaos) else count
        if choice % 3 == 0 or not events:
            if not world.write() and not events:
                world.now_s += 2000.0
        else:
            world.happen(*events[choice % len(events)])
        assert world.gpus + world.others <= world.max_gpus
        if world.intent is not None and world.intent.heading is Heading.FORWARD:
            assert sum(world.ready(name) / world.side(name).workers for name in ("old", "new")) >= promised - 1e-9
    assert world.intent is None, "it does not end"
    ended = world.template
    other = "old" if ended == "new" else "new"
    assert world.ready(ended) >= world.side(ended).workers
    assert not world.pods[other]
    assert not (world.bad and ended == "new")
