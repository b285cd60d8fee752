"""What is refused before an engine is started, with the option that is wrong, and nothing written."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from profiler.engines.layout import parse_layout, parse_pair
from profiler.errors import DependencyError, InputError
from profiler.models.layouts import Layout
from tests.unit.profiler.job.fakes import prepared

CASES = [
    ({"model": None}, "--model", "missing"),
    ({"model": "llama-9"}, "--model", "no shipped config"),
    ({"vllm": ("no-such-program",)}, "--vllm", "not a program"),
    ({"max_num_seqs": 256, "max_num_batched_tokens": 128}, "--max-num-batched-tokens", "128"),
    ({"max_model_len": 1_000_000}, "--max-model-len", "1,000,000"),
    ({"longest_isl": 4096}, "--longest-isl", "less than the longest sequence, 4,096"),
    ({"longest_isl": 200_000, "max_model_len": None}, "--longest-isl", "131,072"),
    ({"layouts": (Layout(8),)}, "--layout", "8"),
    ({"layouts": (Layout(3),)}, "--layout", "no layout of"),
    ({"model": "llama-3.1-70b"}, "--layout", "cannot be: weights"),
    ({"layouts": (), "pair": (Layout(4), Layout(1))}, "--pair", "needs 5 GPUs"),
    ({"layouts": (), "pair": (Layout(1), Layout(1)), "url": "http://x"}, "--pair", "given with --url"),
    ({"url": "http://x"}, "--layout", "given with --url"),
    ({"url": "http://x", "layouts": ()}, "--gpu", "missing"),
    ({"prefill_url": "http://x", "layouts": ()}, "--decode-url", "missing"),
    ({"url": "http://x", "layouts": (), "gpu": "h100-sxm", "max_num_seqs": None}, "--max-num-seqs", "missing"),
    ({"engine_args": ("--max-num-seqs=9",)}, "--engine-arg", "--max-num-seqs"),
    ({"engine_args": ("--max_model_len", "9")}, "--engine-arg", "--max-model-len"),
    ({"max_gpu_minutes": 0.0}, "--max-gpu-minutes", "above 0"),
    ({"max_error": 1.5}, "--max-error", "below 1"),
    ({"gpu_memory_utilization": 1.5}, "--gpu-memory-utilization", "at most 1"),
    ({"gpu_price_per_hour": -1.0}, "--gpu-price-per-hour", "0 or more"),
    ({"tables": ("prefill", "transfer")}, "--tables", "transfer"),
    ({"tables": ()}, "--tables", "none"),
    ({"name": "../x"}, "--name", "'../x'"),
]


@pytest.mark.parametrize(("changes", "option", "said"), CASES)
def test_refused_and_nothing_written(tmp_path: Path, changes: dict[str, Any], option: str, said: str) -> None:
    to = tmp_path / "out"
    with pytest.raises(InputError) as caught:
        asyncio.run(prepared(to, **changes))
    assert caught.value.field == option
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        asyncio.run(prepared(tmp_path / "file" / "out"))


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(InputError, match=r"field --port: .*cannot be listened on"):
            asyncio.run(prepared(tmp_path, port=listener.getsockname()[1]))


def test_an_endpoint_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        given = {"url": url, "layouts": (), "gpu": "h100-sxm"}
        with pytest.raises(DependencyError, match="Connect call failed"):
            asyncio.run(prepared(tmp_path, model=None, **given))


def test_all_layouts_that_fit_are_measured_and_the_others_skipped(tmp_path: Path) -> None:
    plan = asyncio.run(prepared(tmp_path, model="llama-3.1-70b", layouts=(), max_model_len=65536)).plan
    assert [unit.name for unit in plan.units] == ["tp4"]
    assert [name for name, _ in plan.skipped] == ["tp1", "tp2"]
    assert all("weights" in why for _, why in plan.skipped)


def test_a_number_format_joins_the_name_of_the_model(tmp_path: Path) -> None:
    plan = asyncio.run(prepared(tmp_path, dtype="fp8")).plan
    assert plan.model.name == "llama-3.1-8b-instruct-fp8"
    assert plan.model.shape is not None
    assert plan.model.shape.weight_bytes_per_param == 1
    assert plan.command(plan.units[0].workers[0], 1)[-2:] == ["--quantization", "fp8"]


def test_the_command_says_every_limit(tmp_path: Path) -> None:
    plan = asyncio.run(prepared(tmp_path, layouts=(Layout(2),), engine_args=("--enforce-eager",))).plan
    argv = plan.command(plan.units[0].workers[0], 8123)
    assert argv == [
        "sh", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--host", "127.0.0.1", "--port", "8123",
        "--served-model-name", "llama-3.1-8b-instruct", "--tensor-parallel-size", "2", "--max-num-seqs", "16",
        "--max-num-batched-tokens", "2048", "--block-size", "16", "--max-model-len", "4096",
        "--enable-prefix-caching", "--enforce-eager",
    ]  # fmt: skip


def test_the_engines_of_a_pair_have_gpus_of_their_own(tmp_path: Path) -> None:
    plan = asyncio.run(prepared(tmp_path, layouts=(), pair=(Layout(1), Layout(2)))).plan
    assert [worker.gpus for worker in plan.units[0].workers] == [(0,), (1, 2)]


@pytest.mark.parametrize("text", ["tp0", "2", "tp2-dp", "tp2-ep-dp2", ""])
def test_what_is_no_layout(text: str) -> None:
    with pytest.raises(InputError, match="tp1, tp2, tp1-dp2 or tp2-dp2-ep"):
        parse_layout(text)


def test_layouts_are_read_as_they_are_named() -> None:
    for name in ("tp1", "tp4", "tp1-dp2", "tp2-dp2-ep"):
        assert parse_layout(name).name == name
    assert parse_pair("tp1:tp2") == (Layout(1), Layout(2))
    with pytest.raises(InputError, match="tp1:tp2"):
        parse_pair("tp1")
