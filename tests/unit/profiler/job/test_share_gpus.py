"""A pair on the same GPUs: one engine started after the other, and their hand-off joins the decode profile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from profiler.engines.machine import Machine
from profiler.errors import InputError
from profiler.job import handoff
from profiler.job.plan import units_of
from profiler.job.record import LayoutRecord
from profiler.job.sweep import sweep
from profiler.job.tools import Tools
from profiler.models.layouts import Layout
from profiler.record.schedule import parse_schedule
from profiler.tables import fingerprint, load_profile
from tests.unit.profiler.job.fakes import FakeEngine, FakeMeter, Killed, prepared, samples_in, settings, tools

HOME = Path("llama-3.1-8b-instruct/h100-sxm/vllm-0.26.0")
SHARED: dict[str, Any] = {"layouts": (), "pair": (Layout(1), Layout(2)), "gpus": 2, "gpu_memory_utilization": 0.45}


def do(to: Path, tool: Tools, **changes: Any) -> tuple[int, LayoutRecord]:
    """Exit code and what became of the one layout."""

    async def whole() -> tuple[int, LayoutRecord]:
        code, record = await sweep(await prepared(to, **changes), tool)
        return code, record.layouts[0]

    return asyncio.run(whole())


def plain(version: str = "0.26.0") -> Tools:
    return tools(lambda *_: FakeEngine(), FakeMeter, version=version)


def share(to: Path, tool: Tools | None = None, **changes: Any) -> tuple[int, LayoutRecord]:
    return do(to, tool or plain(), **(SHARED | {"share_gpus": True, "name": "share"} | changes))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with profiles of TP 2."""
    assert do(tmp_path, plain(), layouts=(Layout(2),), name="alone")[0] == 0
    return tmp_path


@dataclass
class Noted(FakeEngine):
    """Writes down what is asked of it."""

    said: list[str] = field(default_factory=list)
    number: int = 0

    async def spawn(self) -> None:
        self.said.append(f"spawn {self.number}")
        await super().spawn()

    async def start(self) -> float | None:
        await asyncio.sleep(0)
        self.said.append(f"serves {self.number}")
        return await super().start()


def noted(said: list[str]) -> Callable[..., FakeEngine]:
    return lambda _, number: Noted(said=said, number=number)


def test_both_lie_on_the_same_gpus_and_start_one_after_the_other(there: Path) -> None:
    (unit,) = asyncio.run(prepared(there, **SHARED, share_gpus=True, name="share")).plan.units
    assert [worker.gpus for worker in unit.workers] == [(0,), (0, 1)]
    assert (unit.gpus, unit.devices, unit.shares_gpus) == (2, (0, 1), True)
    said: list[str] = []
    code, record = share(there, tools(noted(said), FakeMeter))
    assert (code, record.gpus) == (0, 2)
    assert said == ["spawn 0", "serves 0", "spawn 1", "serves 1"]
    apart: list[str] = []
    assert (
        do(there, tools(noted(apart), FakeMeter), **(SHARED | {"gpus": 3, "name": "apart", "overwrite": True}))[0] == 0
    )
    assert apart[:2] == ["spawn 0", "spawn 1"]


def test_only_the_hand_off_is_measured_and_it_joins_the_profile_that_is_there(there: Path) -> None:
    before = load_profile(there / HOME / "decode-tp2-dp1")
    others = {path: fingerprint(path) for path in (there / HOME).iterdir() if path != before.path}
    code, record = share(there)
    assert (code, record.outcome, record.profiles) == (0, "done", [str(HOME / "decode-tp2-dp1")])
    assert {table for table, _ in samples_in(there / ".run-share" / "samples-pair-tp1-tp2.jsonl")} == {"transfer"}
    after = load_profile(before.path)
    assert set(after.samples) == {"decode", "transfer"}
    assert set(after.samples["transfer"]["prefill_tp"]) == {1.0}
    assert (after.path / "decode.csv").read_bytes() == (before.path / "decode.csv").read_bytes()
    assert {path: fingerprint(path) for path in others} == others
    found = after.transfer_from(2)
    assert found is not None
    assert found[1] == 1
    assert after.meta.startup_s == before.meta.startup_s
    assert after.meta.kv_capacity_tokens == before.meta.kv_capacity_tokens
    assert any(
        text.startswith("hand-off from TP1 measured with both engines on the same GPUs") for text in after.meta.warnings
    )
    assert after.meta.errors["transfer"].mean < 0.05
    assert before.meta.cost is not None
    assert after.meta.cost is not None
    # Twelve seconds of one GPU and of two.
    added = after.meta.cost.startup_gpu_minutes - before.meta.cost.startup_gpu_minutes
    assert added == pytest.approx((12 + 24) / 60, abs=2e-3)
    assert record.tables["pair"]["transfer"]["mean"] == pytest.approx(found[0].leave_one_out.summary.mean)  # type: ignore[union-attr]


