from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputError
from profiler.record.schedule import PoissonSchedule, TraceSchedule, parse_schedule, requests_of


def test_poisson_has_the_rate_and_the_lengths_it_names() -> None:
    text = "poisson:rate=50,duration_s=400,isl=1000,isl_cv=0.6,osl=150,osl_cv=0.5,seed=4,name=high"
    schedule = parse_schedule(text)
    assert schedule.name == "high"
    requests = requests_of(schedule, None)
    at, isl, osl = (np.array([getattr(one, name) for one in requests]) for name in ("at_s", "isl", "osl"))
    assert len(at) == pytest.approx(20_000, rel=0.03)
    gaps = np.diff(at)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert at[-1] < 400
    for values, mean, cv in ((isl, 1000, 0.6), (osl, 150, 0.5)):
        assert values.mean() == pytest.approx(mean, rel=0.02)
        assert values.std() / values.mean() == pytest.approx(cv, rel=0.05)
    assert abs(np.corrcoef(isl, osl)[0, 1]) < 0.05


def test_a_seed_gives_one_run_and_a_longer_span_begins_like_a_shorter() -> None:
    short, long = (PoissonSchedule(rate=5, duration_s=span, isl=100, isl_cv=1, osl=10, seed=1) for span in (20, 40))
    one, other = requests_of(short, None), requests_of(long, None)
    assert one == requests_of(short, None)
    assert [(r.isl, r.osl) for r in one] == [(r.isl, r.osl) for r in other[: len(one)]]
    assert one != requests_of(short.model_copy(update={"seed": 2}), None)


def test_lengths_fit_the_engine() -> None:
    schedule = PoissonSchedule(rate=50, duration_s=20, isl=900, isl_cv=2, osl=300, osl_cv=2)
    requests = requests_of(schedule, 1024)
    assert max(one.isl + one.osl for one in requests) == 1024
    assert max(one.osl for one in requests) == 512


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("poison:rate=1", "did you mean 'poisson'"),
        ("poisson:rate=1,duration_s=5,isl=10", "osl: missing"),
        ("poisson:rate=1,duration_s=5,isl=10,osl=1,islcv=1", "did you mean 'isl_cv'"),
        ("poisson:rate=-1,duration_s=5,isl=10,osl=1", "rate"),
        ("poisson:rate=nan,duration_s=5,isl=10,osl=1", "rate"),
        ("poisson:rate=1,rate=2", "twice"),
        ("poisson:rate", "key=value"),
        ("poisson:rate=1,duration_s=5,isl=10,osl=1,name=../x", "name"),
        ("trace:file=t.csv,rate_scale=2", "rate_scale"),
    ],
)
def test_a_wrong_schedule_names_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_schedule(text)


@pytest.mark.parametrize(
    "schedule",
    [
        PoissonSchedule(rate=1e5, duration_s=1e5, isl=10, osl=1),
        PoissonSchedule(rate=1e-9, duration_s=1, isl=10, osl=1),
    ],
)
def test_a_run_is_neither_empty_nor_endless(schedule: PoissonSchedule) -> None:
    with pytest.raises(InputError, match="request"):
        requests_of(schedule, None)


TRACE = "arrival_s,isl,osl\n0,10,1\n2.5,20,2\n4,30,3\n9,40,4\n"


def test_a_slice_of_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(TRACE)
    requests = requests_of(TraceSchedule(file=file, start_s=2, duration_s=7), None)
    assert [(one.at_s, one.isl, one.osl) for one in requests] == [(0.5, 20, 2), (2.0, 30, 3)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("9,x,4", "line 5, field isl"),
        ("1,40,4", "line 5, field arrival_s"),
        ("9,0,4", "line 5, field isl"),
        ("9,,4", "line 5, field isl"),
        ("9,40,inf", "line 5, field osl"),
    ],
)
def test_a_bad_line_of_a_trace_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(TRACE.replace("9,40,4", line))
    with pytest.raises(InputError, match=words):
        requests_of(TraceSchedule(file=file), None)


def test_a_trace_without_a_column_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        requests_of(TraceSchedule(file=tmp_path / "none.csv"), None)
    (tmp_path / "t.csv").write_text("arrival_s,isl\n1,2\n")
    with pytest.raises(InputError, match="field osl: missing"):
        requests_of(TraceSchedule(file=tmp_path / "t.csv"), None)
