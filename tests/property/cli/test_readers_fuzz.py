"""Readers of configurations and decision records meet whatever a disk may hold: they read it, or say what is wrong."""

import contextlib
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from planner.config import load_tuning
from planner.core.record import DecisionRecord, decide_again, from_line, hash_settings, to_line
from planner.core.settings import PlannerSettings, Tuning
from planner.core.state import PlannerState
from planner.core.types import Known, LengthSample, Observation, Pool, PoolState, Role, Sla
from planner.explain import explained
from profiler.errors import InputError
from tests.unit.core.cases import h200, run, seen
from tests.unit.core.cases import planner as planner_of

SAME_FILE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("[/x]\ud800"),
    st.sampled_from([10**30, -1, 0, 1e300, 5e-324]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3), max_leaves=6
)


# -- YAML --------------------------------------------------------------------------------------------------------------


def _loads_or_says(path: Path, content: bytes) -> Tuning | None:
    path.write_bytes(content)
    try:
        return load_tuning(path)
    except InputError as error:
        said = error
    assert said.source == str(path)
    return None


@SAME_FILE
@given(st.binary(max_size=60))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    _loads_or_says(tmp_path / "c.yaml", content)


TOKENS = st.sampled_from([
    "interval_s", "forecast", "behaviour", "up", "policies", ": ",
    ":", "\n", "\n  ", "\n- ", "{", "}", "[", "]", ",",
    "&a ", "*a", "<<", "? ", "| ", "> ", "---\n", "...\n", "!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ",
    "!!set ", "!!omap ", "!!pairs ", "!x ", "%YAML 9.9\n", "=", "~", "0x", "1_0", "1:60", ".inf", ".nan",
    "1e9", "'", '"',
    "2025-02-30", "\\x", "#", "@", "`", "\t", "\x85", "-", "",
])  # fmt: skip


@settings(SAME_FILE, max_examples=250)
@given(st.lists(TOKENS, max_size=12))
def test_any_yaml(tmp_path: Path, tokens: list[str]) -> None:
    _loads_or_says(tmp_path / "c.yaml", "".join(tokens).encode())


FIELDS = st.sampled_from([*Tuning.model_fields, "window_s", "up", "down", "policies", "residuals", "nonsense"])


@SAME_FILE
@given(st.dictionaries(FIELDS, SCALARS | st.dictionaries(FIELDS, SCALARS, max_size=3), max_size=3))
def test_any_values_of_known_fields(tmp_path: Path, data: dict[str, Any]) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        tuning = _loads_or_says(tmp_path / "c.yaml", yaml.safe_dump(data).encode())
        if tuning is not None:
            assert 0 < tuning.interval_s < float("inf")


@SAME_FILE
@given(
    st.floats(0.1, 1e6), st.floats(0.5, 0.99), st.integers(16, 10**6), st.floats(0, 1e6), st.sampled_from([0.5, 0.9])
)
def test_what_is_written_is_read(
    tmp_path: Path, interval_s: float, confidence: float, sample: int, window_s: float, level: float
) -> None:
    data = {
        "interval_s": interval_s,
        "confidence": confidence,
        "sample_size": sample,
        "behaviour": {"down": {"window_s": window_s}},
        "forecast": {"scored_levels": [level]},
    }
    tuning = _loads_or_says(tmp_path / "c.yaml", yaml.safe_dump(data).encode())
    assert tuning == Tuning.model_validate(data)


# -- decision records --------------------------------------------------------------------------------------------------


@cache
def _line() -> str:
    """A record of the shipped profile's planner, some ticks into a load."""
    planner = planner_of()
    supply = {"prefill": PoolState(1, 1, waiting_requests=Known(3.0)), "decode": PoolState(2, 2)}
    sample = LengthSample((1000, 500), (100, 50), (0, 16))
    _, state = run(planner, [seen(40, supply, lengths=sample)] * 4)
    observation = seen(60, supply, lengths=sample)
    at_s = 1000.0 + 4 * planner.settings.interval_s
    decision, _ = planner.decide(state, observation, at_s)
    record = DecisionRecord("now", "a graph", "closed-form", (), planner.settings, state, observation, decision)
    return to_line(record)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value[:3]))
        if isinstance(value, list)
        else []
    )
    return [place for key, inner in below for place in [(*path, key), *_places(inner, (*path, key))]]


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        from_line(text, source="j.jsonl", number=7)
    assert (caught.value.source, caught.value.line) == ("j.jsonl", 7)


@settings(deadline=None)
@given(VALUES)
def test_any_json(value: Any) -> None:
    with pytest.raises(InputError):
        from_line(json.dumps(value), source="j.jsonl", number=1)


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_a_truncated_record(cut: int) -> None:
    line = _line()
    with pytest.raises(InputError):
        from_line(line[: cut % len(line)], source="j.jsonl", number=1)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_record_is_refused_or_explained(data: st.DataObject) -> None:
    damaged = json.loads(_line())
    for _ in range(data.draw(st.integers(1, 2))):
        places = _places(damaged)
        *way, last = data.draw(st.sampled_from(places))
        holder: Any = damaged
        for key in way:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[last] = data.draw(VALUES)
        else:
            del holder[last]
    try:
        record = from_line(json.dumps(damaged), source="j.jsonl", number=1)
    except InputError:
        return
    page = io.StringIO()
    Console(file=page, width=100).print(explained(record))
    page.getvalue().encode()


RATES = st.floats(0, 1e4, allow_subnormal=False)


@settings(deadline=None, max_examples=30)
@given(
    arrivals=st.lists(st.integers(0, 3000), min_size=1, max_size=5),
    limits=st.tuples(st.floats(1, 1e4), st.floats(1, 100), st.floats(0.5, 1.0)),
    lengths=st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 2000)), min_size=1, max_size=5),
    ttft_ms=st.floats(allow_nan=False) | RATES,
)
def test_any_decision_survives_its_record(
    arrivals: list[int], limits: tuple[float, float, float], lengths: list[tuple[int, int]], ttft_ms: float
) -> None:
    model = h200()
    pools = (Pool("prefill", Role.PREFILL, 1, 1, 9), Pool("decode", Role.DECODE, 2, 1, 9))
    made = planner_of(model, {pool.role: pool for pool in pools}, max_gpus=20, sla=Sla(*limits))
    isl, osl = (tuple(column) for column in zip(*lengths, strict=True))
    sample = LengthSample(isl, osl, (0,) * len(isl))
    state = PlannerState()
    for k, count in enumerate(arrivals):
        observation: Observation = seen(count, lengths=sample, ttft_ms=Known(ttft_ms))
        decision, after = made.decide(state, observation, 1000.0 + 15.0 * k)
        tuned: PlannerSettings = made.settings
        record = DecisionRecord("t", "g", model.name, (), tuned, state, observation, decision, {}, hash_settings(tuned))
        back = from_line(to_line(record), source="j", number=1)
        assert back == record
        assert to_line(back) == to_line(record)
        assert decide_again(back, model) == decision
        state = after
