"""Ticks on a fake graph: what is decided is applied by the lease's holder alone, and no failure ends the loop."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from planner.connectors.base import ConnectorError
from planner.core.record import decide_again, from_line
from planner.core.settings import PlannerSettings
from planner.core.state import PlannerState
from planner.core.types import Known, Level, Unknown
from planner.rebuild import capacity_of
from planner.service.carry import carried
from planner.service.faults import Stage
from planner.service.model import Model
from tests.unit.service.conftest import DOWN, FakeEyes, FakeGraph, Rigging, Time


def test_the_plan_is_applied_recorded_and_replays(rig: Rigging) -> None:
    made = rig(eyes=FakeEyes(rate_rps=40.0)).ticks(6)
    assert made.decision.level is Level.MODEL
    assert made.graph.counts == made.decision.plan
    assert made.graph.counts["prefill"] + made.graph.counts["decode"] > 2
    made.loop.close()
    lines = made.loop.journal.path.read_text().splitlines()
    records = [from_line(line, source="journal", number=k) for k, line in enumerate(lines, 1)]
    assert len(records) == 6
    capacity = capacity_of(records[0])
    assert all(decide_again(record, capacity) == record.decision for record in records)
    assert made.graph.holder == ""
    assert made.eyes.closed


def test_a_restart_decides_as_if_there_had_been_none(rig: Rigging, tmp_path: Path) -> None:
    def decisions(restart_after: int | None, folder: str) -> list[object]:
        time = Time()
        graph, eyes, seen = FakeGraph(time), FakeEyes(), []
        made = rig(folder, graph=graph, eyes=eyes)
        for k, rate in enumerate([20, 30, 90, 120, 120, 5, 5, 5, 5, 5, 5, 60]):
            eyes.rate_rps = float(rate)
            if k == restart_after:
                made.loop.close()
                made = rig(folder, graph=graph, eyes=eyes)
            seen.append(made.ticks().decision)
        return seen

    plain = decisions(None, "plain")
    assert len({json.dumps(d.plan) for d in plain}) > 2  # type: ignore[attr-defined]
    for k in (1, 5, 8):
        assert decisions(k, f"at{k}") == plain


def test_a_glance_hurries_for_a_surge_and_only_the_planner_that_acts(rig: Rigging) -> None:
    time = Time()
    graph = FakeGraph(time)
    one = rig("one", graph=graph, service={"identity": "one"}).ticks(8)
    two = rig("two", graph=graph, service={"identity": "two"}).ticks(1)
    one.ticks(1)
    two.eyes.rate_rps = one.eyes.rate_rps = 60.0
    counts = []
    for later_s in (4.0, 5.0, 10.0, 14.0):
        time.wall_s += later_s
        counts.append(one.loop.glance())
        assert not two.loop.glance(), "a standby has no reason to hurry"
        time.wall_s -= later_s
    assert counts == [False, True, True, False], "too early to be a bin, twice in time, due anyway"
    assert not one.loop.faults.active(Stage.OBSERVE)
    one.eyes.rate_rps = 21.0
    time.wall_s += 5.0
    assert not one.loop.glance()
    one.eyes.rate_rps = Unknown("no news")
    assert not one.loop.glance()


def test_no_glance_waits_for_metrics_that_the_last_tick_has_not_seen(rig: Rigging) -> None:
    made = rig().ticks(8)
    made.eyes.rate_rps = Unknown("the server hangs")
    made.ticks(1)
    made.time.wall_s += 5.0
    made.eyes.fails = AssertionError("not looked at")
    assert not made.loop.glance()
    assert not made.loop.faults.active(Stage.OBSERVE)


def test_a_glance_that_fails_is_a_fault_and_no_more(rig: Rigging) -> None:
    made = rig().ticks(8)
    made.time.wall_s += 5.0
    made.eyes.fails = RuntimeError("blinded")
    assert not made.loop.glance()
    fault = made.loop.faults.active(Stage.OBSERVE)
    assert fault is not None
    assert "blinded" in fault.text
    made.eyes.fails = None
    made.ticks(1, every_s=10.0)
    assert not made.loop.faults.active(Stage.OBSERVE)


def test_a_tick_that_a_glance_has_hurried_follows_the_surge_at_once(rig: Rigging) -> None:
    made = rig(eyes=FakeEyes(rate_rps=20.0)).ticks(8)
    before = dict(made.graph.counts)
    made.eyes.rate_rps = 60.0
    made.ticks(1, every_s=5.0)
    assert "surge" in made.decision.reasons
    assert sum(made.graph.counts.values()) > sum(before.values())
    assert made.eyes.spans_s[-1] == 5.0
    made.ticks(1, every_s=15.0)
    assert made.eyes.spans_s[-1] == 15.0


def test_of_two_planners_one_acts(rig: Rigging) -> None:
    time = Time()
    graph = FakeGraph(time)
    one = rig("one", graph=graph, service={"identity": "one"})
    two = rig("two", graph=graph, service={"identity": "two"})
    for _ in range(4):
        one.ticks(1)
        two.ticks(1, every_s=0.0)
    assert {holder for holder, _ in graph.applied} == {"one"}
    assert two.outcome == {"*": "standby: lease held by one"}
    assert two.decision.level is Level.MODEL
    one.loop.close()
    two.ticks(1)
    assert graph.applied[-1][0] == "two"


def test_a_crashed_holder_is_followed_when_its_lease_lapses(rig: Rigging) -> None:
    graph = FakeGraph(Time())
    rig("one", graph=graph, service={"identity": "one"}).ticks(1)
    two = rig("two", graph=graph, service={"identity": "two"})
    assert [two.ticks(1).graph.holder for _ in range(3)] == ["one", "one", "two"]


def test_a_lost_lease_is_no_failure(rig: Rigging, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig().ticks(2)
    lease = made.graph.lease

    def stolen(holder: str, duration_s: float) -> object:
        state = lease(holder, duration_s)
        made.graph.holder = "thief"
        return state

    monkeypatch.setattr(made.graph, "lease", stolen)
    made.ticks(1)
    assert made.outcome == {"*": "standby: thief holds the lease"}
    assert Stage.APPLY not in made.loop.faults.last


@pytest.mark.parametrize(
    ("method", "stage", "said"),
    [
        ("read", Stage.READ, {}),
        ("lease", Stage.LEASE, {"*": "not applied: the lease is unknown: the supervisor is down"}),
        ("apply", Stage.APPLY, {"*": "failed: the supervisor is down"}),
    ],
)
def test_a_connector_that_fails_is_noted_and_recovers(
    rig: Rigging, caplog: pytest.LogCaptureFixture, method: str, stage: Stage, said: dict[str, str]
) -> None:
    caplog.set_level(logging.INFO)
    made = rig().ticks(3)
    before = len(made.graph.applied)
    made.graph.fails[method] = DOWN
    made.ticks(4)
    if said:
        assert made.outcome == said
        assert len(made.graph.applied) == before
    fault = made.loop.faults.active(stage)
    assert fault is not None
    assert (fault.text, fault.in_a_row) == ("the supervisor is down", 4)
    # Once when it begins, not at every tick; and once when it ends.
    assert sum("is down" in line.getMessage() and line.levelname == "ERROR" for line in caplog.records) == 1
    made.graph.fails.clear()
    made.ticks(2)
    assert made.loop.faults.active(stage) is None
    assert sum("works again after 4 failures" in line.getMessage() for line in caplog.records) == 1
    assert made.decision.level is Level.MODEL
    assert made.graph.applied[-1][1] == made.decision.plan


def test_an_unknown_supply_repeats_the_last_plan_and_without_one_asks_for_nothing(rig: Rigging) -> None:
    blind = rig("blind")
    blind.graph.fails["read"] = DOWN
    blind.ticks(2)
    assert blind.decision.level is Level.LAST_GOOD
    assert "the supervisor is down" in blind.decision.reasons[0]
    assert blind.graph.applied == []
    assert blind.outcome == {}
    seeing = rig("seeing").ticks(3)
    plan = seeing.decision.plan
    seeing.graph.fails["read"] = DOWN
    seeing.ticks(1)
    assert (seeing.decision.level, seeing.graph.applied[-1][1]) == (Level.LAST_GOOD, plan)


def test_workers_of_other_gpus_than_the_profile_are_not_scaled(rig: Rigging) -> None:
    graph = FakeGraph(Time(), gpus={"prefill": 0, "decode": 2})
    made = rig(graph=graph).ticks(3)
    assert graph.applied == [], "a plan within the budget by the profile may be twice the budget in the graph"
    said = "a worker of pool decode holds 2 GPUs in the graph, 1 in its profile"
    assert made.loop.faults.last[Stage.READ].text == said
    graph.gpus["decode"] = 1
    made.ticks(1)
    assert made.loop.faults.active(Stage.READ) is None
    assert graph.applied


def test_an_observer_that_fails_holds_the_plan(rig: Rigging) -> None:
    made = rig().ticks(3)
    counts = dict(made.graph.counts)
    made.eyes.fails = RuntimeError("broken")
    made.ticks(2)
    assert made.decision.level is Level.HOLD
    assert "observing failed: RuntimeError: broken" in made.decision.reasons[0]
    assert made.graph.counts == counts
    made.eyes.fails = None
    assert made.ticks(1).decision.level is Level.MODEL


def test_a_state_that_cannot_be_decided_on_is_given_up(rig: Rigging, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig().ticks(3)
    decide, poisoned = type(made.loop._planner).decide, made.loop._state

    def failing(self: object, state: PlannerState, *rest: object) -> object:
        if state.lengths == poisoned.lengths:
            raise ZeroDivisionError("poisoned")
        return decide(self, state, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(type(made.loop._planner), "decide", failing)
    made.ticks(3)
    fault = made.loop.faults.active(Stage.DECIDE)
    assert fault is not None
    assert fault.text == "ZeroDivisionError: poisoned"
    assert made.loop.snapshot is not None
    assert made.loop.snapshot.record is None
    made.ticks(1)
    assert made.loop.faults.active(Stage.DECIDE) is None


def test_measured_starts_replace_the_lead_time(rig: Rigging) -> None:
    made = rig(speed_up=10.0)
    made.graph.startup_s = {"decode": (4.0, 5.0)}
    made.ticks(1, every_s=1.5)
    first = made.loop.snapshot
    assert first is not None
    assert (first.settings.lead_time_s, first.lead_time_measured) == (60.0, False)
    made.graph.startup_s = {"decode": (4.0, 5.0, 6.0, float("nan"), -1.0), "prefill": (1.0, 2.0, 3.0)}
    made.ticks(2, every_s=1.5)
    measured = made.loop.snapshot
    assert measured is not None
    # p90 of 4, 5 and 6 s of wall time, ten times as fast.
    assert measured.settings.lead_time_s == pytest.approx(58.0)
    assert measured.record is not None
    assert first.record is not None
    assert measured.record.settings.lead_time_s == measured.settings.lead_time_s
    assert measured.record.settings_hash != first.record.settings_hash
    made.loop.close()
    again = rig(graph=FakeGraph(made.time), speed_up=10.0).ticks(1, every_s=1.5)
    assert again.loop.snapshot is not None
    assert again.loop.snapshot.settings.lead_time_s == measured.settings.lead_time_s


def test_missed_ticks_are_unknown_bins_and_a_true_interval(rig: Rigging) -> None:
    made = rig().ticks(4)
    made.ticks(1, every_s=45.0)
    assert made.eyes.spans_s == [15.0, 15.0, 15.0, 15.0, 45.0]
    assert made.loop._state.forecast.rates_rps == (20.0, 20.0, 20.0, 20.0, None, None, 20.0)
    assert made.decision.level is Level.MODEL
    # After a night the mean of the night says nothing.
    made.ticks(1, every_s=8 * 3600.0)
    assert made.eyes.spans_s[-1] == 60.0
    assert made.ticks(1).decision.level is Level.MODEL


def test_a_clock_set_back_does_not_stop_the_forecast(rig: Rigging) -> None:
    made = rig().ticks(6)
    made.ticks(1, every_s=-3600.0)
    made.eyes.rate_rps = 60.0
    made.ticks(2)
    assert made.loop._state.forecast.rates_rps[-3:] == (20.0, 60.0, 60.0)
    ids = [entry.number for entry in made.loop.history.page(0, 100)]
    assert ids == sorted(set(ids))


def test_what_time_does_to_the_state(rig: Rigging, model: Model) -> None:
    made = rig(eyes=FakeEyes(rate_rps=60.0)).ticks(6)
    state, settings = made.loop._state, model.settings
    last = state.forecast.at_s
    assert last is not None
    assert state.memory["decode"].recommended
    assert carried(state, settings, last + 15.0) == state
    # A tick in two intervals, time after time, still remembers: else nothing would ever be lowered.
    assert carried(state, settings, last + 30.0) == state
    late = carried(state, settings, last + 120.0)
    # A hole in the recommendations: what is asked for now stands for what was not seen.
    assert late.memory["decode"].recommended == ()
    assert late.error_budget.offered < state.error_budget.offered
    assert late.last_good == state.last_good
    assert carried(state, settings, last + 3600.0).last_good is None
    small: PlannerSettings = settings.model_copy(update={"max_gpus": 2})
    assert state.last_good is not None
    assert sum(state.last_good.values()) > 2
    assert carried(state, small, last + 15.0).last_good is None


def test_unknown_load_lowers_nothing(rig: Rigging) -> None:
    made = rig(eyes=FakeEyes(rate_rps=60.0)).ticks(4)
    counts = dict(made.graph.counts)
    made.eyes.rate_rps = Unknown("Prometheus is down")
    made.ticks(30)
    assert made.graph.counts == counts
    assert isinstance(made.loop.snapshot.record.observation.pools, Known)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"graph":"chat","speed_up":1,"lead_time_s":null,"state":{"memory":5},"version":1}', "damaged"),
        ('{"graph":"chat","speed_up":1,"lead_time_s":null,"state":{},"version":2}', "damaged"),
        ('{"graph":"other","speed_up":1,"lead_time_s":null,"state":{},"version":1}', "other"),
        ('{"graph":"chat","speed_up":5,"lead_time_s":null,"state":{},"version":1}', "other"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_kept_aside(
    rig: Rigging, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, suffix: str
) -> None:
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "planner-checkpoint.json"
    file.write_text(content)
    made = rig()
    assert made.loop._state == PlannerState()
    assert file.with_name(f"{file.name}.{suffix}").read_text() == content
    assert "starts without memory" in caplog.text
    made.ticks(1)
    assert json.loads(file.read_text())["graph"] == "chat"


@dataclass
class Memory:
    """A keeper in memory."""

    shared: bool = False
    content: bytes | None = None
    fails: Exception | None = None
    where: str = "memory"
    writes: int = 0

    def read(self) -> bytes | None:
        if self.fails is not None:
            raise self.fails
        return self.content

    def write(self, content: bytes) -> None:
        self.content, self.writes = content, self.writes + 1

    def aside(self, suffix: str) -> str:
        raise AssertionError(suffix)


def test_a_checkpoint_that_cannot_be_read_yet_is_taken_up_later_and_not_written_over(rig: Rigging) -> None:
    learned = Memory()
    first = rig("a", keeper=learned)
    first.graph.startup_s = {"decode": (5.0, 6.0, 7.0)}
    first.ticks(3)
    kept, learned.fails = learned.content, ConnectorError("cut")

    second = rig("b", keeper=learned)
    second.ticks(2)
    assert learned.content == kept
    assert second.loop.faults.active(Stage.CHECKPOINT) is not None
    assert second.loop.snapshot is not None
    assert not second.loop.snapshot.lead_time_measured

    learned.fails = None
    second.ticks(1)
    assert second.loop.faults.active(Stage.CHECKPOINT) is None
    assert second.loop.snapshot.lead_time_measured
    assert learned.writes == 4


def test_a_shared_checkpoint_is_kept_by_the_planner_that_acts(rig: Rigging) -> None:
    keeper = Memory(shared=True)
    made = rig(keeper=keeper)
    made.graph.holder, made.graph.until_s = "another", float("inf")
    made.ticks(2)
    assert keeper.writes == 0
    made.graph.holder = ""
    made.ticks(1)
    assert keeper.writes == 1


def test_notices_are_logged_once_shown_and_logged_when_they_are_over(
    rig: Rigging, caplog: pytest.LogCaptureFixture
) -> None:
    made = rig()
    caplog.set_level("INFO")
    made.graph.notices = ("an HPA sets the same replicas",)
    made.ticks(2)
    assert made.loop.snapshot is not None
    assert made.loop.snapshot.notices == made.graph.notices
    assert b'sla_planner_notices{graph="chat",model="llama"} 1.0' in made.loop.metrics.text()
    made.graph.notices = ()
    made.ticks(1)
    said = [record.getMessage() for record in caplog.records if "HPA" in record.getMessage()]
    assert said == ["an HPA sets the same replicas", "over: an HPA sets the same replicas"]
