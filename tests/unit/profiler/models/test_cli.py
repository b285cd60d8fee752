"""`profiler model-stub` and `profiler layouts`, as a user calls them."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from profiler.cli import models
from profiler.errors import InputError

app = typer.Typer()
app.command()(models.model_stub)
app.command()(models.layouts)


def call(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    return result.stdout


def test_list() -> None:
    lines = call("model-stub", "--list").splitlines()
    assert "qwen3-30b-a3b\tQwen/Qwen3-30B-A3B" in lines
    assert len(lines) == 7


def test_stub_by_name_and_by_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert call("model-stub", "mistral-7b-v0.3", "--to", str(first)).strip() == str(first)
    call("model-stub", "--config", str(first), "--to", str(second))
    names = ["README.md", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in second.iterdir()) == names
    assert (second / "config.json").read_text() == (first / "config.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model-stub"], "field NAME: is missing; expected either a model's name or --config FILE"),
        (["model-stub", "qwen3-8b", "--config", "x"], "is 'qwen3-8b' beside --config"),
        (["model-stub", "qwen3-8b"], "field --to: is missing"),
        (["layouts", "gpt-9", "--gpu", "h100-sxm", "--gpus", "1"], "no shipped config for 'gpt-9'"),
        (["layouts", "qwen3-8b", "--gpu", "h100-sxm", "--gpus", "1", "--dtype", "fp5"], "unknown number format 'fp5'"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(*arguments)


def test_layouts_for_machines() -> None:
    answer = json.loads(call("layouts", "llama-3.1-70b", "--gpu", "h100-sxm", "--gpus", "4", "--output", "json"))
    assert answer["parameters"] == 70_552_387_584
    assert [layout["fits"] for layout in answer["layouts"]] == [False, False, True]
    four = answer["layouts"][2]
    assert (four["name"], four["gpus"], four["rejected"]) == ("tp4", 4, None)
    assert four["weights_gib_per_gpu"] == pytest.approx(32.85, abs=0.01)
    assert four["kv_tokens"] > 500_000
    unknown = json.loads(call("layouts", "qwen3-8b", "--gpu", "other", "--gpus", "1", "--output", "json"))
    assert unknown["layouts"][0]["fits"] is None
    assert "is not known" in unknown["layouts"][0]["note"]


def test_layouts_for_people() -> None:
    text = " ".join(call("layouts", "qwen3-30b-a3b", "--gpu", "h100-sxm", "--gpus", "2").split())
    assert "30.53B weights, 3.35B active" in text
    assert "tp1-dp2-ep" in text


def test_nothing_fits() -> None:
    assert "no: weights" in call("layouts", "llama-3.1-70b", "--gpu", "h100-sxm", "--gpus", "1", exit_code=1)
