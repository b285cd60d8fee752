"""Hand-offs by the TP they came from, and expert parallelism, from the profile's folder to who uses it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from planner.core.engines import engines_of
from profiler.compare import compare, expert_parallel
from profiler.csvfile import read_table
from profiler.errors import InputError
from profiler.folders import only_of
from profiler.schema import Engine, GpuInfo, ModelInfo, ProfileMeta, Role, Source, TableName
from profiler.show import summarise, table
from profiler.tables import META_FILE, Profile, fingerprint, load_profile, save_profile
from profiler.timing import transfer_timing
from worker_graph.simulated.profiles import worker_timing

TOKENS = np.array([100.0, 1000.0, 4000.0, 8000.0])


def meta(role: Role, tp: int, *, arguments: tuple[str, ...] = (), expert: bool = False) -> ProfileMeta:
    return ProfileMeta(
        schema_version=1,
        model=ModelInfo(name="toy", dtype="bfloat16"),
        gpu=GpuInfo(name="toy-gpu", count_per_worker=tp),
        engine=Engine(name="vllm", version="0.26.0", arguments=arguments),
        role=role,
        tp=tp,
        dp=1,
        expert_parallel=expert,
        kv_capacity_tokens=100_000,
        source=Source(text="made up", licence="Apache-2.0"),
    )


def saved(path: Path, made: ProfileMeta, handed: dict[int, float] | None = None) -> Profile:
    """A profile with hand-offs by prefill TP (0: not told), of so many ms per token."""
    tables: dict[TableName, dict[str, np.ndarray]] = {}
    if made.role != "decode":
        tables["prefill"] = {"isl": TOKENS, "ttft_ms": 5 + 0.02 * TOKENS}
    if made.role != "prefill":
        kv = np.array([1e3, 4e3, 1e4, 4e4])
        tables["decode"] = {
            "batch": np.array([1.0, 1.0, 10.0, 10.0]), "kv_tokens": kv, "context_tokens": kv, "itl_ms": 5 + 1e-4 * kv,
        }  # fmt: skip
    if handed:
        tables["transfer"] = {
            "tokens": np.tile(TOKENS, len(handed)),
            "transfer_ms": np.concatenate([1 + each * TOKENS for each in handed.values()]),
            "repeat": np.zeros(len(handed) * len(TOKENS)),
            "prefill_tp": np.repeat(np.array(list(handed), dtype=float), len(TOKENS)),
        }
    return save_profile(path, made, tables)


def at_1000(found: object) -> tuple[float, int]:
    curve, tp = found  # type: ignore[misc]
    return float(curve.transfer_ms(1000)), tp


def test_the_exact_tp_or_the_nearest_as_a_ratio(tmp_path: Path) -> None:
    profile = saved(tmp_path / "p", meta("decode", 4), {1: 0.1, 4: 0.02, 16: 0.01})
    assert at_1000(profile.transfer_from(4)) == (pytest.approx(21), 4)
    assert at_1000(profile.transfer_from(1)) == (pytest.approx(101), 1)
    assert at_1000(profile.transfer_from(12)) == (pytest.approx(11), 16)
    assert at_1000(profile.transfer_from(5)) == (pytest.approx(21), 4)
    # As far from 1 as from 4: the slower one.
    assert at_1000(profile.transfer_from(2)) == (pytest.approx(101), 1)
    assert profile.transfer is not None
    assert float(profile.transfer.transfer_ms(1000)) == pytest.approx(21)
    assert saved(tmp_path / "without", meta("decode", 4)).transfer_from(1) is None


def test_hand_offs_that_do_not_tell_are_from_the_own_tp(tmp_path: Path) -> None:
    profile = saved(tmp_path / "p", meta("decode", 2))
    (profile.path / "transfer.csv").write_text("tokens,transfer_ms\n100,2\n1000,8\n")
    assert at_1000(load_profile(profile.path).transfer_from(1)) == (8.0, 2)


def test_one_row_per_point_repeat_and_prefill_tp(tmp_path: Path) -> None:
    path = tmp_path / "transfer.csv"
    path.write_text("tokens,transfer_ms,prefill_tp\n100,2,1\n100,3,2\n")
    assert read_table(path, "transfer")["prefill_tp"].tolist() == [1, 2]
    path.write_text("tokens,transfer_ms,prefill_tp\n100,2,1\n100,3,2\n100,4,1\n")
    with pytest.raises(InputError, match=r"line 4.*the same tokens, prefill_tp, repeat as line 2"):
        read_table(path, "transfer")


@pytest.mark.parametrize(("handed", "source"), [({4: 0.02, 1: 0.1}, "measured"), ({1: 0.1}, "from TP1, not TP4")])
def test_the_timing_says_what_it_was_measured_from(tmp_path: Path, handed: dict[int, float], source: str) -> None:
    profiles = [
        saved(tmp_path / "prefill", meta("prefill", 4)),
        saved(tmp_path / "decode", meta("decode", 2), handed),
    ]
    for timing in (transfer_timing(profiles), engines_of(profiles, aggregated=False)[0].transfer):
        assert timing.source == (source if source == "measured" else f"measured {source}")
        assert float(timing.at(1024)) == pytest.approx(1 + next(iter(handed.values())) * 1024, rel=1e-3)
    # Without a prefill profile it is from the profile's own.
    assert transfer_timing(profiles[1:]).source == "measured from TP1, not TP2"


def test_the_timing_has_what_the_decode_engine_posts_for_where_it_was_measured(tmp_path: Path) -> None:
    halves = [saved(tmp_path / "prefill", meta("prefill", 1)), saved(tmp_path / "decode", meta("decode", 1), {1: 0.1})]
    # Nobody knows: no iteration is longer.
    assert halves[1].post_from(1) is None
    assert (transfer_timing(halves).post_at(TOKENS) == 0).all()
    told = "tokens,transfer_ms,repeat,prefill_tp,post_ms\n"
    rows = ["100,11,0,1,0", "1000,101,0,1,5", "1000,101,1,1,7", "1000,101,2,1,", "1000,51,0,2,99", "4000,401,0,1,12"]
    (halves[1].path / "transfer.csv").write_text(told + "\n".join(rows))
    halves[1] = load_profile(halves[1].path)
    found = transfer_timing(halves)
    assert found.post_at([1000, 2500, 4000]) == pytest.approx([6.0, 9.0, 12.0], rel=0.02)
    assert float(found.post_at(64)) == pytest.approx(0.0, abs=1e-5)
    assert worker_timing("decode", [tmp_path]).post_ms(4000) == pytest.approx(12.0, rel=0.01)
    # From a TP whose engine did not tell, the time of another is not taken.
    assert halves[1].post_from(4) is None
    again = save_profile(tmp_path / "again", halves[1].meta, halves[1].samples)
    assert (again.path / "transfer.csv").read_text().splitlines()[4] == "1000,101,2,1,1,"


def test_a_negative_post_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transfer.csv"
    path.write_text("tokens,transfer_ms,post_ms\n100,2,-1\n")
    with pytest.raises(InputError, match=r"line 2.*post_ms"):
        read_table(path, "transfer")


def test_what_is_shown_and_compared_is_told_apart_by_tp(tmp_path: Path) -> None:
    a = saved(tmp_path / "a", meta("decode", 2), {1: 0.1, 2: 0.05})
    b = saved(tmp_path / "b", meta("decode", 2), {0: 0.05, 4: 0.01})
    assert summarise(a)["tables"]["transfer"]["prefill_tp"] == [1, 2]
    shown = io.StringIO()
    Console(file=shown, width=200).print(table(summarise(a)))
    assert "8 samples from a prefill worker of TP1, TP2" in shown.getvalue()
    found = compare(a, b)
    handed = [region for region in found.regions if region.table == "transfer"]
    # Of TP 2 alone, which B measured without saying so.
    assert {region.name.rsplit(" ", 1)[1] for region in handed} == {"TP2"}
    assert all(abs(region.drift) < 1e-9 for region in handed)
    assert any("transfer: 8 of 12 points" in words for words in found.left_out)


def test_expert_parallelism_is_kept_shown_and_hashed(tmp_path: Path) -> None:
    spread = saved(tmp_path / "ep", meta("decode", 2, expert=True))
    plain = saved(tmp_path / "plain", meta("decode", 2))
    assert json.loads((spread.path / META_FILE).read_text())["expert_parallel"] is True
    assert fingerprint(spread.path) != fingerprint(plain.path)
    assert summarise(spread)["profile"]["expert_parallel"] is True
    assert str(table(summarise(spread)).title).endswith("TP 2 DP 1 EP")
    assert str(table(summarise(plain)).title).endswith("TP 2 DP 1")
    with pytest.raises(InputError, match=r"ep \(TP2 EP\), .*plain \(TP2\)"):
        only_of([spread, plain], "decode", field="--profile")
    assert [d.field for d in compare(plain, spread).differences] == ["expert parallelism"]


def test_an_aggregated_worker_is_not_made_of_halves_that_differ_in_it(tmp_path: Path) -> None:
    halves = [saved(tmp_path / "p", meta("prefill", 2)), saved(tmp_path / "d", meta("decode", 2, expert=True))]
    with pytest.raises(InputError, match="differ in expert parallelism"):
        engines_of(halves, aggregated=True)
    with pytest.raises(InputError, match="differ in expert parallelism"):
        worker_timing("aggregated", [half.path for half in halves])


def test_profiles_from_before_stay_as_they_are(tmp_path: Path) -> None:
    old = saved(tmp_path / "old", meta("decode", 2, arguments=("serve", "--enable_expert_parallel")))
    assert "expert_parallel" not in json.loads((old.path / META_FILE).read_text())
    assert not old.meta.expert_parallel
    assert expert_parallel(old.meta)
    assert summarise(old)["profile"]["expert_parallel"] is True
    again = save_profile(tmp_path / "again", old.meta, old.samples)
    assert (again.path / META_FILE).read_bytes() == (old.path / META_FILE).read_bytes()
