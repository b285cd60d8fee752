"""The run: what becomes of layouts, of the samples of a run that was killed, and of the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from profiler.engines.engine import EngineDiedError
from profiler.errors import DependencyError, InputError
from profiler.job.journal import Journal, StorageError
from profiler.job.status import Reporter
from profiler.job.sweep import sweep
from profiler.measure import Point, SampleError
from profiler.models.layouts import Layout
from profiler.tables import load_profile
from tests.unit.profiler.job.fakes import FakeEngine, FakeMeter, Killed, prepared, samples_in, tools

RUN = ".run-llama-3.1-8b-instruct-h100-sxm"
HOME = Path("llama-3.1-8b-instruct/h100-sxm/vllm-0.26.0")
TWO = (Layout(1), Layout(2))


def do(to: Path, tool: Any, **changes: Any) -> tuple[int, dict[str, Any]]:
    """Run it; exit code and the layouts of run.json by name."""

    async def whole() -> int:
        code, _ = await sweep(await prepared(to, **changes), tool)
        return code

    code = asyncio.run(whole())
    folder = next(to.glob(".run-*"))
    return code, {one["name"]: one for one in json.loads((folder / "run.json").read_text())["layouts"]}


def healthy() -> Any:
    return tools(lambda *_: FakeEngine(), FakeMeter)


def test_one_engine_gives_three_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[str] = []
    update = Reporter.update

    def noted(self: Reporter, **changes: Any) -> None:
        update(self, **changes)
        if self.status.phase not in phases[-1:]:
            phases.append(self.status.phase)
            assert json.loads((tmp_path / RUN / "status.json").read_text())["phase"] == self.status.phase

    monkeypatch.setattr(Reporter, "update", noted)
    engine = FakeEngine()
    code, layouts = do(tmp_path, tools(lambda *_: engine, FakeMeter), status_file=tmp_path / "s.yaml")
    assert code == 0
    assert phases == ["initialising", "starting", "sampling", "saving", "done"]
    assert "phase: done" in (tmp_path / "s.yaml").read_text()
    assert layouts["tp1"]["profiles"] == [str(HOME / f"{role}-tp1-dp1") for role in ("prefill", "decode", "aggregated")]
    profile = load_profile(tmp_path / HOME / "aggregated-tp1-dp1")
    assert set(profile.samples) == {"prefill", "decode", "mixed"}
    meta = profile.meta
    assert (meta.driver, meta.startup_s) == ("570.1", (12.0,))
    assert meta.kv_capacity_check is not None
    assert meta.kv_capacity_check.startswith("1.000 of")
    assert meta.cost is not None
    assert meta.cost.startup_gpu_minutes == pytest.approx(0.2)
    assert meta.engine.arguments is not None
    assert "--max-num-seqs" in meta.engine.arguments
    assert meta.errors["decode"].mean < 0.05
    assert engine.stopped == 1


def test_a_layout_out_of_memory_leaves_the_others(tmp_path: Path) -> None:
    dead = EngineDiedError("out of memory (ended with code 1)", ["torch.OutOfMemoryError: CUDA out of memory"])
    engines = {"tp1": FakeEngine(start_error=dead), "tp2": FakeEngine()}
    code, layouts = do(tmp_path, tools(lambda unit, _: engines[unit.name], FakeMeter), layouts=TWO)
    assert code == 1
    assert (layouts["tp1"]["outcome"], layouts["tp2"]["outcome"]) == ("failed", "done")
    assert layouts["tp1"]["reason"] == "out of memory (ended with code 1)"
    assert layouts["tp1"]["log"] == ["torch.OutOfMemoryError: CUDA out of memory"]
    assert engines["tp1"].stopped == 1


def test_no_profile_at_all_is_a_failed_dependency(tmp_path: Path) -> None:
    dead = FakeEngine(start_error=EngineDiedError("did not get healthy within 900 s"))
    code, _ = do(tmp_path, tools(lambda *_: dead, FakeMeter), layouts=TWO)
    assert code == 3


def test_an_engine_that_dies_in_the_middle_of_a_sample(tmp_path: Path) -> None:
    engine = FakeEngine()
    count = 0

    async def wait_for_ever(_: Point) -> None:
        nonlocal count
        count += 1
        if count == 4:
            engine.dies.set()
            await asyncio.Event().wait()

    code, layouts = do(tmp_path, tools(lambda *_: engine, lambda: FakeMeter(wait_for_ever)))
    assert code == 3
    assert layouts["tp1"]["reason"] == "ended with code -9"
    assert layouts["tp1"]["log"] == ["last words"]
    assert len(samples_in(tmp_path / RUN / "samples-tp1.jsonl")) == 3
    assert engine.stopped == 1


def test_an_engine_that_hangs(tmp_path: Path) -> None:
    engine = FakeEngine()
    meter = FakeMeter(lambda point: asyncio.Event().wait() if point.table == "decode" else None)
    code, layouts = do(tmp_path, tools(lambda *_: engine, lambda: meter), sample_timeout_s=0.05)
    assert code == 3
    assert layouts["tp1"]["reason"].startswith("hangs: no sample of decode at")
    assert engine.stopped == 1


def test_points_that_cannot_be_measured_are_told_and_passed_over(tmp_path: Path) -> None:
    def no_hits(point: Point) -> None:
        if point.table == "prefill" and point.at[2] > 0:
            raise SampleError("the prefix cache was not hit")

    code, layouts = do(tmp_path, tools(lambda *_: FakeEngine(), lambda: FakeMeter(no_hits)))
    assert code == 0
    assert {one["reason"] for one in layouts["tp1"]["lost"]} == {"the prefix cache was not hit"}


def test_an_engine_that_loses_everything_is_given_up(tmp_path: Path) -> None:
    def lost(_: Point) -> None:
        raise SampleError("500")

    code, layouts = do(tmp_path, tools(lambda *_: FakeEngine(), lambda: FakeMeter(lost)))
    assert code == 3
    assert "8 samples in a row" in layouts["tp1"]["reason"]


def test_a_kill_after_any_sample_and_a_resume_take_the_same_samples(tmp_path: Path) -> None:
    code, _ = do(tmp_path / "whole", healthy())
    assert code == 0
    whole = samples_in(tmp_path / "whole" / RUN / "samples-tp1.jsonl")
    for count in sorted({*range(0, len(whole), 5), len(whole) - 1}):
        to = tmp_path / f"killed-{count}"
        left = count

        def kill(_: Point) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        with pytest.raises(Killed):
            do(to, tools(lambda *_: FakeEngine(), lambda: FakeMeter(kill)))
        assert len(samples_in(to / RUN / "samples-tp1.jsonl")) == count
        code, layouts = do(to, healthy(), resume=True)
        assert code == 0
        assert samples_in(to / RUN / "samples-tp1.jsonl") == whole
        assert layouts["tp1"]["startup_s"] == {"aggregated": [12.0, 12.0]}


def test_a_kill_between_the_last_sample_and_the_profiles_starts_no_engine_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("profiler.job.saving.save_profile", killed)
        with pytest.raises(Killed):
            do(tmp_path, healthy())
    engine = FakeEngine()
    code, layouts = do(tmp_path, tools(lambda *_: engine, FakeMeter), resume=True)
    assert (code, engine.started) == (0, 0)
    assert load_profile(tmp_path / layouts["tp1"]["profiles"][0]).meta.startup_s == (12.0,)


def test_a_resume_does_not_measure_what_is_done(tmp_path: Path) -> None:
    dead = EngineDiedError("out of memory")
    first = {"tp1": FakeEngine(), "tp2": FakeEngine(start_error=dead)}
    assert do(tmp_path, tools(lambda unit, _: first[unit.name], FakeMeter), layouts=TWO)[0] == 1
    second = {"tp1": FakeEngine(), "tp2": FakeEngine()}
    code, layouts = do(tmp_path, tools(lambda unit, _: second[unit.name], FakeMeter), layouts=TWO, resume=True)
    assert code == 0
    assert (second["tp1"].started, second["tp2"].started) == (0, 1)
    assert len(layouts["tp1"]["profiles"]) == 3


def test_a_profile_that_was_taken_away_is_made_again_from_its_samples(tmp_path: Path) -> None:
    do(tmp_path, healthy())
    shutil.rmtree(tmp_path / HOME / "decode-tp1-dp1")
    engine = FakeEngine()
    assert do(tmp_path, tools(lambda *_: engine, FakeMeter), resume=True)[0] == 0
    assert engine.started == 0
    load_profile(tmp_path / HOME / "decode-tp1-dp1")


def test_a_resume_with_other_arguments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        do(tmp_path, tools(lambda *_: FakeEngine(), lambda: FakeMeter(_kill)))
    with pytest.raises(InputError, match="field engines"):
        do(tmp_path, healthy(), resume=True, max_num_seqs=32)


def test_a_stub_is_gone_on_with_although_its_folder_is_named_only_later(tmp_path: Path) -> None:
    count = 0

    def kill(_: Point) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise Killed

    with pytest.raises(Killed):
        do(tmp_path, tools(lambda *_: FakeEngine(), lambda: FakeMeter(kill)), stub=True)
    code, layouts = do(tmp_path, healthy(), stub=True, resume=True)
    assert code == 0
    arguments = load_profile(tmp_path / layouts["tp1"]["profiles"][0]).meta.engine.arguments
    assert arguments is not None
    assert arguments[2] == "llama-3.1-8b-instruct"


def test_experts_that_are_spread_are_told_in_the_profile(tmp_path: Path) -> None:
    spread = (Layout(2, 1, expert_parallel=True),)
    code, layouts = do(tmp_path, healthy(), model="qwen3-30b-a3b", layouts=spread)
    assert code == 0
    for path in layouts["tp2-ep"]["profiles"]:
        assert path.endswith("-tp2-dp1-ep")
        assert load_profile(tmp_path / path).meta.expert_parallel


def test_a_resume_with_another_engine_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        do(tmp_path, tools(lambda *_: FakeEngine(), lambda: FakeMeter(_kill)))
    other = tools(lambda *_: FakeEngine(), FakeMeter, version="0.27.0")
    code, layouts = do(tmp_path, other, resume=True)
    assert code == 2
    assert '"0.26.0"' in layouts["tp1"]["reason"]
    assert '"0.27.0"' in layouts["tp1"]["reason"]


def _kill(_: Point) -> None:
    raise Killed


def test_profiles_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    do(tmp_path, healthy())
    old = (tmp_path / HOME / "decode-tp1-dp1" / "profile.json").read_text()
    do(tmp_path, healthy(), name="again")
    again = json.loads((tmp_path / ".run-again" / "run.json").read_text())["layouts"][0]
    assert again["outcome"] == "failed"
    assert "--overwrite" in again["reason"]
    assert (tmp_path / HOME / "decode-tp1-dp1" / "profile.json").read_text() == old


def test_an_earlier_run_is_neither_overwritten_nor_gone_on_with_unasked(tmp_path: Path) -> None:
    do(tmp_path, healthy())
    with pytest.raises(InputError, match="--resume"):
        do(tmp_path, healthy())
    before = samples_in(tmp_path / RUN / "samples-tp1.jsonl")
    code, _ = do(tmp_path, healthy(), overwrite=True)
    assert code == 0
    assert samples_in(tmp_path / f"{RUN}.1" / "samples-tp1.jsonl") == before


def test_a_capacity_that_contradicts_memory_arithmetic_is_refused(tmp_path: Path) -> None:
    code, layouts = do(tmp_path, tools(lambda *_: FakeEngine(), FakeMeter, kv_capacity_tokens=900_000))
    assert code == 2
    assert "900,000" in layouts["tp1"]["reason"]
    assert layouts["tp1"]["profiles"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_engines_and_keeps_samples(tmp_path: Path, number: signal.Signals) -> None:
    engine = FakeEngine()
    count = 0

    async def interrupt(_: Point) -> None:
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)

    code, layouts = do(tmp_path, tools(lambda *_: engine, lambda: FakeMeter(interrupt)))
    assert code == 128 + number
    assert engine.stopped == 1
    status = json.loads((tmp_path / RUN / "status.json").read_text())
    assert status["phase"] == "failed"
    assert "--resume" in status["message"]
    assert layouts["tp1"]["reason"] == "interrupted"
    assert len(samples_in(tmp_path / RUN / "samples-tp1.jsonl")) == 2


def test_a_full_disk_ends_the_run_with_its_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("samples-tp1.jsonl: cannot be written: No space left on device")

    monkeypatch.setattr("profiler.job.journal.Journal.add", full)
    engine = FakeEngine()
    with pytest.raises(DependencyError, match="No space left"):
        do(tmp_path, tools(lambda *_: engine, FakeMeter))
    assert engine.stopped == 1


def test_a_pair_gives_the_hand_off_to_the_decode_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Journal.add
    # Samples that took a second each, as far as the accounts know.
    monkeypatch.setattr(Journal, "add", lambda self, label, sample, why, _: add(self, label, sample, why, 1.0))
    engines = [FakeEngine(), FakeEngine()]
    pair = (Layout(1), Layout(2))
    both = tools(lambda _, number: engines[number], FakeMeter)
    code, layouts = do(tmp_path, both, layouts=(), pair=pair)
    assert code == 0
    assert list(layouts) == ["pair-tp1-tp2"]
    assert layouts["pair-tp1-tp2"]["gpus"] == 3
    assert set(load_profile(tmp_path / HOME / "prefill-tp1-dp1").samples) == {"prefill"}
    decode = load_profile(tmp_path / HOME / "decode-tp2-dp1")
    assert set(decode.samples) == {"decode", "transfer"}
    assert set(decode.samples["transfer"]["prefill_tp"]) == {1.0}
    # A hand-off holds the GPUs of both.
    measured_s = layouts["pair-tp1-tp2"]["measuring_s"]
    gpu_minutes = (2 * measured_s["decode"] + 3 * measured_s["pair"]) / 60
    assert measured_s["pair"] > 0
    assert decode.meta.cost.measuring_gpu_minutes == pytest.approx(gpu_minutes, abs=1e-3)  # type: ignore[union-attr]
    assert "kv_consumer" in " ".join(decode.meta.engine.arguments or ())


def test_a_budget_that_ends_early_is_a_warning(tmp_path: Path) -> None:
    slow = tools(lambda *_: FakeEngine(), lambda: FakeMeter(wall_s=60.0))
    code, layouts = do(tmp_path, slow, max_gpu_minutes=15)
    assert code == 0
    assert any("did not reach its target (budget)" in warning for warning in layouts["tp1"]["warnings"])