def test_hand_offs_from_one_tp_replace_those_and_leave_others(there: Path) -> None:
    assert share(there)[0] == 0
    assert share(there, pair=(Layout(2), Layout(2)), name="two")[0] == 0
    path = there / HOME / "decode-tp2-dp1"
    first = load_profile(path)
    assert share(there, name="again", longest_isl=512)[0] == 0
    second = load_profile(path)
    for tp in (1, 2):
        rows = [profile.samples["transfer"]["tokens"][profile.samples["transfer"]["prefill_tp"] == tp] for profile in
                (first, second)]  # fmt: skip
        assert (rows[0].tolist() == rows[1].tolist()) == (tp == 2)
    assert [text.split(" measured")[0] for text in second.meta.warnings if " same GPUs" in text] == [
        "hand-off from TP2",
        "hand-off from TP1",
    ]


def test_a_kill_after_the_profile_was_written_adds_its_cost_once(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = handoff.add

    def killed(*args: Any, **more: Any) -> None:
        add(*args, **more)
        raise Killed

    path = there / HOME / "decode-tp2-dp1"
    with monkeypatch.context() as patch:
        patch.setattr("profiler.job.handoff.add", killed)
        with pytest.raises(Killed):
            share(there)
    written = fingerprint(path)
    said: list[str] = []
    code, record = share(there, tools(noted(said), FakeMeter), resume=True)
    assert (code, said, record.profiles) == (0, [], [str(HOME / "decode-tp2-dp1")])
    assert fingerprint(path) == written


def test_without_the_decode_profile_nothing_is_started(tmp_path: Path) -> None:
    do(tmp_path, plain(), name="alone")  # of TP 1
    said: list[str] = []
    with pytest.raises(InputError, match=r"no decode profile of tp2 .*measure `--layout tp2` first") as caught:
        share(tmp_path, tools(noted(said), FakeMeter))
    assert (caught.value.field, said) == ("--to", [])
    assert not (tmp_path / ".run-share").exists()


def test_another_version_of_the_engine_is_refused_before_a_sample(there: Path) -> None:
    before = fingerprint(there / HOME / "decode-tp2-dp1")
    code, record = share(there, plain("0.27.0"))
    assert code == 2
    assert "vLLM 0.27.0, but one of 0.26.0" in record.reason
    assert samples_in(there / ".run-share" / "samples-pair-tp1-tp2.jsonl") == []
    assert fingerprint(there / HOME / "decode-tp2-dp1") == before


@pytest.mark.parametrize(
    ("changes", "option", "said"),
    [
        ({"pair": None, "layouts": (Layout(2),)}, "--share-gpus", "--pair with it"),
        ({"gpu_memory_utilization": None}, "--gpu-memory-utilization", "is missing"),
        ({"gpu_memory_utilization": 0.49}, "--gpu-memory-utilization", "is 0.49"),
        ({"record": (parse_schedule("poisson:rate=1,duration_s=9,isl=9,osl=9"),)}, "--record", "slow each other down"),
        ({"pair": (Layout(1), Layout(4))}, "--pair", "needs 4 GPUs"),
    ],
)
def test_refused(there: Path, changes: dict[str, Any], option: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        share(there, **changes)
    assert caught.value.field == option
    assert said in str(caught.value)


def test_refused_where_engines_run_on_the_processor(tmp_path: Path) -> None:
    given = settings(tmp_path, layouts=(), pair=SHARED["pair"], share_gpus=True)
    with pytest.raises(InputError, match="--share-gpus: is given where there are no GPUs"):
        units_of(given, Machine("cpu"), SHARED["pair"])
