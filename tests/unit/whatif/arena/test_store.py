"""What a folder keeps of its runs, and when it is worth keeping."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.whatif.arena import code
from planner.whatif.arena.cases import Case, CaseSpec, SlaSpec
from planner.whatif.arena.record import MOST_POINTS, from_line, load_of, timeline_of, to_line
from planner.whatif.arena.run import batches, run_task, task_of, terms_of
from planner.whatif.arena.setting import Place
from planner.whatif.arena.source import find_source
from planner.whatif.arena.store import FILE, Store
from planner.whatif.replay import Tick
from profiler.errors import InputError
from tests.bench.common import PROFILES
from tests.unit.whatif.arena.conftest import make_run

Make = Callable[..., Place]


@pytest.fixture
def place() -> Make:
    """A small case; keywords change its entry."""

    def make(startup_s: float = 5.0, **changes: object) -> Place:
        fields = {"name": "one", "trace": "generate:step,rps=6,duration_s=30", "profile": "p", "max_gpus": 8}
        spec = CaseSpec.model_validate({**fields, "sla": SlaSpec(ttft_ms=200, itl_ms=10), **changes})
        return Place(Case(spec, startup_s), find_source(spec, None, Path(), file=Path("f")), (PROFILES,), Path("f"))

    return make


def test_a_record_reads_back_as_it_was_written() -> None:
    for record in (make_run("planner", 3, 0.96, 1.25), make_run("hpa", 0, 0, 0, error="ValueError: no")):
        line = to_line(record)
        assert "\n" not in line
        assert from_line(line) == record
    assert from_line('{"version":1,"key":"x"') is None
    assert from_line(to_line(record).replace('"version":1', '"version":2')) is None


def test_what_is_done_is_kept_what_failed_or_was_cut_off_is_not(tmp_path: Path) -> None:
    with Store(tmp_path / "new") as store:
        store.add(make_run("planner", 0, 0.9, 1.0))
        store.add(make_run("hpa", 0, 0, 0, error="ValueError: no"))
    file = tmp_path / "new" / FILE
    with file.open("a") as out:
        out.write(to_line(make_run("kpa", 0, 0.9, 1.0))[:-10])
    with Store(tmp_path / "new") as store:
        assert set(store.runs) == {"one/planner/0"}
        store.add(make_run("kpa", 0, 0.9, 1.0))
    with Store(tmp_path / "new") as store:
        assert set(store.runs) == {"one/planner/0", "one/kpa/0"}
    with Store(tmp_path / "new", fresh=True) as store:
        assert store.runs == {}
    assert file.read_text() == ""


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="--out"):
        Store(tmp_path / "file" / "below")


def test_a_key_changes_with_all_that_the_result_depends_on(place: Make) -> None:
    base = terms_of((place(), 0))
    keys = [task_of(base, policy).key for policy in ("planner", "planner:confidence=0.9", "hpa")]
    others = [
        (place(), 1),
        (place(startup_s=6.0), 0),
        (place(max_gpus=9), 0),
        (place(start="2p1d"), 0),
        (place(routing="round_robin"), 0),
        (place(sla=SlaSpec(ttft_ms=201, itl_ms=10)), 0),
        (place(trace="generate:step,rps=7,duration_s=30"), 0),
        (place(rate_scale=2), 0),
    ]
    keys += [task_of(terms_of(where), "planner").key for where in others]
    assert len(set(keys)) == len(keys)
    # A name says nothing about the result.
    assert task_of(terms_of((place(name="two", about="x"), 0)), "planner").key == keys[0]


def test_the_digest_is_of_a_policys_own_code_and_of_what_it_imports() -> None:
    mine = code._closure(("planner.whatif.policies.ours", *code._REPLAY))
    other = code._closure(("planner.whatif.policies.hpa", *code._REPLAY))
    assert {"planner.core.decide", "planner.core.forecast.online", "planner.whatif.simulator.loop"} <= mine
    assert "planner.whatif.simulator.loop" in other
    assert not {"planner.core.decide", "planner.core.forecast.online", "planner.whatif.policies.ours"} & other
    assert code.digest("planner.whatif.policies.ours") != code.digest("planner.whatif.policies.hpa")


def test_the_bounds_of_a_trace_run_together(place: Make) -> None:
    seeds = [terms_of((place(), seed)) for seed in (0, 1)]
    late = terms_of((place(startup_s=99.0), 0))
    tasks = [task_of(one, name) for one in (*seeds, late) for name in ("clairvoyant", "clairvoyant:no-startup", "hpa")]
    assert [[tasks.index(task) for task in batch] for batch in batches(tasks)] == [[0, 1, 6, 7], [2], [3, 4], [5], [8]]


def test_a_run_has_its_figures_and_a_failed_one_its_error(place: Make) -> None:
    terms = terms_of((place(), 0))
    done = run_task(task_of(terms, "static:2p1d"))
    assert done.error is None
    assert done.figures is not None
    assert done.figures.completed == terms.requests
    assert (done.figures.peak_gpus, done.figures.scale_ups) == (3, 0)
    assert done.figures.gpu_hours == pytest.approx(3 * terms.span_s / 3600, rel=0.01)
    assert done.start == {"prefill": 1, "decode": 1}
    task = replace(task_of(terms, "static:2p1d"), policy="static:9p9d")
    failed = run_task(task)
    assert failed.figures is None
    assert failed.error is not None
    assert failed.error.startswith("InputError: ")
    assert "takes 18 GPUs" in failed.error


def test_a_stated_start_holds_and_must_fit(place: Make) -> None:
    assert terms_of((place(start="3p2d"), 0)).start == {"prefill": 3, "decode": 2}
    for start, words in (("3a", "not a layout"), ("5p4d", "takes 9 GPUs; expected at most its max_gpus, 8")):
        with pytest.raises(InputError, match=words) as error:
            terms_of((place(start=start), 0))
        assert "cases.one.start" in str(error.value)


def test_a_timeline_keeps_the_peaks_within_its_points() -> None:
    class Outcome:
        span_s = 5000.0
        ticks = tuple(
            Tick(float(i), 1, 1.0, {"a": 1}, {"a": 1 + i % 2}, {"a": 40 if i == 2345 else 0}, {"a": 0})
            for i in range(1, 4001)
        )

    line = timeline_of(Outcome())  # type: ignore[arg-type]
    assert len(line.at_s) == len(line.ready["a"]) == len(line.held["a"]) <= MOST_POINTS
    assert max(line.held["a"]) == 42 - (2345 + 1) % 2
    assert max(line.ready["a"]) == 2


def test_a_load_is_the_rate_over_time() -> None:
    arrivals = np.concatenate([np.arange(0, 500, 0.5), np.arange(500, 1000, 0.1)])
    load = load_of(arrivals)
    assert len(load.at_s) == 99
    assert load.rps[10] == pytest.approx(2, rel=0.1)
    assert load.rps[-10] == pytest.approx(10, rel=0.1)
    assert len(load_of(np.linspace(0, 1e6, 50)).rps) == MOST_POINTS
