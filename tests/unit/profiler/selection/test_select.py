"""Choosing layouts: the cheapest that meets the SLA, why the others lost, and files that the planner takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from planner.core.demand import Demand
from planner.core.engines import engines_of
from planner.core.sizing import size
from planner.core.types import Pool, Role, Sla
from planner.service.load import load_config
from planner.service.model import load_model
from planner.service.validate import validate
from profiler.cli.select import select as command
from profiler.errors import InputError
from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Source
from profiler.selection.arguments import measured_model, serving_arguments
from profiler.selection.choose import OPEN_BUDGET, Choice, Verdict, choose
from profiler.selection.load import drawn_lengths, trace_lengths
from profiler.selection.options import of_one_kind, options_of
from profiler.tables import Profile, load_profile, save_profile
from worker_graph.spec import load_graph, unsupported_locally
from worker_graph.vllm import Placement, layout, vllm_command

ARGUMENTS = ("serve", "org/toy-8b", "--load-format", "dummy", "--max-num-seqs", "128", "--port", "8123",
             "--enforce-eager", "-tp", "9")  # fmt: skip

Make = Callable[..., Profile]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(
        role: str,
        tp: int,
        *,
        dp: int = 1,
        speed: float | None = None,
        version: str = "0.11.0",
        model: str = "toy-8b",
        gpu: str = "h200-sxm",
        arguments: tuple[str, ...] | None = ARGUMENTS,
        max_model_len: int = 32_768,
    ) -> Profile:
        fast = speed if speed is not None else tp**0.8
        isl = np.array([128.0, 512.0, 2048.0, 8192.0, 32_768.0])
        batch = np.repeat([1.0, 16.0, 64.0, 128.0], 3)
        context = np.tile([512.0, 2048.0, 8192.0], 4)
        tables = {}
        if role != "decode":
            tables["prefill"] = {"isl": isl, "ttft_ms": (10 + 0.03 * isl + 2e-7 * isl**2) / fast, "repeat": 0 * isl}
        if role != "prefill":
            tables["decode"] = {
                "batch": batch,
                "kv_tokens": batch * context,
                "context_tokens": context,
                "itl_ms": (6 + 0.02 * batch + 8e-6 * batch * context) / fast,
                "repeat": 0 * batch,
                "suspect": 0 * batch,
            }
        meta = ProfileMeta(
            schema_version=1,
            model=ModelInfo(name=model, dtype="bfloat16"),
            gpu=GpuInfo(name=gpu, count_per_worker=tp * dp),
            engine=Engine(name="vllm", version=version, arguments=arguments),
            role=role,  # type: ignore[arg-type]
            tp=tp,
            dp=dp,
            kv_capacity_tokens=400_000 * tp * dp,
            limits=Limits(max_num_seqs=128 * dp, max_num_batched_tokens=8192 * dp, max_model_len=max_model_len),
            startup_s=(40.0, 42.0, 60.0),
            source=Source(text="made up", licence="Apache-2.0"),
        )
        return save_profile(tmp_path / "profiles" / f"{model}-{gpu}-{version}" / f"{role}-tp{tp}-dp{dp}", meta, tables)

    return build


def _choice(
    profiles: list[Profile], *, sla: Sla, rps: float = 20, isl: float = 2000, max_gpus: int = 64, mode: str = "auto"
) -> Choice:
    demand = Demand(rps, 1.0, drawn_lengths(isl, 200, 0.5, 0.5))
    return choose(options_of(profiles, mode), demand, sla, max_gpus)  # type: ignore[arg-type]


def test_every_pair_and_every_aggregated_layout_is_an_option(make: Make) -> None:
    profiles = [make("prefill", 1), make("prefill", 2), make("decode", 1), make("decode", 2), make("aggregated", 4)]
    names = [option.name for option in options_of(profiles, "auto")]
    assert names == [
        "prefill TP1 + decode TP1", "prefill TP1 + decode TP2", "prefill TP2 + decode TP1", "prefill TP2 + decode TP2",
        "aggregated TP1", "aggregated TP2", "aggregated TP4",
    ]  # fmt: skip
    assert len(options_of(profiles, "disaggregated")) == 4
    assert len(options_of(profiles, "aggregated")) == 3


def test_an_aggregated_profile_counts_before_its_halves(make: Make) -> None:
    own = make("aggregated", 1)
    (option,) = options_of([make("prefill", 1), make("decode", 1), own], "aggregated")
    assert option.profiles == (own,)


def test_the_cheapest_is_what_the_planner_itself_would_hold(make: Make) -> None:
    profiles = [make("prefill", 1), make("prefill", 2), make("decode", 1), make("decode", 2)]
    sla = Sla(250, 12)
    choice = _choice(profiles, sla=sla, mode="disaggregated")
    best = choice.best
    assert best is not None
    costs = []
    for fill in profiles[:2]:
        for step in profiles[2:]:
            engines, _ = engines_of([fill, step], aggregated=False)
            pools = {r: Pool(r.value, r, t.gpus, 1, 32) for r, t in zip(engines.roles, engines.timing, strict=True)}
            evaluator = engines.closed_form.evaluator(choice.demand, sla)
            plan = size(evaluator, pools, sla, 64, {})
            costs.append((not plan.reached, plan.chosen.gpus))
    assert (False, best.gpus) == min(costs)
    assert [one.gpus for one in choice.ranked if one.verdict is Verdict.MEETS] == sorted(
        one.gpus for one in choice.ranked if one.verdict is Verdict.MEETS and one.gpus is not None
    )


def test_a_tight_limit_needs_the_wider_layout(make: Make) -> None:
    profiles = [make("prefill", 1), make("decode", 1), make("decode", 4)]
    loose = _choice(profiles, sla=Sla(400, 40), mode="disaggregated").best
    tight = _choice(profiles, sla=Sla(400, 5), mode="disaggregated")
    assert loose is not None
    assert loose.option.name == "prefill TP1 + decode TP1"
    assert tight.best is not None
    assert tight.best.option.name == "prefill TP1 + decode TP4"
    assert tight.ranked[1].verdict is Verdict.UNREACHABLE
    assert "nearest SLA" in tight.why(tight.ranked[1])


def test_out_of_reach_says_the_nearest_that_is_not(make: Make) -> None:
    profiles = [make("prefill", 1), make("decode", 1)]
    choice = _choice(profiles, sla=Sla(20, 2))
    assert choice.best is None
    assert not choice.reachable
    near = choice.nearest
    assert near is not None
    assert near.nearest.ttft_ms > 20
    assert near.nearest.itl_ms > 2
    # It is the bound of ever more workers; a little above it a finite number will do.
    a_little_more = Sla(near.nearest.ttft_ms * 1.1, near.nearest.itl_ms * 1.1)
    assert _choice(profiles, sla=a_little_more, rps=0.01).best is not None
    a_little_less = Sla(near.nearest.ttft_ms * 0.95, near.nearest.itl_ms * 0.95)
    assert not _choice(profiles, sla=a_little_less, rps=0.01).reachable


def test_over_the_budget_says_how_many_gpus_it_needs(make: Make) -> None:
    profiles = [make("prefill", 1), make("decode", 1)]
    free = _choice(profiles, sla=Sla(250, 12), rps=60, max_gpus=OPEN_BUDGET)
    assert free.best is not None
    assert free.best.gpus is not None
    bound = _choice(profiles, sla=Sla(250, 12), rps=60, max_gpus=free.best.gpus - 1)
    assert bound.best is None
    assert bound.reachable
    assert bound.ranked[0].verdict is Verdict.BUDGET
    assert bound.ranked[0].gpus == free.best.gpus
    none = _choice(profiles, sla=Sla(250, 12), max_gpus=1, mode="disaggregated")
    assert none.ranked[0].sizing is None
    assert f"needs {none.ranked[0].gpus} GPUs, 1 allowed" == none.why(none.ranked[0])


def test_requests_that_no_worker_holds_are_no_plan(make: Make) -> None:
    choice = _choice([make("aggregated", 1, max_model_len=2048)], sla=Sla(1000, 50))
    assert choice.ranked[0].verdict is Verdict.TOO_LONG
    assert choice.best is None


def test_profiles_of_several_kinds_must_be_told_apart(make: Make) -> None:
    profiles = [make("aggregated", 1), make("aggregated", 1, version="0.12.0"), make("aggregated", 1, gpu="h100-sxm")]
    with pytest.raises(InputError, match=r"--gpu.*h100-sxm \| h200-sxm"):
        of_one_kind(profiles, model=None, gpu=None, engine=None)
    with pytest.raises(InputError, match="--engine-version"):
        of_one_kind(profiles, model=None, gpu="h200-sxm", engine=None)
    assert of_one_kind(profiles, model=None, gpu="h200-sxm", engine="0.12.0") == [profiles[1]]
    with pytest.raises(InputError, match="second aggregated profile"):
        options_of(profiles, "auto")


def test_estimates_and_measurements_do_not_mix(make: Make) -> None:
    measured, estimate = make("prefill", 1), make("decode", 1)
    source = estimate.meta.source.model_copy(update={"form": "estimated"})
    estimate = Profile(estimate.path, estimate.meta.model_copy(update={"source": source}), estimate.samples)
    with pytest.raises(InputError, match="estimate"):
        of_one_kind([measured, estimate], model=None, gpu=None, engine=None)
    assert of_one_kind([estimate], model=None, gpu=None, engine=None) == [estimate]


@pytest.mark.parametrize("cv", [0.0, 0.5, 2.0])
def test_drawn_lengths_have_the_asked_mean_and_spread(cv: float) -> None:
    lengths = drawn_lengths(3000, 250, cv, cv)
    assert lengths.isl.mean() == pytest.approx(3000, rel=0.001)
    assert lengths.osl.mean() == pytest.approx(250, rel=0.01)
    assert lengths.isl.std() / lengths.isl.mean() == pytest.approx(cv, rel=0.15)  # quantiles cut the far tail off
    if cv:
        assert abs(np.corrcoef(lengths.isl, lengths.osl)[0, 1]) < 0.1


def test_lengths_of_a_trace_keep_their_pairs_and_hits(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("arrival_s,isl,osl,prefix_hit_tokens\n0,100,10,0\n1,2000,20,512\n")
    lengths = trace_lengths(str(file))
    assert lengths.isl.tolist() == [100, 2000]
    assert lengths.osl.tolist() == [10, 20]
    assert lengths.hit.tolist() == [0, 512]


def _run(tmp_path: Path, *more: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command)
    arguments = ["--profiles", str(tmp_path / "profiles"), "--rps", "20", "--isl", "2000", "--osl", "200"]
    result = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=True)
    if isinstance(result.exception, InputError):
        return 2, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


@pytest.mark.parametrize(("mode", "dp"), [("disaggregated", 1), ("aggregated", 1), ("disaggregated", 2)])
def test_the_files_are_what_graph_and_planner_take(make: Make, tmp_path: Path, mode: str, dp: int) -> None:
    for role in ("prefill", "decode", "aggregated"):
        make(role, 2, dp=dp, speed=2.0)
    graph, planner = tmp_path / "graph.yaml", tmp_path / "planner.yaml"
    code, said = _run(tmp_path, "--ttft-ms", "300", "--itl-ms", "15", "--mode", mode, "--graph-out", str(graph),
                      "--planner-out", str(planner), "--output", "json")  # fmt: skip
    assert code == 0, said
    chosen = json.loads(said)["chosen"]["plan"]
    spec = load_graph(graph)
    assert not [found for found in unsupported_locally(spec) if found.severity == "error"]
    assert {worker.role.value: worker.replicas for worker in spec.workers if worker.role} == chosen["workers"]
    for worker in spec.workers:
        assert worker.gpus_per_worker == 2 * dp
        assert layout(worker) == (2, dp)
        made = vllm_command(worker, Placement("127.0.0.1", 8000, gpu_ids=tuple(range(2 * dp))))
        assert made.model == "org/toy-8b"
        assert "--load-format" not in made.argv
        assert "--enforce-eager" in made.argv
        assert made.argv[made.argv.index("--max-num-seqs") + 1] == "128"  # of one rank
        assert made.argv[made.argv.index("--max-num-batched-tokens") + 1] == "8192"
        assert ("--kv-transfer-config" in made.argv) == (mode == "disaggregated")
    config = load_config(planner)
    assert set(config.pools) == {worker.name for worker in spec.workers}
    assert config.lead_time_s == pytest.approx(56.4)  # p90 of 40, 42 and 60 s
    model = load_model(config, planner)
    assert sorted(model.capacity.roles) == sorted(pool.role for pool in config.pools.values())
    assert all(finding.ok for finding in validate(planner) if finding.about in {"configuration", "profile"})


@pytest.mark.parametrize(
    "arguments",
    [
        ("vllm", "serve", "org/toy-8b", "--host", "127.0.0.1", "--max-num-seqs", "96"),
        ("/opt/engine/bin/vllm", "serve", "org/toy-8b", "--served-model-name", "x", "--max-num-seqs=96"),
        ("python3", "-m", "vllm.entrypoints.cli.main", "serve", "org/toy-8b", "--max-num-seqs", "96"),
        ("--model", "org/toy-8b", "--max-num-seqs", "96"),
    ],
)
def test_arguments_are_read_however_the_engine_was_started(make: Make, arguments: tuple[str, ...]) -> None:
    profile = make("aggregated", 1, arguments=arguments)
    words = serving_arguments(profile, Role.AGGREGATED, measured_model(profile))
    assert words[:2] == ["--model", "org/toy-8b"]
    assert [word for word in words if word.startswith("--max-num-seqs")] == [
        arguments[-1 if "=" in arguments[-1] else -2]
    ]
    assert not {"serve", "vllm", "--host", "--served-model-name", "x"} & set(words)


def test_a_model_from_a_folder_or_unknown_arguments_leave_the_profile_s_name(make: Make) -> None:
    assert measured_model(make("aggregated", 1, arguments=("vllm", "serve", "/models/stub", "-tp", "1"))) == "toy-8b"
    unknown = make("aggregated", 2, dp=2, arguments=None)
    assert measured_model(unknown) == "toy-8b"
    words = serving_arguments(unknown, Role.AGGREGATED, "toy-8b")
    # A rank's share of the worker's limits.
    assert words[words.index("--max-num-seqs") + 1] == "128"
    assert words[words.index("--max-num-batched-tokens") + 1] == "8192"
    assert words[words.index("--max-model-len") + 1] == "32768"


@pytest.mark.parametrize("arguments", [None, ("serve", "m", "--enable-expert-parallel")])
def test_experts_that_were_spread_are_spread_again(make: Make, arguments: tuple[str, ...] | None) -> None:
    profile = make("aggregated", 2, arguments=arguments)
    spread = Profile(profile.path, profile.meta.model_copy(update={"expert_parallel": True}), profile.samples)
    assert serving_arguments(spread, Role.AGGREGATED, "m").count("--enable-expert-parallel") == 1
    (option,) = options_of([spread], "aggregated")
    assert option.name == "aggregated TP2 EP"
    if arguments is None:
        assert "--enable-expert-parallel" not in serving_arguments(profile, Role.AGGREGATED, "m")


def test_an_unreachable_sla_writes_nothing_and_exits_with_1(make: Make, tmp_path: Path) -> None:
    make("aggregated", 1)
    graph = tmp_path / "graph.yaml"
    code, said = _run(tmp_path, "--ttft-ms", "20", "--itl-ms", "2", "--graph-out", str(graph))
    assert code == 1
    assert "the nearest that can be met is TTFT" in said.replace("\n", " ")
    assert not graph.exists()
    code, said = _run(tmp_path, "--ttft-ms", "20", "--itl-ms", "2", "--output", "json")
    assert json.loads(said)["nearest"]["ttft_ms"] > 20


@pytest.mark.parametrize(
    ("more", "field"),
    [
        (("--rps", "0"), "--rps"),
        (("--attainment", "1.5"), "--attainment"),
        (("--trace", "x.csv"), "--isl"),
        (("--dispersion", "0.5"), "--dispersion"),
        (("--max-gpus", "0"), "--max-gpus"),
        (("--graph-out", "/nowhere/at/all.yaml"), "--graph-out"),
        (("--control-url", "localhost"), "--control-url"),
        (("--name", "No Name"), "--name"),
    ],
)
def test_wrong_options_name_themselves(make: Make, tmp_path: Path, more: tuple[str, ...], field: str) -> None:
    make("aggregated", 1)
    code, said = _run(tmp_path, "--ttft-ms", "300", "--itl-ms", "15", *more)
    assert code == 2
    assert field in said


def test_profiles_in_the_repository_can_be_chosen_from() -> None:
    root = Path(__file__).parents[4] / "profiling_results/llama-3.1-8b-instruct-fp8/h200-sxm/vllm-unknown"
    profiles = [load_profile(root / "prefill-tp1-dp1"), load_profile(root / "decode-tp1-dp1")]
    choice = _choice(profiles, sla=Sla(300, 15))
    assert choice.best is not None
    assert {one.option.aggregated for one in choice.ranked} == {True, False}
    assert Role.AGGREGATED in choice.best.option.of_role or Role.DECODE in choice.best.option.of_role
