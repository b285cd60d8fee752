"""The slower loop: layouts are compared at their pace, a change is begun once, and the model becomes the other's."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from planner.connectors.base import ConnectorError, LayoutStatus, Supply, WorkerLoad
from planner.core.layout_change import LayoutProposal
from planner.core.record import DecisionRecord, decide_again, from_line, to_line
from planner.core.stabilise import Memory
from planner.core.state import PlannerState
from planner.core.types import Plan, Role
from planner.explain import explained
from planner.rebuild import capacity_of
from planner.service.faults import Stage
from planner.service.layouts import carried_over, followed
from planner.service.load import load_config
from planner.service.loop import Loop
from planner.service.model import load_model
from profiler.errors import InputError
from tests.unit.service.conftest import DOWN, NOON, PROFILES, FakeEyes, FakeGraph, Rig, Rigging, Time, settings

TP1, TP2 = (1, 1), (2, 1)


@dataclass
class ChangingGraph(FakeGraph):
    """Says which layouts it has, and takes one change at a time."""

    layouts: dict[str, tuple[int, int]] = field(default_factory=lambda: {"prefill": TP2, "decode": TP2})
    status: LayoutStatus = field(default_factory=LayoutStatus)
    proposals: list[LayoutProposal] = field(default_factory=list)
    refuses: bool = False

    def read(self) -> Supply:
        return replace(super().read(), layouts=self.layouts, layout_change=self.status)

    def apply(self, plan: Plan, holder: str, loads: Mapping[str, WorkerLoad] | None = None) -> Mapping[str, str]:
        return super().apply(plan, holder, loads)

    def change_layout(self, proposal: LayoutProposal, holder: str) -> str:
        assert holder == self.holder
        if self.refuses:
            raise ConnectorError("not now")
        self.proposals.append(proposal)
        self.status = LayoutStatus("decode is changing")
        return "begins"

    def finish(self, at_s: float) -> None:
        last = self.proposals[-1]
        self.layouts[last.pool] = last.new
        self.counts[last.pool] = last.new_workers
        self.status = LayoutStatus("", at_s, "done")


def wide_profiles(folder: Path) -> list[str]:
    """The shipped profiles as if two GPUs did what one does: TP1 then saves half of all."""
    made = []
    for role in ("prefill", "decode"):
        (source,) = PROFILES.rglob(f"{role}-tp1-dp1")
        target = folder / f"{role}-tp2-dp1"
        if not target.exists():
            shutil.copytree(source, target)
            meta = json.loads((target / "profile.json").read_text())
            meta["tp"], meta["gpu"]["count_per_worker"] = 2, 2
            (target / "profile.json").write_text(json.dumps(meta))
        made.append(str(target))
    return made


def configured(tmp_path: Path, **layouts: Any) -> Path:
    path = tmp_path / "planner.yaml"
    made = settings(
        profiles=[*wide_profiles(tmp_path), str(PROFILES)],
        budget={"max_gpus": 32},
        layouts={"enabled": True, "every_s": 60, **layouts},
    )
    path.write_text(yaml.safe_dump(made))
    return path


def rigged(tmp_path: Path, **layouts: Any) -> tuple[Rig, ChangingGraph]:
    path = configured(tmp_path, **layouts)
    config, time = load_config(path), Time()
    graph, eyes = ChangingGraph(time), FakeEyes()
    loop = Loop(config, load_model(config, path), graph, eyes, time.clock())
    return Rig(loop, graph, eyes, time), graph


def test_profiles_of_several_layouts_are_taken_with_layouts_enabled_alone(tmp_path: Path) -> None:
    path = configured(tmp_path)
    model = load_model(load_config(path), path)
    assert model.layouts == {"prefill": TP2, "decode": TP2}
    assert len(model.siblings) == 4
    path.write_text(path.read_text().replace("enabled: true", "enabled: false"))
    with pytest.raises(InputError, match="one per role"):
        load_model(load_config(path), path)


def test_what_was_learned_of_workers_of_another_layout_is_forgotten(tmp_path: Path) -> None:
    path = configured(tmp_path)
    model = load_model(load_config(path), path)
    other = followed(model, {"decode": TP1})
    assert other.layouts == {"prefill": TP2, "decode": TP1}
    kept = Memory(recommended=((1.0, 3),))
    state = PlannerState(
        memory={"prefill": kept, "decode": kept},
        last_good={"prefill": 3, "decode": 3},
        residuals={Role.PREFILL: 1.1, Role.DECODE: 1.3},
        ready={"prefill": 3, "decode": 3},
        dispersion=2.0,
    )
    expected = replace(state, memory={"prefill": kept}, last_good=None, residuals={Role.PREFILL: 1.1}, ready={})
    assert carried_over(state, model, other) == expected


def test_a_change_that_pays_is_begun_once_and_ends_in_the_other_model(tmp_path: Path) -> None:
    rig, graph = rigged(tmp_path)
    while not graph.proposals:
        assert rig.time.wall_s < NOON + 3600
        rig.ticks()
    first = graph.proposals[0]
    assert (first.old, first.new) == (TP2, TP1)
    assert rig.outcome[f"layout of {first.pool}"] == "begins"
    rig.ticks(20)
    assert len(graph.proposals) == 1, "another is begun while the first is under way"
    graph.finish(rig.time.wall_s)
    rig.ticks()
    pools = rig.loop.snapshot.settings.pools_by_name  # type: ignore[union-attr]
    assert pools[first.pool].gpus_per_worker == 1
    assert rig.loop.model.layouts[first.pool] == TP1
    # The other pool is not changed before what this one saves is earned.
    rig.ticks(20)
    assert len(graph.proposals) == 1
    rig.ticks(240)
    assert len(graph.proposals) == 2
    assert graph.proposals[1].pool != first.pool


def test_a_refusal_is_a_failure_of_that_stage_and_is_tried_again_later(tmp_path: Path) -> None:
    rig, graph = rigged(tmp_path)
    graph.refuses = True
    rig.ticks(60)
    assert graph.applied, "the other half of the tick works on"
    assert rig.loop.faults.active("layouts") is not None  # type: ignore[arg-type]
    graph.refuses = False
    rig.ticks(10)
    assert graph.proposals


def test_the_record_tells_and_replays(tmp_path: Path) -> None:
    rig, graph = rigged(tmp_path)
    while not graph.proposals:
        rig.ticks()
    record = rig.loop.snapshot.record  # type: ignore[union-attr]
    assert record is not None
    line = to_line(record)
    again = from_line(line, source="journal", number=1)
    assert again.layouts == record.layouts
    assert decide_again(again, capacity_of(again)) == record.decision
    page = io.StringIO()
    Console(file=page, width=200).print(explained(again))
    assert "saves" in page.getvalue()
    assert "proposed" in page.getvalue()


def test_records_of_before_are_read(tmp_path: Path) -> None:
    rig, _ = rigged(tmp_path)
    rig.ticks()
    record = rig.loop.snapshot.record  # type: ignore[union-attr]
    assert isinstance(record, DecisionRecord)
    assert record.layouts is None
    old = to_line(record).replace(',"layouts":null', "")
    assert "layouts" not in old
    assert from_line(old, source="journal", number=1) == record


def test_a_standby_compares_nothing(tmp_path: Path) -> None:
    rig, graph = rigged(tmp_path)
    graph.holder, graph.until_s = "another", NOON + 1e9
    rig.ticks(60)
    assert not graph.proposals


def test_a_graph_that_cannot_change_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    path = configured(tmp_path)
    made = yaml.safe_load(path.read_text())
    made["connector"] = {"kind": "local", "local": {"control_url": "http://127.0.0.1:7070"}}
    path.write_text(yaml.safe_dump(made))
    with pytest.raises(InputError, match="kind 'local'"):
        load_config(path)


# -- without a plan ------------------------------------------------------------------------------------------------


def half_changed(rig: Rigging, **changes: Any) -> tuple[Rig, ChangingGraph]:
    """A fresh planner of TP1 on a graph in which another one has begun to change decode from TP2.

    Workers of two GPUs are not what its profiles were measured on, so that it has no plan until the change has ended.
    """
    graph = ChangingGraph(Time(), counts={"prefill": 2, "decode": 3}, gpus={"decode": 2})
    graph.status = LayoutStatus("layout change of decode: tp2 to tp1")
    return rig(graph=graph, **changes), graph


def test_a_change_goes_on_without_a_plan_with_what_is_asked_for_now(rig: Rigging) -> None:
    made, graph = half_changed(rig)
    made.ticks(3)
    assert made.decision.plan == {}
    assert graph.applied == [("one", {"prefill": 2, "decode": 3})] * 3
    assert made.outcome == {"prefill": "2 -> 2", "decode": "3 -> 3"}
    # What keeps the plan away is over with the change.
    graph.status, graph.gpus = LayoutStatus("", made.time.wall_s, "done"), {"decode": 1}
    made.ticks(1)
    assert made.decision.plan
    assert graph.applied[-1][1] == made.decision.plan


def test_without_a_change_nothing_is_asked_for_without_a_plan(rig: Rigging) -> None:
    made, graph = half_changed(rig)
    graph.status = LayoutStatus()
    made.ticks(2)
    assert made.outcome == {}
    # Nor where it is not known whether there is one.
    graph.status = LayoutStatus("layout change of decode: tp2 to tp1")
    graph.fails["read"] = DOWN
    made.ticks(2)
    assert graph.applied == []


def test_a_change_goes_on_while_deciding_fails(rig: Rigging, monkeypatch: pytest.MonkeyPatch) -> None:
    made, graph = half_changed(rig)

    def broken(*_: object) -> object:
        raise ZeroDivisionError("poisoned")

    monkeypatch.setattr(type(made.loop._planner), "decide", broken)
    made.ticks(2)
    assert made.loop.faults.active(Stage.DECIDE) is not None
    assert graph.applied == [("one", {"prefill": 2, "decode": 3})] * 2


def test_only_the_holder_carries_a_change_on(rig: Rigging) -> None:
    made, graph = half_changed(rig)
    graph.holder, graph.until_s = "another", NOON + 1e9
    made.ticks(2)
    assert made.outcome == {"*": "standby: lease held by another"}
    graph.fails["lease"] = DOWN
    made.ticks(2)
    assert made.outcome["*"].startswith("not applied: the lease is unknown")
    assert graph.applied == []


def test_a_change_that_cannot_go_on_is_a_failure_of_that_stage(rig: Rigging) -> None:
    made, graph = half_changed(rig)
    graph.fails["apply"] = DOWN
    made.ticks(2)
    assert made.outcome == {"*": "failed: the supervisor is down"}
    assert made.loop.faults.active(Stage.APPLY) is not None
