"""The `vllm serve` command of a worker: what is added, translated, passed on, dropped and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import InputError
from tests.unit.worker_graph.spec.graphs import alpha, read, worker
from worker_graph.spec import Component, load_graph
from worker_graph.vllm import Placement, WorkerCommand, kv_event_port, layout, model_of, vllm_command

MANIFESTS = Path(__file__).parents[4] / "manifests"
PLACE = Placement("127.0.0.1", 8101, nixl_port=5601, kv_events_port=20090)
MODE = {"prefill": ["--is-prefill-worker"], "decode": ["--is-decode-worker"], "aggregated": []}


def component(
    folder: Path, args: list[str], *, role: str = "aggregated", gpus: str = "0", whole: bool = False, **main: Any
) -> Component:
    """A worker of a role, its own arguments after the model and those of the role; `whole` leaves these out."""
    services = {"W": worker([*MODE[role], *args], gpus=gpus)}
    services["W"]["extraPodSpec"]["mainContainer"].update(main, **({"args": args} if whole else {}))
    other = {"prefill": "decode", "decode": "prefill"}.get(role)
    if other is not None:
        services["Other"] = worker(MODE[other])
    return read(folder, alpha(services))["W"]


def command(folder: Path, args: list[str], place: Placement = PLACE, **more: Any) -> WorkerCommand:
    return vllm_command(component(folder, args, **more), place)


def after(argv: tuple[str, ...], flag: str) -> str | None:
    """The word after a flag that is there at most once."""
    assert argv.count(flag) <= 1, argv
    return argv[argv.index(flag) + 1] if flag in argv else None


def parsed(argv: tuple[str, ...], flag: str) -> Any:
    text = after(argv, flag)
    return json.loads(text) if text is not None else None


def refused(folder: Path, args: list[str], said: str, field: str, **more: Any) -> None:
    with pytest.raises(InputError) as caught:
        command(folder, args, **more)
    assert said in str(caught.value)
    assert caught.value.field is not None
    assert caught.value.field.endswith(field), caught.value.field
    assert caught.value.line


def test_defaults(tmp_path: Path) -> None:
    made = command(tmp_path, ["--max-model-len", "8192"])
    assert made.argv == (
        "vllm", "serve", "m", "--host", "127.0.0.1", "--port", "8101", "--max-model-len", "8192",
        "--enable-prefix-caching", "--block-size", "16", "--kv-events-config",
        '{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:20090","topic":"kv-events"}',
    )  # fmt: skip
    assert made.env == {"OMP_NUM_THREADS": "4"}
    assert (made.model, made.served_name, made.tp, made.dp, made.block_size) == ("m", "m", 1, 1, 16)
    assert made.notes == ()


def test_settings_of_the_user_stay(tmp_path: Path) -> None:
    args = ["--block-size=32", "--no-enable-prefix-caching", "--served_model_name", "n", "--seed", "-1"]
    made = command(tmp_path, args)
    assert made.argv[7:] == tuple(args)
    assert (made.block_size, made.served_name, made.kv_events_endpoint) == (32, "n", None)


@pytest.mark.parametrize(
    ("role", "args", "config"),
    [
        ("prefill", [], {"kv_connector": "NixlConnector", "kv_role": "kv_producer"}),
        ("decode", [], {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}),
        ("aggregated", [], None),
        ("aggregated", ["--connector", "nixl"], {"kv_connector": "NixlConnector", "kv_role": "kv_both"}),
        ("prefill", ["--connector", "none"], None),
        ("prefill", ["--connector", "null"], None),
        ("aggregated", ["--connector=lmcache"], {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}),
        ("decode", ["--connector", "lmcache", "nixl"], {
            "kv_connector": "MultiConnector", "kv_role": "kv_consumer",
            "kv_connector_extra_config": {"connectors": [
                {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"},
                {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}]}}),
        ("prefill", ["--kv-transfer-config", '{"kv_connector":"X","kv_role":"kv_both"}'],
         {"kv_connector": "X", "kv_role": "kv_both"}),
        ("prefill", ["--connector", "none", "--kv-transfer-config", '{"kv_connector":"NixlConnector"}'],
         {"kv_connector": "NixlConnector"}),
    ],
)  # fmt: skip
def test_transfer(tmp_path: Path, role: str, args: list[str], config: Any) -> None:
    made = command(tmp_path, args, role=role)
    assert parsed(made.argv, "--kv-transfer-config") == config
    nixl = "Nixl" in json.dumps(config)
    assert made.env.get("VLLM_NIXL_SIDE_CHANNEL_PORT") == ("5601" if nixl else None)
    assert made.env.get("VLLM_NIXL_SIDE_CHANNEL_HOST") == ("127.0.0.1" if nixl else None)
    assert not {"--connector", "--is-prefill-worker", "--is-decode-worker"} & set(made.argv)
    hands_over = config is not None or role == "aggregated"
    assert any("hands no KV over" in note for note in made.notes) != hands_over


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--connector", "nxl"], "names 'nxl' (did you mean 'nixl'?)"),
        (["--connector", "none", "nixl"], "mixes none with others: none nixl"),
        (["--connector", "kvbm"], "DynamoConnector is not in stock vLLM"),
        (["--connector", "nixl", "--kv-transfer-config", "{}"], "together with --kv-transfer-config"),
        (["--kv-transfer-config", "{"], "is not JSON"),
        (["--kv-transfer-config", "[]"], "expected a JSON object"),
        (["--kv-transfer-config"], "has no value"),
        (["--served-model-name", "a", "b"], "names a b; expected one name"),
        (["--custom-jinja-template", "/no/such.jinja"], "does not exist"),
        (["--block-size", "x"], "--block-size is 'x'; expected a whole number from 1"),
        (["--tensor-parallel-size", "0"], "--tensor-parallel-size is '0'"),
        (["--multimodal-encode-worker"], "has no counterpart in vllm serve"),
        (["--enforce-eager=", "stray"], "belongs to no flag"),
        (["--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"tcp://127.0.0.1:1"}'], "vLLM connects to"),
    ],
)
def test_refused_with_its_line(tmp_path: Path, args: list[str], said: str) -> None:
    with pytest.raises(InputError, match=r"line \d+") as caught:
        command(tmp_path, args)
    assert said in str(caught.value)
    # The line in the file is that of the word that is wrong.
    lines = (tmp_path / "graph.yaml").read_text().splitlines()
    assert caught.value.line is not None
    named = lines[caught.value.line - 1].strip(" -'\"")
    assert any(named in word.replace("'", "''") or word in named for word in args), named


def test_no_model(tmp_path: Path) -> None:
    refused(tmp_path, ["--max-model-len", "1"], "names no model", "mainContainer", whole=True)


@pytest.mark.parametrize(
    ("gpus", "args", "sizes"),
    [
        ("4", ["-tp", "4"], (4, 1)),
        ("8", ["--tensor-parallel-size=2", "-dp", "4"], (2, 4)),
        ("8", ["--tensor_parallel_size", "2", "--pipeline-parallel-size", "2", "--data-parallel-size", "2"], (2, 2)),
        ("2", ["-tp", "2", "-dp", "4", "--data-parallel-rank", "3"], (2, 4)),
        ("0", ["-tp", "2"], (2, 1)),
        ("4", ["-tp", "1", "-tp", "4"], (4, 1)),
    ],
)
def test_layout(tmp_path: Path, gpus: str, args: list[str], sizes: tuple[int, int]) -> None:
    made = component(tmp_path, args, gpus=gpus)
    assert layout(made) == sizes
    assert model_of(made) == "m"


@pytest.mark.parametrize(
    ("gpus", "args", "said"),
    [
        ("2", [], "W has 2 GPUs per worker, and --tensor-parallel-size 1 takes 1"),
        ("1", ["-tp", "2"], "has 1 GPUs per worker, and --tensor-parallel-size 2 takes 2"),
        ("4", ["-tp", "4", "-dp", "2"], "--tensor-parallel-size 4 x --data-parallel-size 2 takes 8"),
    ],
)
def test_gpus_must_fit_the_sizes(tmp_path: Path, gpus: str, args: list[str], said: str) -> None:
    refused(tmp_path, args, said, "args.3" if args else "W", gpus=gpus)


def test_gpus_of_several_nodes_count_together(tmp_path: Path) -> None:
    service = {**worker(["-tp", "4"], gpus="2"), "multinode": {"nodeCount": 2}}
    made = read(tmp_path, alpha({"W": service}))["W"]
    assert layout(made) == (4, 1)
    with pytest.raises(ValueError, match="takes 4 GPUs, 3 are placed"):
        vllm_command(made, Placement("h", 1, gpu_ids=(0, 1, 2)))
    assert vllm_command(made, Placement("h", 1, gpu_ids=(5, 7))).env["CUDA_VISIBLE_DEVICES"] == "5,7"


@given(tp=st.integers(1, 8), dp=st.integers(1, 8), gpus=st.integers(1, 64))
def test_a_layout_is_taken_when_it_fits_and_only_then(
    tmp_path_factory: pytest.TempPathFactory, tp: int, dp: int, gpus: int
) -> None:
    made = component(tmp_path_factory.getbasetemp(), ["-tp", str(tp), "-dp", str(dp)], gpus=str(gpus))
    if tp * dp == gpus:
        assert layout(made) == (tp, dp)
        return
    with pytest.raises(InputError, match=f"has {gpus} GPUs per worker"):
        layout(made)


@pytest.mark.parametrize(
    ("role", "args", "endpoint"),
    [
        ("prefill", [], "tcp://*:20090"),
        ("aggregated", [], "tcp://*:20090"),
        ("decode", [], None),
        ("prefill", ["--no-enable-prefix-caching"], None),
        ("prefill", ["-dp", "4", "--data-parallel-rank", "3"], "tcp://*:20087"),
        (
            "decode",
            ["--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"tcp://*:7000"}'],
            "tcp://*:20090",
        ),
        ("prefill", ["--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"ipc:///x"}'], "ipc:///x"),
        ("prefill", ["--kv-events-config", '{"enable_kv_cache_events":false}'], None),
    ],
)
def test_kv_events(tmp_path: Path, role: str, args: list[str], endpoint: str | None) -> None:
    made = command(tmp_path, args, role=role)
    assert made.kv_events_endpoint == endpoint
    config = parsed(made.argv, "--kv-events-config") or {}
    assert config.get("endpoint") == endpoint


def test_kv_event_port_of_the_component(tmp_path: Path) -> None:
    assert kv_event_port(component(tmp_path, [])) == 20080
    made = component(tmp_path, [], env=[{"name": "DYN_VLLM_KV_EVENT_PORT", "value": "20100"}])
    assert vllm_command(made, Placement("h", 1)).kv_events_endpoint == "tcp://*:20100"


def test_workers_share_no_port_to_replay_events_at(tmp_path: Path) -> None:
    asked = '{"enable_kv_cache_events":true,"endpoint":"tcp://*:7000","replay_endpoint":"tcp://*:7001"}'
    made = component(tmp_path, ["--kv-events-config", asked])
    placed = vllm_command(made, Placement("h", 1, kv_events_port=8000, kv_replay_port=8001))
    config = parsed(placed.argv, "--kv-events-config")
    assert (config["endpoint"], config["replay_endpoint"]) == ("tcp://*:8000", "tcp://*:8001")
    assert len(placed.notes) == 2
    assert "replay_endpoint" not in parsed(
        vllm_command(component(tmp_path, []), Placement("h", 1, kv_replay_port=8001)).argv, "--kv-events-config"
    )


def test_ports_of_a_rank_are_given_less_the_rank_that_vllm_adds(tmp_path: Path) -> None:
    made = command(tmp_path, ["-dp", "4", "--data-parallel-rank", "3"], role="prefill")
    assert made.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5598"
    assert made.kv_events_endpoint == "tcp://*:20087"


@pytest.mark.parametrize("port", ["1023", "49152", "x", "", "-1", "20080.0"])
def test_kv_event_port_out_of_range(tmp_path: Path, port: str) -> None:
    refused(tmp_path, [], "DYN_VLLM_KV_EVENT_PORT is", "W", env=[{"name": "DYN_VLLM_KV_EVENT_PORT", "value": port}])


def test_flags_of_dynamo_are_dropped_with_a_note(tmp_path: Path) -> None:
    dynamo = ["--migration-limit", "3", "--dyn-tool-call-parser", "hermes", "--store-kv=mem", "--request-plane", "tcp",
              "--enable-local-indexer", "true", "--use-vllm-tokenizer", "--durable-kv-events"]  # fmt: skip
    made = command(tmp_path, [*dynamo, "--max-num-seqs", "7", "--no-such-flag", "kept"])
    assert made.argv[7:11] == ("--max-num-seqs", "7", "--no-such-flag", "kept")
    assert [note.split()[0] for note in made.notes] == [word.split("=")[0] for word in dynamo if word.startswith("--")]


def test_what_the_placement_overrides_is_noted(tmp_path: Path) -> None:
    env = [{"name": "CUDA_VISIBLE_DEVICES", "value": "3"}, {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": "1"}]
    place = Placement("0.0.0.0", 8101, nixl_port=5601, gpu_ids=(0,), executable=("py", "-m", "vllm"))  # noqa: S104
    made = command(tmp_path, ["--port", "9000"], place, role="prefill", gpus="1", env=env)
    assert made.argv[:5] == ("py", "-m", "vllm", "serve", "m")
    assert after(made.argv, "--port") == "8101"
    assert made.env["CUDA_VISIBLE_DEVICES"] == "0"
    assert made.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5601"
    assert made.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "127.0.0.1"
    assert len(made.notes) == 3


def test_a_template_becomes_vllm_s(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("x")
    made = command(tmp_path, ["--custom-jinja-template", "chat.jinja"], workingDir=str(tmp_path))
    assert after(made.argv, "--chat-template") == str(tmp_path / "chat.jinja")
    assert "--custom-jinja-template" not in made.argv


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["vllm", "serve", "m"], ["--max-num-seqs", "7"]),
        (["/opt/bin/vllm", "serve"], ["m", "--max-num-seqs", "7"]),
        (["python3"], ["-m", "dynamo.vllm", "--model", "m", "--max-num-seqs", "7"]),
        (["python3.12", "-m", "vllm.entrypoints.openai.api_server"], ["--model=m", "--max-num-seqs", "7"]),
        (["bash", "-c"], ["exec vllm serve m --max-num-seqs 7"]),
        ([], ["--model", "m", "--max-num-seqs", "7"]),
    ],
)
def test_programs_that_are_known(tmp_path: Path, words: list[str], args: list[str]) -> None:
    made = vllm_command(component(tmp_path, args, whole=True, command=words), PLACE)
    assert made.argv[:9] == ("vllm", "serve", "m", "--host", "127.0.0.1", "--port", "8101", "--max-num-seqs", "7")


@pytest.mark.parametrize("words", [["python3", "serve.py"], ["sglang"], ["vllm", "bench"]])
def test_programs_that_are_not(tmp_path: Path, words: list[str]) -> None:
    refused(tmp_path, [], "runs", "command.0", whole=True, command=words)


def test_a_frontend_has_no_vllm_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no worker"):
        vllm_command(read(tmp_path, alpha())["Frontend"], PLACE)


@pytest.mark.parametrize("name", ["agg", "disagg", "disagg_router", "disagg_planner"])
def test_manifests(name: str) -> None:
    for each in load_graph(MANIFESTS / f"{name}.yaml").workers:
        made = vllm_command(each, PLACE)
        assert made.model == made.served_name == "Qwen/Qwen3-0.6B"
        assert (made.kv_events_endpoint is None) == (each.role == "decode")
        assert parsed(made.argv, "--kv-transfer-config") == {
            "aggregated": None,
            "prefill": {"kv_connector": "NixlConnector", "kv_role": "kv_producer"},
            "decode": {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"},
        }.get(each.role or "")
