"""Sets of cases as files: what is read, and what is refused with its name."""

from pathlib import Path

import pytest

from planner.whatif.arena.cases import cases_of, find_set, load_set, shipped_sets
from planner.whatif.arena.source import find_source, trace_of
from planner.whatif.policies.registry import POLICIES
from profiler.errors import InputError

PROFILES = Path(__file__).parents[4] / "profiling_results"

BASE = """
policies: [planner, hpa]
defaults: {profile: llama-3.1-8b-instruct-fp8, sla: {ttft_ms: 200, itl_ms: 10}, seeds: [1, 2]}
cases:
  - {name: a, trace: "generate:step", startup_s: [0, 30]}
  - {name: b, trace: "generate:flash", startup_s: 10, sla: {ttft_ms: 99, itl_ms: 9, attainment: 0.9}, without: [hpa]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "set.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_hold_unless_a_case_says_otherwise(tmp_path: Path) -> None:
    spec = load_set(written(tmp_path, BASE))
    one, two, three = cases_of(spec)
    assert [case.name for case in (one, two, three)] == ["a@0s", "a@30s", "b"]
    assert (one.startup_s, two.startup_s, three.startup_s) == (0, 30, 10)
    assert one.spec.seeds == (1, 2)
    assert (two.sla.ttft_ms, two.sla.attainment) == (200, 0.95)
    assert (three.sla.ttft_ms, three.sla.attainment) == (99, 0.9)
    assert three.policies(["planner", "hpa:queue"]) == ["planner"]


def test_patterns_choose_cases_in_the_order_of_the_set(tmp_path: Path) -> None:
    spec = load_set(written(tmp_path, BASE))
    assert [case.name for case in cases_of(spec, ["b", "a@3*"])] == ["a@30s", "b"]
    assert [case.name for case in cases_of(spec, ["a"])] == ["a@0s", "a@30s"]
    with pytest.raises(InputError, match="'z' is no case; expected one of a@0s, a@30s, b"):
        cases_of(spec, ["z"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("startup_s: 10", "startup_s: -1", ("line 6", "cases.1.startup_s", "is -1")),
        ("startup_s: 10", "start_up: 1", ("line 6", "cases.1.start_up", "did you mean 'startup_s'")),
        ("name: b", "name: a", ("'a' is there twice",)),
        ("name: b", "name: B b", ("cases.1.name", "is 'B b'")),
        ("name: b", 'name: b, graph: "both"', ("cases.1.graph", "is 'both'", "disaggregated")),
        ("name: b", "name: b, max_gpus: 0", ("cases.1.max_gpus", "is 0")),
        ("name: b", "name: b, seeds: [3, 3]", ("listed twice",)),
        ("name: b", "name: b, start: many", ("cases.1.start", "is 'many'")),
        ("[planner, hpa]", "[]", ("policies",)),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        load_set(written(tmp_path, BASE.replace(old, new)))
    for word in ("set.yaml", *words):
        assert word in str(error.value), str(error.value)


def test_a_set_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(
        InputError,
        match="'nothing' is no set of cases; expected a YAML file, or one of ablation, quick, sensitivity, standard",
    ):
        find_set("nothing")


@pytest.mark.parametrize("name", shipped_sets())
def test_shipped_sets_name_policies_profiles_and_workloads_that_there_are(name: str) -> None:
    spec = load_set(find_set(name))
    assert {policy.partition(":")[0] for policy in spec.policies} <= set(POLICIES)
    # A set that compares variants of ours needs no bound.
    needed = {"planner"} if spec.reference else {"planner", "clairvoyant", "static:mean", "static:peak"}
    assert needed <= set(spec.policies)
    for case in cases_of(spec):
        for folder in case.spec.profile:
            assert (PROFILES / folder).is_dir(), folder
        # Public traces are not here; what stands in for them is.
        find_source(case.spec, None, Path("nowhere"), file=Path("set.yaml"))


def test_a_public_trace_is_used_where_it_is_and_stood_in_for_where_it_is_not(tmp_path: Path) -> None:
    text = BASE.replace('"generate:flash"', '"public/t.csv", rate_scale: 2, substitute: "generate:flash,rps=3"')
    spec = cases_of(load_set(written(tmp_path, text)))[-1].spec
    missing = find_source(spec, None, tmp_path, file=tmp_path / "set.yaml")
    assert (missing.text, missing.substitutes) == ("generate:flash,rps=3", "t.csv")
    assert missing.words == "generate:flash,rps=3, rate x2 (generated in place of t.csv)"
    (tmp_path / "traces" / "public").mkdir(parents=True)
    file = tmp_path / "traces" / "public" / "t.csv"
    file.write_text("arrival_s,isl,osl\n0,5,5\n1,6,6\n")
    there = find_source(spec, tmp_path / "traces", tmp_path, file=tmp_path / "set.yaml")
    assert (there.text, there.substitutes, there.words) == (str(file), "", "t.csv, rate x2")
    assert len(trace_of(there, 0).whole) == 4
    file.write_text("arrival_s,isl,osl\n0,5,5\n1,6,7\n")
    changed = find_source(spec, tmp_path / "traces", tmp_path, file=tmp_path / "set.yaml")
    assert changed.fingerprint != there.fingerprint


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('"public/t.csv"', ("cases.b.trace", "no file 'public/t.csv'", "PLIMSOLL_TRACES")),
        ('"generate:flush"', ("cases.b.trace", "did you mean flash?")),
        ('"generate:flash,seed=3"', ("cases.b.trace", "sets a seed")),
        ('"here.csv"', ("cases.b.seeds", "lists 2 seeds", "rate_scale")),
    ],
)
def test_a_trace_that_cannot_be_is_named(tmp_path: Path, new: str, words: tuple[str, ...]) -> None:
    file = written(tmp_path, BASE.replace('"generate:flash"', new))
    (tmp_path / "here.csv").write_text("arrival_s,isl,osl\n0,5,5\n")
    with pytest.raises(InputError) as error:
        find_source(cases_of(load_set(file))[-1].spec, None, tmp_path, file=file)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_seeds_make_other_traces_of_the_same_kind(tmp_path: Path) -> None:
    source = find_source(cases_of(load_set(written(tmp_path, BASE)))[0].spec, None, tmp_path, file=tmp_path)
    one, again, other = (trace_of(source, seed).whole.arrival_s for seed in (1, 1, 2))
    assert one is again
    assert len(one) != len(other)
